"""The interpolation of ViP and its transpose in terms of XLA; forms and times in `taps.py`."""

import jax
import numpy as np

from cnnopt_jax.kernels import taps
from cnnopt_jax.kernels.linear import Linear
from cnnopt_jax.kernels.taps import Tap


def forward_taps(size: int) -> tuple[Tap, Tap]:
  """`out[I] = (x[I // 2] + x[min((I + 1) // 2, last)]) / 2`: a sample or the mean of two."""
  position = np.arange(size)
  last = taps.samples_of(size) - 1
  return (Tap(position // 2, 0.5), Tap(np.minimum((position + 1) // 2, last), 0.5))


def transposed_taps(size: int) -> tuple[Tap, Tap, Tap]:
  """`dx[i] = g[2i] + (g[2i - 1] + g[2i + 1]) / 2`; the last takes all of a repeated edge."""
  i = np.arange(taps.samples_of(size))
  after = np.where(2 * i + 1 < size, np.where(i == i[-1], 1.0, 0.5), 0.0)
  return (
    Tap(2 * i),
    Tap(np.minimum(2 * i + 1, size - 1), after),
    Tap(np.maximum(2 * i - 1, 0), np.where(i > 0, 0.5, 0.0)),
  )


def interp2x(samples: jax.Array, *, size: tuple[int, int]) -> tuple[jax.Array]:
  """Samples `[N, h, w, C]` to the map `[N, H, W, C]`."""
  rows, columns = map(forward_taps, size)
  return (taps.read(samples, rows, columns).astype(samples.dtype),)


def interp2x_transposed(cotangent: jax.Array, *, size: tuple[int, int]) -> tuple[jax.Array]:
  """Cotangent of the map `[N, H, W, C]` to that of the samples `[N, h, w, C]`."""
  rows, columns = map(transposed_taps, size)
  return (taps.read(cotangent, rows, columns).astype(cotangent.dtype),)


OP = Linear(interp2x, interp2x_transposed)
