"""Convolution that reads through the interpolation of a virtual map."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from cnnopt_jax.kernels import winograd
from cnnopt_jax.kernels.border_pad import border_pad
from cnnopt_jax.kernels.conv import conv_general_dilated
from cnnopt_jax.vip import reading
from cnnopt_jax.vip.folding import FoldedKernel, WinogradKernel
from cnnopt_jax.vip.virtual_map import VirtualMap, validate

FORMS = (
  'direct',
  'winograd',
  'patches',
  'ring',
  'padded',
  'strips',
  'phases',
  'pointwise',
  'materialized',
)
Padding = tuple[tuple[int, int], tuple[int, int]]

# Where forms change places, measured on 2 CPU cores at batch 4 and 64: docs/results/vip_bench.
_PATCHES_FROM_CHANNELS = 128
_PATCHES_UP_TO_PIXELS = 4  # For each channel: a product no longer than its depth, about.
_PADDED_UP_TO_ELEMENTS = 1 << 19  # Above, XLA's convolution without padding loses a factor of 3.
_PHASES_SIDES = range(20, 100)
# Read and written: enough for sixteen products, and not more than caches hold.
_WINOGRAD_ELEMENTS = range(1 << 17, 1 << 22)
_WINOGRAD_MANY_CHANNELS = 160  # Harmonic mean; the products outweigh even memory.


def conv(
  x: jax.Array | VirtualMap,
  kernel: jax.Array | FoldedKernel | WinogradKernel,
  *,
  stride: int = 1,
  padding: Sequence[Sequence[int]] = ((1, 1), (1, 1)),
  groups: int = 1,
  virtual: bool = False,
  form: str | None = None,
) -> jax.Array | VirtualMap:
  """Convolution of a map, or of the map that a `VirtualMap` stands for, with zeros around it.

  Equals `lax.conv_general_dilated(materialize(x), kernel, (stride, stride), padding, ...)`; with
  `virtual=True`, every other row and column of that, as a virtual map of the same size.

  Args:
    x: [N, H, W, Cin], or a virtual map of that shape.
    kernel: [kh, kw, Cin / groups, Cout], raw, or prepared by `fold` or `winograd_transform`.
    stride: in both directions; of the map, whether or not it is virtual.
    padding: ((top, bottom), (left, right)).
    groups: of channels.
    virtual: compute at twice the stride, and give a virtual map of the full size.
    form: how to compute it, one of `FORMS`; None for the one `conv_form` names. All are exact.

  Returns:
    [N, H', W', Cout], or a `VirtualMap` of that shape.

  Raises:
    ValueError: if shapes do not fit, or `form` cannot compute this.
  """
  padding = reading.resolved(padding)
  if isinstance(x, VirtualMap):
    validate(x)
  out = _output_size(x.shape, kernel.shape, stride, padding, groups)
  step = 2 * stride if virtual else stride
  computed = tuple(-(-n // 2) for n in out) if virtual else out
  allowed = conv_forms(x, kernel.shape, step, padding, groups)
  if form is None:
    form = conv_form(
      x,
      kernel.shape,
      step,
      padding,
      groups,
      virtual,
      transformed=_transformed(x, kernel) is not None,
    )
  elif form not in allowed:
    raise ValueError(f'form={form!r}; allowed here: {", ".join(allowed)}')
  y = _FORMS[form](x, kernel, step, padding, computed, groups)
  return VirtualMap(y, out) if virtual else y


def _output_size(shape, kernel_shape, stride, padding, groups) -> tuple[int, int]:
  if len(shape) != 4 or len(kernel_shape) != 4 or kernel_shape[2] * groups != shape[3]:
    raise ValueError(
      f'x of shape {tuple(shape)}, kernel of shape {tuple(kernel_shape)}, '
      f'groups={groups}; allowed: [N, H, W, Cin] and [kh, kw, Cin / groups, Cout]'
    )
  if stride < 1:
    raise ValueError(f'stride={stride}; allowed: an integer of at least 1')
  out = tuple(
    (n + sum(pad) - k) // stride + 1 for n, pad, k in zip(shape[1:3], padding, kernel_shape[:2])
  )
  if min(out) < 1:
    raise ValueError(
      f'a kernel of {tuple(kernel_shape[:2])} does not fit into a map of '
      f'{tuple(shape[1:3])} with padding={padding}; allowed: at least one window'
    )
  return out


def conv_forms(
  x: jax.Array | VirtualMap, kernel_shape: Sequence[int], stride: int, padding: Padding, groups: int
) -> tuple[str, ...]:
  """The forms that can compute a convolution.

  Args:
    x: as in `conv`; only shapes are read.
    kernel_shape: of the kernel.
    stride: already doubled, for a virtual result.
    padding: as in `conv`.
    groups: of channels.

  Returns:
    Some of `FORMS`:
      'direct': one convolution of an array.
      'winograd': 16 products instead of 36 for every 2x2 pixels: of an array, for 3x3 kernels at
        stride 1 and one group; of a virtual map, for the kernels of 'ring'.
      'patches': one matrix product of patches; of a virtual map, for the kernels of 'ring'.
      'ring': one convolution of the samples with the folded kernel, and one matrix product for the
        pixels on the border; 3x3 kernels with one position of padding at stride 2, one group.
      'padded': the same after a padding that leaves nothing to add; groups too.
      'strips': the same for every kernel and padding at even strides, border by border.
      'phases': for odd strides, 'strips' for each parity of row and column.
      'pointwise': 1x1 kernels at stride 1 commute with the interpolation.
      'materialized': writes the map first.
  """
  three = tuple(kernel_shape[:2]) == (3, 3)
  if not isinstance(x, VirtualMap):
    if groups > 1:
      return ('direct',)
    return ('direct', 'patches') + ('winograd',) * (three and stride == 1)
  allowed = ['materialized']
  if stride % 2 == 0:
    allowed.append('strips')
    if three and stride == 2 and padding == ((1, 1), (1, 1)):
      allowed += ['padded'] + ['patches', 'ring', 'winograd'] * (groups == 1)
  else:
    allowed.append('phases')
    if _is_pointwise(kernel_shape, stride, padding):
      allowed.append('pointwise')
  return tuple(allowed)


def _is_pointwise(kernel_shape, stride, padding) -> bool:
  return tuple(kernel_shape[:2]) == (1, 1) and stride == 1 and padding == ((0, 0), (0, 0))


def conv_form(
  x: jax.Array | VirtualMap,
  kernel_shape: Sequence[int],
  stride: int,
  padding: Padding,
  groups: int,
  virtual: bool = False,
  *,
  transformed: bool = False,
) -> str:
  """The form that `conv` takes: the fastest measured on a CPU (docs/results/vip_bench).

  Args:
    x: as in `conv`; only shapes are read.
    kernel_shape: of the kernel.
    stride: already doubled, for a virtual result.
    padding: as in `conv`.
    groups: of channels.
    virtual: as in `conv`. Dense layers stay convolutions.
    transformed: the kernel was prepared for 'winograd', which is not chosen otherwise.

  Returns:
    One of `FORMS`.
  """
  on_cpu = jax.default_backend() == 'cpu'
  allowed = conv_forms(x, kernel_shape, stride, padding, groups)
  if transformed and on_cpu and 'winograd' in allowed and _fewer_products_pay(x, kernel_shape):
    return 'winograd'
  if 'direct' in allowed:
    channels, sides = kernel_shape[2], [-(-n // stride) for n in x.shape[1:3]]
    short = virtual and on_cpu and _is_short(x.shape[0], sides, channels)
    return 'patches' if short and 'patches' in allowed else 'direct'
  batch, *sides, channels = x.samples.shape
  if 'pointwise' in allowed:
    return 'pointwise'
  if 'phases' in allowed:
    return 'phases' if min(sides) in _PHASES_SIDES and groups == 1 else 'materialized'
  if 'ring' in allowed and on_cpu:
    if _is_short(batch, sides, channels):
      return 'patches'
    return 'padded' if math.prod(x.samples.shape) <= _PADDED_UP_TO_ELEMENTS else 'ring'
  return 'padded' if 'padded' in allowed else 'strips'


def _fewer_products_pay(x, kernel_shape) -> bool:
  """Whether they weigh more than the sums around them, which pass through memory."""
  inputs, outputs = kernel_shape[2:]
  elements = math.prod(jax.tree.leaves(x)[0].shape[:3]) * (inputs + outputs)
  many = 2 * inputs * outputs >= _WINOGRAD_MANY_CHANNELS * (inputs + outputs)
  return elements >= _WINOGRAD_ELEMENTS.start and (many or elements < _WINOGRAD_ELEMENTS.stop)


def _is_short(batch, sides, channels) -> bool:
  """Whether a product of patches has few rows for its depth."""
  pixels = batch * math.prod(sides)
  return channels >= _PATCHES_FROM_CHANNELS and pixels <= _PATCHES_UP_TO_PIXELS * channels


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


def _transformed(x, kernel) -> jax.Array | None:
  """What reads `x` by 'winograd', if the kernel was prepared for that."""
  prepared = FoldedKernel if isinstance(x, VirtualMap) else WinogradKernel
  return kernel.transformed if isinstance(kernel, prepared) else None


def _direct(x, kernel, stride, padding, out, groups):
  return _lax_conv(x, _raw(kernel), stride, padding, groups)


def _materialized(x, kernel, stride, padding, out, groups):
  return _lax_conv(x.materialize(), _raw(kernel), stride, padding, groups)


def _winograd(x, kernel, stride, padding, out, groups):
  transformed = _transformed(x, kernel)
  if transformed is None:
    taps = _folded(kernel, padding) if isinstance(x, VirtualMap) else _raw(kernel)
    transformed = winograd.transform_kernel(taps)
  return winograd.conv3x3(_surrounded(x, padding), transformed)


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


_FORMS = {
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
