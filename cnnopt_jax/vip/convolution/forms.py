"""The forms of a convolution: ways to compute the same, each exact."""

import jax
import jax.numpy as jnp
from jax import lax

from cnnopt_jax.kernels import winograd
from cnnopt_jax.kernels.border_pad import border_pad
from cnnopt_jax.kernels.conv import conv_general_dilated
from cnnopt_jax.vip import reading
from cnnopt_jax.vip.folding import FoldedKernel, WinogradKernel
from cnnopt_jax.vip.virtual_map import VirtualMap


def _lax_conv(x, kernel, stride, padding, groups):
  return conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    padding,
    feature_group_count=groups,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def _raw(kernel) -> jax.Array:
  if isinstance(kernel, WinogradKernel):
    return kernel.taps
  return kernel.unfold() if isinstance(kernel, FoldedKernel) else kernel


def transformed(x, kernel) -> jax.Array | None:
  """What reads `x` by 'winograd', if the kernel was prepared for that."""
  prepared = FoldedKernel if isinstance(x, VirtualMap) else WinogradKernel
  return kernel.transformed if isinstance(kernel, prepared) else None


def _direct(x, kernel, stride, padding, out, groups):
  return _lax_conv(x, _raw(kernel), stride, padding, groups)


def _materialized(x, kernel, stride, padding, out, groups):
  return _lax_conv(x.materialize(), _raw(kernel), stride, padding, groups)


def _winograd(x, kernel, stride, padding, out, groups):
  matrices = transformed(x, kernel)
  if matrices is None:
    taps = _folded(kernel, padding) if isinstance(x, VirtualMap) else _raw(kernel)
    matrices = winograd.transform_kernel(taps)
  return winograd.conv3x3(_surrounded(x, padding), matrices)


def _surrounded(x, padding):
  """What a convolution reads that leaves nothing to add: zeros, or a virtual map's border."""
  if isinstance(x, VirtualMap):
    return border_pad(x.samples, x.size)
  around = ((0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0))
  return lax.pad(x, jnp.zeros((), x.dtype), around)


def _pointwise(x, kernel, stride, padding, out, groups):
  return VirtualMap(_lax_conv(x.samples, kernel, 1, padding, groups), x.size).materialize()


def _folded(kernel, padding) -> jax.Array:
  """The taps that read samples, whatever the kernel came as."""
  if isinstance(kernel, FoldedKernel) and padding == ((1, 1), (1, 1)):
    return kernel.taps
  (top, _), (left, _) = padding
  return reading.fold_taps(reading.fold_taps(_raw(kernel), 0, top), 1, left)


def _padded(x, kernel, stride, padding, out, groups):
  return _lax_conv(_surrounded(x, padding), _folded(kernel, padding), 1, ((0, 0), (0, 0)), groups)


def _patches(x, kernel, stride, padding, out, groups):
  if isinstance(x, VirtualMap):
    kernel, stride = _folded(kernel, padding), 1
  else:
    kernel = _raw(kernel)
  padded = _surrounded(x, padding)
  rows, columns = (stride * (n - 1) + 1 for n in out)
  windows = [
    padded[:, i : i + rows : stride, j : j + columns : stride]
    for i in range(kernel.shape[0])
    for j in range(kernel.shape[1])
  ]
  # A product of matrices: XLA's CPU backend takes half as long again over a four-dimensional one.
  y = _as_matrix(jnp.concatenate(windows, -1)) @ _as_matrix(kernel)
  return y.reshape(x.shape[0], *out, -1)


def _as_matrix(x):
  return x.reshape(-1, x.shape[-1])


def _ring(x, kernel, stride, padding, out, groups):
  """Zeros around the samples in the convolution; what should stand there, apart."""
  taps = _folded(kernel, padding)
  y = _lax_conv(x.samples, taps, 1, padding, groups)
  around = border_pad(x.samples, x.size)
  # The corners go with the rows.
  rows = jnp.stack([around[:, 0], around[:, -1]])
  columns = jnp.pad(
    jnp.stack([around[:, 1:-1, 0], around[:, 1:-1, -1]]), ((0, 0), (0, 0), (1, 1), (0, 0))
  )
  top, bottom = _read_lines(rows, taps[::2])
  left, right = _read_lines(columns, jnp.moveaxis(taps[:, ::2], 1, 0))
  last_row, last_column = out[0] - 1, out[1] - 1
  return (
    y
    + _place(top[:, None], (0, 0), out)
    + _place(bottom[:, None], (last_row, 0), out)
    + _place(left[:, :, None], (0, 0), out)
    + _place(right[:, :, None], (0, last_column), out)
  )


