"""Border-exact padding and its transpose in terms of XLA; `taps.py` says how maps are read.

float32 on 2 CPU cores, JAX 0.10.2, ms (median of 11 interleaved calls); forward, and transposes:

| form                                    | [4,112,112,64] | [4,28,28,256], odd size |
|-----------------------------------------|---------------:|------------------------:|
| clamped taps (used)                     |           1.37 |                    0.24 |
| transpose: taps, an axis at a time      |           1.08 |                    0.25 |
| transpose: nine taps                    |           1.50 |                    0.45 |
| transpose: concatenated strips          |           1.75 |                    0.32 |
| transpose: strips added in place        |           2.62 |                    0.48 |
| transpose: strips zero-padded and added |           24.3 |                    1.00 |

Other forward forms, in another run where taps took 1.45 and 0.33: concatenated 2.67 and 0.44,
edge-padded and multiplied 2.53 and 0.33, borders set 6.51 and 0.53.
"""

import jax
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


def transposed_taps(size: int) -> tuple[Tap, Tap, Tap]:
  """A sample's own position; the first takes the border before it, the last the one after."""
  samples = taps.samples_of(size)
  i = np.arange(samples)
  return (
    Tap(i + 1),
    Tap(0 * i, np.where(i == 0, -1.0, 0.0)),
    Tap(0 * i + samples + 1, np.where(i == samples - 1, last_sign(size), 0.0)),
  )


def border_pad_transposed(cotangent: jax.Array, *, size: tuple[int, int]) -> tuple[jax.Array]:
  """Cotangent of the padded map `[N, h + 2, w + 2, C]` to that of the samples `[N, h, w, C]`."""
  rows, columns = map(transposed_taps, size)
  # An axis at a time: six terms instead of nine.
  g = taps.read(cotangent, rows, _as_it_is(cotangent.shape[2]))
  g = taps.read(g, _as_it_is(g.shape[1]), columns)
  return (g.astype(cotangent.dtype),)


def _as_it_is(size: int) -> tuple[Tap]:
  """Every position of an axis, once."""
  return (Tap(np.arange(size)),)


OP = Linear(border_pad, border_pad_transposed)
