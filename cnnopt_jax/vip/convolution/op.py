"""`conv`: convolution that reads through the interpolation of a virtual map."""

import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from cnnopt_jax.vip.arguments import (
  Int,
  Padding,
  PaddingLike,
  Pair,
  as_map,
  floating,
  padding_pairs,
  pair,
)
from cnnopt_jax.vip.convolution import taps
from cnnopt_jax.vip.convolution.choice import conv_form, conv_forms
from cnnopt_jax.vip.convolution.forms import COMPUTE
from cnnopt_jax.vip.folding import FoldedKernel, WinogradKernel, constant
from cnnopt_jax.vip.virtual_map import VirtualMap


def conv(
  x: jax.Array | VirtualMap,
  kernel: jax.Array | FoldedKernel | WinogradKernel,
  *,
  stride: Int | Sequence[Int] = 1,
  padding: PaddingLike = ((1, 1), (1, 1)),
  dilation: Int | Sequence[Int] = 1,
  groups: Int = 1,
  virtual: bool = False,
  form: str | None = None,
  platform: str | None = None,
) -> jax.Array | VirtualMap:
  """Convolution of a map, or of the map that a `VirtualMap` stands for, with zeros around it.

  Equals `lax.conv_general_dilated(materialize(x), kernel, stride, padding, ...)`; with
  `virtual=True`, every other row and column of that, as a virtual map of the same size. An infinity
  may come out as NaN, also at a border beside it: 'winograd' and the forms for virtual maps add
  numbers that they take away again.

  Args:
    x: [N, H, W, Cin], or a virtual map of that shape.
    kernel: [kh, kw, Cin / groups, Cout], raw, or prepared by `fold` or `winograd_transform`; of the
      type of `x`. A prepared one has no derivative.
    stride: in both directions, or of rows and of columns; of the map, whether or not it is virtual.
    padding: ((top, bottom), (left, right)), one number for all, a pair of numbers for rows and for
      columns, or 'SAME', 'SAME_LOWER' or 'VALID' as lax has them, for this stride. Negative numbers
      cut the map.
    dilation: of the kernel: pixels from one tap to the next, in both directions or in each.
    groups: of channels.
    virtual: compute at twice the stride, and give a virtual map of the full size.
    form: how to compute it, one of `FORMS`; None for the one `conv_form` names. All are exact.
    platform: that the form is chosen for, one of `kernels.platforms.PLATFORMS`; None for
      `jax.default_backend()`. Has no effect on a form that is named.

  Returns:
    [N, H', W', Cout], or a `VirtualMap` of that shape.

  Raises:
    ValueError: if shapes or types do not fit, what should be an integer is none, `form` cannot
      compute this, or the platform is unknown.
  """
  x, kernel = as_map('x', x), _as_kernel(kernel)
  stride, dilation = pair('stride', stride), pair('dilation', dilation)
  groups = _check_channels(x.shape, kernel.shape, groups)
  _check_types(x, kernel, virtual)
  spanned = taps.spanned_shape(kernel.shape, dilation)
  padding = padding_pairs(padding, x.shape[1:3], spanned[:2], stride)
  out = _output_size(x.shape, spanned, stride, padding)
  step = (2 * stride[0], 2 * stride[1]) if virtual else stride
  computed = (-(-out[0] // 2), -(-out[1] // 2)) if virtual else out
  # Of the virtual maps' forms 'materialized' alone leaves the gaps between taps to lax.
  allowed = conv_forms(x, spanned, step, padding, groups, dilated=dilation != (1, 1))
  if form is None:
    form = conv_form(
      x,
      spanned,
      step,
      padding,
      groups,
      virtual,
      dilated=dilation != (1, 1),
      transformed=taps.transformed(x, kernel) is not None,
      platform=platform,
    )
  elif form not in allowed:
    raise ValueError(f'form={form!r}; allowed here: {", ".join(allowed)}')
  y = COMPUTE[form](x, kernel, step, padding, dilation, computed, groups)
  return VirtualMap(y, out) if virtual else y


def _as_kernel(kernel):
  if isinstance(kernel, FoldedKernel | WinogradKernel):
    return constant(kernel)
  return jnp.asarray(kernel)


def _check_channels(shape, kernel_shape, groups: Int) -> int:
  """`groups` as an integer that divides what it must."""
  try:
    count = operator.index(groups)
  except TypeError:
    count = 0
  if count < 1:
    raise ValueError(f'groups={groups!r}; allowed: an integer of at least 1')
  if len(kernel_shape) != 4 or kernel_shape[2] * count != shape[3]:
    raise ValueError(
      f'x of shape {tuple(shape)}, kernel of shape {tuple(kernel_shape)}, '
      f'groups={groups}; allowed: [N, H, W, Cin] and [kh, kw, Cin / groups, Cout]'
    )
  if kernel_shape[3] % count:
    raise ValueError(
      f'groups={groups} with {kernel_shape[3]} output channels; allowed: a divisor of them'
    )
  return count


def _check_types(x, kernel, virtual: bool) -> None:
  if x.dtype != kernel.dtype:
    raise ValueError(
      f'x of type {x.dtype}, kernel of type {kernel.dtype}; allowed: one type, as by '
      'kernel.astype(x.dtype)'
    )
  if virtual and not isinstance(x, VirtualMap):
    floating('x, for a virtual result,', x)


def _output_size(shape, spanned_shape, stride: Pair, padding: Padding) -> Pair:
  height, width = (
    (n + sum(pad) - k) // step + 1
    for n, pad, k, step in zip(shape[1:3], padding, spanned_shape, stride)
  )
  if min(height, width) < 1:
    raise ValueError(
      f'a kernel of {tuple(spanned_shape[:2])} does not fit into a map of '
      f'{tuple(shape[1:3])} with padding={padding}; allowed: at least one window'
    )
  return height, width