def _read_lines(lines, taps):
  """Convolves pairs of lines [2, N, L + 2, C] with pairs of kernels [2, 3, C, F]: [2, N, L, F]."""
  _, n, length, _ = lines.shape
  windows = jnp.concatenate([lines[:, :, i : i + length - 2] for i in range(3)], -1)
  y = windows.reshape(2, -1, windows.shape[-1]) @ taps.reshape(2, -1, taps.shape[-1])
  return y.reshape(2, n, length - 2, -1)


def _place(strip, start, out):
  """Zeros around a strip [N, rows, columns, C] that begins at `start` of a map of size `out`."""
  around = [
    (first, size - first - length, 0) for first, size, length in zip(start, out, strip.shape[1:3])
  ]
  return lax.pad(strip, jnp.zeros((), strip.dtype), ((0, 0, 0), *around, (0, 0, 0)))


def _strips(x, kernel, stride, padding, out, groups):
  """(E_h + D_h) x (E_w + D_w): all of E x E at once, then rows at D_h, columns at D_w, corners."""
  samples = x.samples
  rows, columns = reading.axes_of(
    samples.shape[1:3], x.size, kernel.shape[:2], stride, padding, out
  )
  taps = _EdgeTaps(kernel, padding)
  step = stride // 2
  conv2d = lambda s, k, pad_h, pad_w: _lax_conv(s, k, step, (pad_h, pad_w), groups)
  pad_h, pad_w = rows.folded_padding, columns.folded_padding
  y = conv2d(samples, taps.interior(), pad_h, pad_w)

  line = (0, 0)
  for i in rows.edges:
    row = samples[:, i.source : i.source + 1]
    y += _place(conv2d(i.weight * row, taps.row(i.tap), line, pad_w), (i.position, 0), out)
    for j in columns.edges:
      pixel = (i.weight * j.weight) * row[:, :, j.source : j.source + 1]
      corner = conv2d(pixel, taps.corner(i.tap, j.tap), line, line)
      y += _place(corner, (i.position, j.position), out)
  for j in columns.edges:
    column = j.weight * samples[:, :, j.source : j.source + 1]
    y += _place(conv2d(column, taps.column(j.tap), pad_h, line), (0, j.position), out)
  return y


class _EdgeTaps:
  """The kernel as the interior, the edges and the corners of a map read it.

  A folded kernel serves all of them: the taps that stand at an edge of a 3x3 kernel are, but for a
  half, its folded taps there.
  """

  def __init__(self, kernel, padding):
    self._padding = padding
    self._folded = isinstance(kernel, FoldedKernel) and padding == ((1, 1), (1, 1))
    self._kernel = kernel.taps if self._folded else _raw(kernel)

  def interior(self):
    return self._kernel if self._folded else _folded(self._kernel, self._padding)

  def row(self, tap):
    taps = self._kernel[tap : tap + 1]
    return 2 * taps if self._folded else reading.fold_taps(taps, 1, self._padding[1][0])

  def column(self, tap):
    taps = self._kernel[:, tap : tap + 1]
    return 2 * taps if self._folded else reading.fold_taps(taps, 0, self._padding[0][0])

  def corner(self, row, column):
    taps = self._kernel[row : row + 1, column : column + 1]
    return 4 * taps if self._folded else taps


def _phases(x, kernel, stride, padding, out, groups):
  """Output rows and columns of one parity read the map at an even stride."""
  kernel = _raw(kernel)
  (top, _), (left, _) = padding
  result = None
  for i in range(min(2, out[0])):
    for j in range(min(2, out[1])):
      size = (out[0] + 1 - i) // 2, (out[1] + 1 - j) // 2
      pad = (top - stride * i, 0), (left - stride * j, 0)
      y = _strips(x, kernel, 2 * stride, pad, size, groups)
      # Zeros between pixels: the sum of the four phases is the interleaved map.
      dilate = lambda axis, parity, y=y: (
        parity,
        out[axis] - parity - (2 * y.shape[axis + 1] - 1),
        1,
      )
      y = lax.pad(y, jnp.zeros((), y.dtype), ((0, 0, 0), dilate(0, i), dilate(1, j), (0, 0, 0)))
      result = y if result is None else result + y
  return result


# By name: functions of (x, kernel, stride, padding, size of the result, groups).
COMPUTE = {
  'direct': _direct,
  'winograd': _winograd,
  'patches': _patches,
  'ring': _ring,
  'padded': _padded,
  'strips': _strips,
  'phases': _phases,
  'pointwise': _pointwise,
  'materialized': _materialized,
}
