"""`conv`: convolution that reads through the interpolation of a virtual map."""

from collections.abc import Sequence

import jax

from cnnopt_jax.vip import reading
from cnnopt_jax.vip.convolution import taps
from cnnopt_jax.vip.convolution.choice import conv_form, conv_forms
from cnnopt_jax.vip.convolution.forms import COMPUTE
from cnnopt_jax.vip.folding import FoldedKernel, WinogradKernel
from cnnopt_jax.vip.virtual_map import VirtualMap, validate


def conv(
  x: jax.Array | VirtualMap,
  kernel: jax.Array | FoldedKernel | WinogradKernel,
  *,
  stride: int = 1,
  padding: Sequence[Sequence[int]] = ((1, 1), (1, 1)),
  groups: int = 1,
  virtual: bool = False,
  form: str | None = None,
  platform: str | None = None,
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
    platform: that the form is chosen for, one of `kernels.platforms.PLATFORMS`; None for
      `jax.default_backend()`. Has no effect on a form that is named.

  Returns:
    [N, H', W', Cout], or a `VirtualMap` of that shape.

  Raises:
    ValueError: if shapes do not fit, `form` cannot compute this, or the platform is unknown.
  """
  padding = reading.padding_pairs(padding)
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
      transformed=taps.transformed(x, kernel) is not None,
      platform=platform,
    )
  elif form not in allowed:
    raise ValueError(f'form={form!r}; allowed here: {", ".join(allowed)}')
  y = COMPUTE[form](x, kernel, step, padding, computed, groups)
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
