"""Which forms can compute a convolution, and which of them `conv` takes.

Thresholds are where forms change places as measured on 2 CPU cores at batch 4 and 64, float32;
`python -m experiments.vip_bench` times every form at VGG-16's shapes (docs/results/vip_bench).
On other platforms nothing has been measured: the choices there are those without thresholds.
"""

import math
from collections.abc import Sequence

import jax

from cnnopt_jax.kernels import platforms
from cnnopt_jax.vip.arguments import Int, Padding, pair
from cnnopt_jax.vip.virtual_map import VirtualMap

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

# A product of patches copies every sample up to nine times: it was faster only where it is deep and
# short, on small maps of many channels.
_PATCHES_FROM_CHANNELS = 128
_PATCHES_UP_TO_PIXELS = 4  # For each channel: a product no longer than its depth, about.
# Elements of the samples. Above, XLA's convolution without padding loses a factor of 3, and 'ring',
# which lets the convolution pad and adds the border, is faster.
_PADDED_UP_TO_ELEMENTS = 1 << 19
# Sides of the samples between which 'phases' was the faster; above and below, writing the map was.
_PHASES_SIDES = range(20, 100)
# Elements read and written: enough for sixteen products, and not more than caches hold, through
# which the sums around the products pass.
_WINOGRAD_ELEMENTS = range(1 << 17, 1 << 22)
_WINOGRAD_MANY_CHANNELS = 160  # Harmonic mean; from there the products outweigh even memory.


def conv_forms(
  x: jax.Array | VirtualMap,
  kernel_shape: Sequence[int],
  stride: Int | Sequence[Int],
  padding: Padding,
  groups: int,
  *,
  dilated: bool = False,
) -> tuple[str, ...]:
  """The forms that can compute a convolution.

  Args:
    x: as in `conv`; only shapes are read.
    kernel_shape: of the kernel; of a dilated one with its gaps.
    stride: as in `conv`, but already doubled for a virtual result.
    padding: ((top, bottom), (left, right)).
    groups: of channels.
    dilated: whether the kernel has gaps.

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
      'phases': for odd strides, 'strips' for each parity of row, of column or of both.
      'pointwise': 1x1 kernels at stride 1 commute with the interpolation.
      'materialized': writes the map first.
  """
  stride = pair('stride', stride)
  three = tuple(kernel_shape[:2]) == (3, 3) and not dilated
  if not isinstance(x, VirtualMap):
    if groups > 1 or dilated:
      return ('direct',)
    return ('direct', 'patches') + ('winograd',) * (three and stride == (1, 1))
  allowed = ['materialized']
  if not any(step % 2 for step in stride):
    allowed.append('strips')
    if three and stride == (2, 2) and padding == ((1, 1), (1, 1)):
      allowed += ['padded'] + ['patches', 'ring', 'winograd'] * (groups == 1)
  else:
    allowed.append('phases')
    if _is_pointwise(kernel_shape, stride, padding):
      allowed.append('pointwise')
  return tuple(allowed)


def _is_pointwise(kernel_shape, stride, padding) -> bool:
  return tuple(kernel_shape[:2]) == (1, 1) and stride == (1, 1) and padding == ((0, 0), (0, 0))


def conv_form(
  x: jax.Array | VirtualMap,
  kernel_shape: Sequence[int],
  stride: Int | Sequence[Int],
  padding: Padding,
  groups: int,
  virtual: bool = False,
  *,
  dilated: bool = False,
  transformed: bool = False,
  platform: str | None = None,
) -> str:
  """The form that `conv` takes: the fastest measured on a CPU (docs/results/vip_bench).

  Args:
    x: as in `conv`; only shapes are read.
    kernel_shape: as in `conv_forms`.
    stride: as in `conv_forms`.
    padding: ((top, bottom), (left, right)).
    groups: of channels.
    virtual: as in `conv`. Dense layers stay convolutions.
    dilated: as in `conv_forms`. At odd strides the map is then written: nothing was measured.
    transformed: the kernel was prepared for 'winograd', which is not chosen otherwise.
    platform: that the form is for, as in `conv`. 'winograd', 'patches' and 'ring' are chosen for
      CPUs only.

  Returns:
    One of `FORMS`.

  Raises:
    ValueError: if the platform is unknown.
  """
  on_cpu = platforms.is_cpu(platform)
  stride = pair('stride', stride)
  allowed = conv_forms(x, kernel_shape, stride, padding, groups, dilated=dilated)
  if transformed and on_cpu and 'winograd' in allowed and _fewer_products_pay(x, kernel_shape):
    return 'winograd'
  if not isinstance(x, VirtualMap):
    channels, sides = kernel_shape[2], [-(-n // step) for n, step in zip(x.shape[1:3], stride)]
    short = virtual and on_cpu and _is_short(x.shape[0], sides, channels)
    return 'patches' if short and 'patches' in allowed else 'direct'
  batch, *sides, channels = x.samples.shape
  if 'pointwise' in allowed:
    return 'pointwise'
  if 'phases' in allowed:
    plain = groups == 1 and not dilated
    return 'phases' if plain and min(sides) in _PHASES_SIDES else 'materialized'
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
