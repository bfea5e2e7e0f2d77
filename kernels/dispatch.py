"""What every op's `api.py` does first: check its arguments and choose an implementation."""

import contextlib
import contextvars
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from cnnopt_jax.kernels import pallas, rows, taps

IMPLEMENTATIONS = (None, 'xla', 'mosaic')

# Left to itself, an op leaves maps of fewer bytes to XLA: launches, not bytes, are their time.
# Reasoned, not measured.
LEAST_BYTES = 1 << 20
_PROBE_SIZE, _PROBE_CHANNELS = (6, 33), 64


_forced: contextvars.ContextVar[rows.Tile | None] = contextvars.ContextVar('forced', default=None)


@contextlib.contextmanager
def forced(tile: rows.Tile) -> Iterator[None]:
  """Kernels traced here take this tile: for searches."""
  token = _forced.set(tile)
  try:
    yield
  finally:
    _forced.reset(token)


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
  expected = tuple(map(taps.samples_of, size))
  if samples.shape[1:3] != expected:
    raise ValueError(
      f'{name}.shape={samples.shape}: {size=} is sampled at {expected[0]} x '
      f'{expected[1]} positions; allowed: [N, {expected[0]}, {expected[1]}, C]'
    )
  return size


def check_map(
  name: str, x: jax.Array, size: tuple[int, int], full: bool = False
) -> tuple[int, int]:
  """Checks rank, type and size; with `full=True` also that `x` has that size."""
  if len(size) != 2 or any(int(n) != n or n < 1 for n in size):
    raise ValueError(f'{size=}; allowed: two integers of at least 1')
  size = int(size[0]), int(size[1])
  if x.ndim != 4 or not jnp.issubdtype(x.dtype, jnp.floating):
    raise ValueError(f'{name} is {x.dtype}{list(x.shape)}; allowed: floating [N, height, width, C]')
  if full and x.shape[1:3] != size:
    raise ValueError(f'{name}.shape={x.shape}; allowed: [N, {size[0]}, {size[1]}, C]')
  return size


def choose(
  implementation: str | None,
  samples: jax.Array,
  size: tuple[int, int],
  *,
  tuned: Mapping[str, Mapping[tuple[int, int, str], rows.Tile]],
  position_bytes: int,
  op: Callable[..., jax.Array],
) -> rows.Tile | None:
  """The tile of the kernel that is to run, or None for XLA.

  Args:
    implementation: 'xla', 'mosaic', or None for the kernel where it can run and XLA elsewhere.
    samples: `[N, h, w, C]`.
    size: of the map.
    tuned: by device kind, then by samples in a row, channels and type: the fastest tile measured.
    position_bytes: shared memory that the op's kernels need for each channel of a row's samples.
    op: `(samples, size, implementation=)`, to try once before None stands for the kernel.

  Returns:
    A tile: tuned where there is one, else by heuristic.

  Raises:
    ValueError: an unknown name, or the kernel asked for by name where it cannot run.
  """
  if implementation not in IMPLEMENTATIONS:
    raise ValueError(f"{implementation=}; allowed: None, 'xla', 'mosaic'")
  if implementation == 'xla':
    return None
  reason = refusal(samples, size, position_bytes)
  if implementation == 'mosaic' and reason:
    raise ValueError(f"implementation='mosaic': {reason}; allowed: 'xla', or None to fall back")
  if reason or (implementation is None and not _worth_it(samples, size, op)):
    return None
  width, channels, dtype = samples.shape[2], samples.shape[3], samples.dtype
  if _forced.get() is not None:
    return _forced.get()
  measured = tuned.get(pallas.target()[1], {}).get((width, channels, jnp.dtype(dtype).name))
  return measured or rows.heuristic(width, channels, dtype, position_bytes)


def refusal(samples: jax.Array, size: tuple[int, int], position_bytes: int) -> str | None:
  """Why the kernels cannot take these samples here, or None if they can."""
  batch, _, width, channels = samples.shape
  if jnp.dtype(samples.dtype).name not in rows.DTYPES:
    return f'{samples.dtype} samples; the kernels take ' + ' and '.join(rows.DTYPES)
  if channels == 0 or channels % rows.CHANNELS_MULTIPLE:
    return f'{channels} channels; the kernels take multiples of {rows.CHANNELS_MULTIPLE}'
  if rows.heuristic(width, channels, samples.dtype, position_bytes) is None:
    return (
      f'rows of {width} samples of {channels} channels; the kernels take more than '
      f'{rows.least_columns(channels)}, and rows that fit into shared memory'
    )
  if batch == 0 or min(size) < 2:
    return f'N={batch}, {size=}; the kernels take N of at least 1, sizes of at least 2'
  if pallas.interpreting():
    return None
  platform, kind = pallas.target()
  if platform != 'cuda' or pallas.capability() < 9:
    return f'traced for {kind!r}; the kernels run on NVIDIA GPUs of compute capability 9.0 or newer'
  return None


def _worth_it(samples, size, op) -> bool:
  """Whether None stands for the kernel: the map is large, and the kernel is sound here."""
  positions = samples.shape[0] * size[0] * size[1]
  if positions * samples.shape[3] * jnp.dtype(samples.dtype).itemsize < LEAST_BYTES:
    return False
  return pallas.abstract() or pallas.interpreting() or sound(op, jnp.dtype(samples.dtype).name)


@functools.cache
def sound(op: Callable[..., jax.Array], dtype: str) -> bool:
  """Whether the kernel of `op` runs on this machine and agrees with XLA, both ways, once a process.

  These kernels live on interfaces of JAX that change; a user who did not ask for them should not
  suffer from it. Asked for by name, they are run as they are.
  """
  shape = (2, *map(taps.samples_of, _PROBE_SIZE), _PROBE_CHANNELS)
  # Called while a caller is being traced: step out of the trace to execute.
  with jax.ensure_compile_time_eval():
    samples = jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)
    found = []
    try:
      for implementation in ('mosaic', 'xla'):

        def run(x, implementation=implementation):
          out, pull = jax.vjp(lambda x: op(x, _PROBE_SIZE, implementation=implementation), x)
          return out, *pull(jnp.cos(out))

        found.append(jax.tree.map(np.asarray, jax.jit(run)(samples)))
    except Exception as error:  # Whatever it is, XLA can do the work.
      warnings.warn(
        f'{op.__name__}: the GPU kernel does not run here ({type(error).__name__}: '
        f'{str(error)[:200]}); XLA does its work',
        stacklevel=2,
      )
      return False
  # Sums of at most nine terms of order one, rounded once.
  tolerance = 32 * float(jnp.finfo(dtype).eps)
  same = all(
    np.allclose(a.astype(np.float32), b.astype(np.float32), tolerance, tolerance)
    for a, b in zip(*found)
  )
  if not same:
    warnings.warn(
      f'{op.__name__}: the GPU kernel disagrees with XLA; XLA does its work', stacklevel=2
    )
  return same
