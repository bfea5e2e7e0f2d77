"""Reading one axis of a virtual map with a sliding window: the algebra, on static integers.

With n samples s, zero outside 0..n-1, the interpolated axis is v = E s + D s, where

    (E s)[p] = sum_i s[i] tri(p - 2i),   tri(0) = 1, tri(1) = tri(-1) = 1/2, else 0,

interpolates between neighbours and towards the zeros outside, and D s puts right what E does at
the two ends: the map is zero at -1, where E gives s[0]/2; and at 2n-1, where E gives s[-1]/2, it is
s[-1] if its size is even, and zero if it is odd. So

    (D s)[-1] = -s[0]/2,   (D s)[2n-1] = +s[-1]/2 (even size) or -s[-1]/2 (odd size).

A window of taps w[0..k-1] at an even stride S, o[j] = sum_t w[t] v[S j + t - low], therefore is a
window of folded taps at stride S/2 over the samples,

    K[m] = sum_t w[t] tri(t - low - 2m),   m from -floor((low + 1) / 2) to floor((k - low) / 2),

and a few single products at the ends. Both axes of an image are read so, one after the other.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from cnnopt_jax.vip.arguments import Padding, Pair


class EdgeTerm(NamedTuple):
  """One product that the folded window lacks: `o[position] += weight * w[tap] * s[source]`."""

  source: int
  position: int
  tap: int
  weight: float


class WindowAxis(NamedTuple):
  """A window sliding over one axis of a virtual map.

  Attributes:
    samples: n.
    size: of the map, 2n or 2n - 1.
    taps: k.
    stride: S, even, in positions of the map.
    low: positions before the map at which the first window begins; negative to begin inside.
    out: number of windows.
  """

  samples: int
  size: int
  taps: int
  stride: int
  low: int
  out: int

  @property
  def folded_padding(self) -> tuple[int, int]:
    """Zeros around the samples for the folded window; negative numbers cut samples off.

    XLA's convolution does not take those on a CPU; `kernels.conv` cuts before.
    """
    before = first_folded_tap(self.low)
    after = (self.taps - self.low) // 2
    return -before, (self.out - 1) * (self.stride // 2) + after - (self.samples - 1)

  @property
  def edges(self) -> tuple[EdgeTerm, ...]:
    """What D s adds."""
    last = self.samples - 1
    at_end = 0.5 if self.size % 2 == 0 else -0.5
    found = []
    for source, place, weight in ((0, -1, -0.5), (last, 2 * last + 1, at_end)):
      for position in range(self.out):
        tap = place + self.low - self.stride * position
        if 0 <= tap < self.taps:
          found.append(EdgeTerm(source, position, tap, weight))
    return tuple(found)


def first_folded_tap(low: int) -> int:
  """Sample, relative to a window's own, that the first folded tap reads."""
  return -((low + 1) // 2)


def fold_taps(taps: jax.Array, axis: int, low: int) -> jax.Array:
  """Folds a window of taps along one axis: K of the module's docstring.

  Args:
    taps: any shape, k taps along `axis`.
    axis: of the taps.
    low: as in `WindowAxis`.

  Returns:
    The same shape but for `axis`, which has one entry for each folded tap.
  """
  taps = jnp.moveaxis(taps, axis, 0)
  k = taps.shape[0]
  folded = []
  for m in range(first_folded_tap(low), (k - low) // 2 + 1):
    centre = 2 * m + low
    terms = [
      (1.0 if t == centre else 0.5) * taps[t]
      for t in (centre - 1, centre, centre + 1)
      if 0 <= t < k
    ]
    folded.append(sum(terms[1:], terms[0]))
  return jnp.moveaxis(jnp.stack(folded), 0, axis)


def window_axes(
  samples: Pair,
  size: Pair,
  window: Pair,
  stride: Pair,
  padding: Padding,
  out: Pair,
) -> tuple[WindowAxis, WindowAxis]:
  """A window's way over both axes of an image, from pairs of what `WindowAxis` holds."""
  rows, columns = (
    WindowAxis(n, h, k, step, low, o)
    for n, h, k, step, (low, _), o in zip(samples, size, window, stride, padding, out)
  )
  return rows, columns
