"""What every op's `api.py` does first: check its arguments and choose an implementation."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

IMPLEMENTATIONS = (None, 'xla', 'mosaic')


def check_samples(name: str, samples: jax.Array, size: tuple[int, int]) -> tuple[int, int]:
  """Checks that `samples` can stand for a map of `size`.

  Args:
    name: how the argument is called in an error.
    samples: floating `[N, h, w, C]`.
    size: height and width of the map.

  Returns:
    `size` as a tuple of two ints.

  Raises:
    ValueError: naming what is wrong and what is allowed.
  """
  size = check_map(name, samples, size)
  expected = tuple((n + 1) // 2 for n in size)
  if samples.shape[1:3] != expected:
    raise ValueError(f'{name}.shape={samples.shape}: {size=} is sampled at {expected[0]} x '
                     f'{expected[1]} positions; allowed: [N, {expected[0]}, {expected[1]}, C]')
  return size


def check_map(name: str, x: jax.Array, size: tuple[int, int],
              full: bool = False) -> tuple[int, int]:
  """Checks rank, type and size; with `full=True` also that `x` has that size."""
  if len(size) != 2 or any(int(n) != n or n < 1 for n in size):
    raise ValueError(f'{size=}; allowed: two integers of at least 1')
  size = tuple(map(int, size))
  if x.ndim != 4 or not jnp.issubdtype(x.dtype, jnp.floating):
    raise ValueError(f'{name} is {x.dtype}{list(x.shape)}; allowed: floating [N, height, width, C]')
  if full and x.shape[1:3] != size:
    raise ValueError(f'{name}.shape={x.shape}; allowed: [N, {size[0]}, {size[1]}, C]')
  return size


def choose(implementation: str | None, refusal: Callable[[], str | None]) -> str:
  """The implementation to run.

  Args:
    implementation: 'xla', 'mosaic', or None for the kernel where it can run and XLA elsewhere.
    refusal: says why the kernel cannot run, or None if it can.

  Returns:
    'xla' or 'mosaic'.

  Raises:
    ValueError: an unknown name, or the kernel asked for by name where it cannot run.
  """
  if implementation not in IMPLEMENTATIONS:
    raise ValueError(f"{implementation=}; allowed: None, 'xla', 'mosaic'")
  if implementation == 'xla':
    return 'xla'
  reason = refusal()
  if implementation is None:
    return 'xla' if reason else 'mosaic'
  if reason:
    raise ValueError(f"implementation='mosaic': {reason}; allowed: 'xla', or None to fall back")
  return 'mosaic'
