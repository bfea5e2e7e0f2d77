"""The taps of a kernel, raw or prepared, as the forms read them, and a convolution with them."""

import jax

from cnnopt_jax.kernels.conv import conv_general_dilated
from cnnopt_jax.vip import reading
from cnnopt_jax.vip.folding import FoldedKernel, WinogradKernel
from cnnopt_jax.vip.virtual_map import VirtualMap

# The padding that `fold_kernel` folds for.
_ONE_AROUND = ((1, 1), (1, 1))


def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding, groups: int) -> jax.Array:
  """Convolution of [N, H, W, Cin] with [kh, kw, Cin / groups, Cout] at `stride` both ways."""
  return conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    padding,
    feature_group_count=groups,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def raw(kernel: jax.Array | FoldedKernel | WinogradKernel) -> jax.Array:
  """The taps that read arrays, whatever the kernel came as."""
  if isinstance(kernel, WinogradKernel):
    return kernel.taps
  return kernel.unfold() if isinstance(kernel, FoldedKernel) else kernel


def folded(kernel: jax.Array | FoldedKernel | WinogradKernel, padding) -> jax.Array:
  """The taps that read samples, whatever the kernel came as."""
  if isinstance(kernel, FoldedKernel) and padding == _ONE_AROUND:
    return kernel.taps
  (top, _), (left, _) = padding
  return reading.fold_taps(reading.fold_taps(raw(kernel), 0, top), 1, left)


def transformed(
  x: jax.Array | VirtualMap, kernel: jax.Array | FoldedKernel | WinogradKernel
) -> jax.Array | None:
  """What reads `x` by 'winograd', if the kernel was prepared for that."""
  prepared = FoldedKernel if isinstance(x, VirtualMap) else WinogradKernel
  return kernel.transformed if isinstance(kernel, prepared) else None


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
    return 2 * taps if self._folded else reading.fold_taps(taps, 1, self._padding[1][0])

  def column(self, tap: int) -> jax.Array:
    """One column of taps, folded along the rows."""
    taps = self._kernel[:, tap : tap + 1]
    return 2 * taps if self._folded else reading.fold_taps(taps, 0, self._padding[0][0])

  def corner(self, row: int, column: int) -> jax.Array:
    """One tap, folded neither way."""
    taps = self._kernel[row : row + 1, column : column + 1]
    return 4 * taps if self._folded else taps
