"""The taps of a kernel, raw or prepared, as the forms read them, and a convolution with them."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from cnnopt_jax.kernels.conv import conv_general_dilated
from cnnopt_jax.kernels.taps import widen
from cnnopt_jax.vip import reading
from cnnopt_jax.vip.arguments import Padding, Pair
from cnnopt_jax.vip.folding import FoldedKernel, WinogradKernel
from cnnopt_jax.vip.virtual_map import VirtualMap

# The padding that `fold_kernel` folds for.
_ONE_AROUND = ((1, 1), (1, 1))


def convolve(
  x: jax.Array,
  kernel: jax.Array,
  stride: Pair,
  padding: Padding,
  groups: int,
  dilation: Pair = (1, 1),
) -> jax.Array:
  """Convolution of [N, H, W, Cin] with [kh, kw, Cin / groups, Cout]."""
  return conv_general_dilated(
    x,
    kernel,
    stride,
    padding,
    rhs_dilation=dilation,
    feature_group_count=groups,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def raw(kernel: jax.Array | FoldedKernel | WinogradKernel) -> jax.Array:
  """The taps that read arrays, whatever the kernel came as."""
  if isinstance(kernel, WinogradKernel):
    return kernel.taps
  return kernel.unfold() if isinstance(kernel, FoldedKernel) else kernel


def spanned_shape(shape: Sequence[int], dilation: Pair) -> tuple[int, ...]:
  """Shape of a kernel [kh, kw, Cin / groups, Cout] with the gaps between its taps filled."""
  sides = ((k - 1) * d + 1 for k, d in zip(shape, dilation))
  return *sides, *shape[2:]


def spanned(kernel: jax.Array | FoldedKernel | WinogradKernel, dilation: Pair):
  """The kernel with zeros for the gaps between its taps; as it came, where there are none.

  Folded for an even dilation, most of these zeros fall away again.
  """
  if dilation == (1, 1):
    return kernel
  taps = raw(kernel)
  gaps = (*((0, 0, d - 1) for d in dilation), (0, 0, 0), (0, 0, 0))
  return lax.pad(taps, jnp.zeros((), taps.dtype), gaps)


def folded(kernel: jax.Array | FoldedKernel | WinogradKernel, padding) -> jax.Array:
  """The taps that read samples, whatever the kernel came as."""
  if isinstance(kernel, FoldedKernel) and padding == _ONE_AROUND:
    return kernel.taps
  (top, _), (left, _) = padding
  taps = reading.fold_taps(reading.fold_taps(widen(raw(kernel)), 0, top), 1, left)
  return taps.astype(kernel.dtype)


def _folded_along(taps: jax.Array, axis: int, low: int) -> jax.Array:
  return reading.fold_taps(widen(taps), axis, low).astype(taps.dtype)


def transformed(
  x: jax.Array | VirtualMap, kernel: jax.Array | FoldedKernel | WinogradKernel
) -> jax.Array | None:
  """What reads `x` by 'winograd', if the kernel was prepared for that, in float32 at least.

  A transform that was rounded to a narrower type is passed over: the products would lose more than
  a direct sum does.
  """
  prepared = FoldedKernel if isinstance(x, VirtualMap) else WinogradKernel
  found = kernel.transformed if isinstance(kernel, prepared) else None
  return found if found is not None and found.dtype == widen(found).dtype else None


class EdgeTaps:
  """The kernel as the interior, the edges and the corners of a map read it.

  A folded kernel serves all of them: the taps that stand at an edge of a 3x3 kernel are, but for a
  half, its folded taps there.
  """

  def __init__(self, kernel: jax.Array | FoldedKernel | WinogradKernel, padding):
    self._padding = padding
    self._folded, self._kernel = False, raw(kernel)
    if isinstance(kernel, FoldedKernel) and padding == _ONE_AROUND:
      self._folded, self._kernel = True, kernel.taps

  def interior(self) -> jax.Array:
    """Folded both ways."""
    return self._kernel if self._folded else folded(self._kernel, self._padding)

  def row(self, tap: int) -> jax.Array:
    """One row of taps, folded along the columns."""
    taps = self._kernel[tap : tap + 1]
    return 2 * taps if self._folded else _folded_along(taps, 1, self._padding[1][0])

  def column(self, tap: int) -> jax.Array:
    """One column of taps, folded along the rows."""
    taps = self._kernel[:, tap : tap + 1]
    return 2 * taps if self._folded else _folded_along(taps, 0, self._padding[0][0])

  def corner(self, row: int, column: int) -> jax.Array:
    """One tap, folded neither way."""
    taps = self._kernel[row : row + 1, column : column + 1]
    return 4 * taps if self._folded else taps
