"""Border-exact padding and its transpose in terms of XLA; `taps.py` says how maps are read."""

import jax
import jax.numpy as jnp
import numpy as np

from cnnopt_jax.kernels import taps
from cnnopt_jax.kernels.linear import Linear
from cnnopt_jax.kernels.taps import Tap


def last_sign(size: int) -> int:
  """What stands after the last sample: itself where the size is even, its negative where odd."""
  return 1 if size % 2 == 0 else -1


def forward_tap(size: int) -> Tap:
  """`[-x[0], x[0], ..., x[last], +-x[last]]`."""
  samples = taps.samples_of(size)
  weight = np.ones(samples + 2)
  weight[0], weight[-1] = -1, last_sign(size)
  return Tap(np.clip(np.arange(samples + 2) - 1, 0, samples - 1), weight)


def border_pad(samples: jax.Array, *, size: tuple[int, int]) -> tuple[jax.Array]:
  """Samples `[N, h, w, C]` to `[N, h + 2, w + 2, C]`."""
  rows, columns = map(forward_tap, size)
  return (taps.read(samples, (rows,), (columns,)).astype(samples.dtype),)


def border_pad_transposed(cotangent: jax.Array, *, size: tuple[int, int]) -> tuple[jax.Array]:
  """Cotangent of the padded map `[N, h + 2, w + 2, C]` to that of the samples `[N, h, w, C]`."""
  g = taps.widen(cotangent)
  for axis, positions in zip((1, 2), size):
    g = _unpad(g, axis, last_sign(positions))
  return (g.astype(cotangent.dtype),)


def _unpad(g: jax.Array, axis: int, sign: int) -> jax.Array:
  """The inner part; its first takes the negative of the border before it, its last the one after.

  Slices and zero pads: taps would read three positions for each although only the ends need them.
  """
  samples = g.shape[axis] - 2
  cut = lambda start, stop: jax.lax.slice_in_dim(g, start, stop, axis=axis)
  place = lambda x, before: jax.lax.pad(x, jnp.zeros((), x.dtype), [
      (before, samples - 1 - before, 0) if a == axis else (0, 0, 0) for a in range(4)])
  first, last = cut(0, 1), cut(samples + 1, samples + 2)
  return cut(1, samples + 1) - place(first, 0) + sign * place(last, samples - 1)


OP = Linear(border_pad, border_pad_transposed)
