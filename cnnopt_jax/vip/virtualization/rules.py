"""What each op makes of a map that stays virtual: an exact rule, or none.

A rule gives what the op gives of the full map, computed from the samples: a virtual map where the
result is one, otherwise an array. None stands for "there is no such rule": the map is then written
in full and the op computed as it was traced.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnopt_jax.vip.convolution import conv
from cnnopt_jax.vip.elementwise import concatenate
from cnnopt_jax.vip.pooling import avg_pool, global_mean, max_pool
from cnnopt_jax.vip.virtual_map import VirtualMap
from cnnopt_jax.vip.virtualization.pixelwise import Constant, on_samples
from cnnopt_jax.vip.virtualization.program import unreadable
from cnnopt_jax.workload import jaxprs

Rule = Callable[..., Any]


def convolve(equation: Any, x: Any, kernel: jax.Array, *, virtual: bool) -> Any:
  """`vip.conv` with the options of a `conv_general_dilated`."""
  params = equation.params
  with _precision(params['precision']):
    return conv(
      x,
      kernel,
      stride=params['window_strides'],
      padding=params['padding'],
      dilation=params['rhs_dilation'],
      groups=params['feature_group_count'],
      virtual=virtual,
    )


def _precision(precision: Any) -> Any:
  """The context in which ops without a precision of their own have this one."""
  if precision is None:
    return contextlib.nullcontext()
  return jax.default_matmul_precision(str(precision[0]).lower())


def apply_rule(equation: Any, operands: Sequence[Any]) -> Any:
  """What an op gives of operands of which one or more are virtual maps.

  Args:
    equation: the op as it was traced.
    operands: virtual maps, arrays, and `Constant` values.

  Returns:
    A virtual map or an array, or a list of several; None if there is no exact rule.
  """
  rule = RULES.get(equation.primitive.name)
  return None if rule is None else rule(equation, *operands)


def reads_through(name: str) -> bool:
  """Whether an op's rule reads a map with a window, and writes the map at some strides."""
  return name in ('conv_general_dilated', 'reduce_window_max', 'reduce_window_sum')


def _is_constant(x: Any) -> bool:
  if isinstance(x, VirtualMap):
    return False
  shape = np.shape(x)
  return isinstance(x, Constant) or not shape or (len(shape) >= 4 and shape[1:3] == (1, 1))


def _array(x: Any) -> Any:
  """The samples of a map, or what spreads over them."""
  if isinstance(x, VirtualMap):
    return x.samples
  return x.array if isinstance(x, Constant) else x


def _channelwise(equation: Any, operands: Sequence[Any]) -> VirtualMap:
  _, height, width, _ = jaxprs.array_type(equation.outvars[0]).shape
  grid = -(-height // 2), -(-width // 2)
  return VirtualMap(on_samples(equation, [_array(x) for x in operands], grid), (height, width))


def _affine(equation: Any, *operands: Any) -> VirtualMap | None:
  """Sums of maps, and of maps and constants: weights of an interpolation sum to 1."""
  if not all(isinstance(x, VirtualMap) or _is_constant(x) for x in operands):
    return None
  return _channelwise(equation, operands)


def _multiply(equation: Any, a: Any, b: Any) -> VirtualMap | None:
  return _channelwise(equation, (a, b)) if _is_constant(a) or _is_constant(b) else None


def _divide(equation: Any, a: Any, b: Any) -> VirtualMap | None:
  return _channelwise(equation, (a, b)) if _is_constant(b) else None


def _select(equation: Any, which: Any, *cases: Any) -> VirtualMap | None:
  return _affine(equation, which, *cases) if _is_constant(which) else None


def _convert(equation: Any, x: VirtualMap) -> VirtualMap | None:
  dtype = equation.params['new_dtype']
  return x.astype(dtype) if jnp.issubdtype(dtype, jnp.floating) else None


def _conv(equation: Any, x: Any, kernel: Any) -> jax.Array | None:
  if unreadable(equation) or not isinstance(x, VirtualMap) or isinstance(kernel, VirtualMap):
    return None
  return convolve(equation, x, _full(kernel), virtual=False)


def _full(x: Any) -> jax.Array:
  return x.full() if isinstance(x, Constant) else x


def _dense(equation: Any, x: Any, weight: Any) -> VirtualMap | None:
  """A matrix product over channels, which is a 1x1 convolution."""
  contracted, batched = equation.params['dimension_numbers']
  rank = len(jaxprs.array_type(equation.outvars[0]).shape)
  if not isinstance(x, VirtualMap) or isinstance(weight, VirtualMap):
    return None
  if any(map(len, batched)) or tuple(contracted[0]) != (3,) or rank != 4:
    return None
  return VirtualMap(equation.primitive.bind(x.samples, _full(weight), **equation.params), x.size)


def _sum(equation: Any, x: VirtualMap) -> jax.Array | None:
  """A sum over rows and columns and perhaps more."""
  axes = set(equation.params['axes'])
  if not {1, 2} <= axes:
    return None
  total = global_mean(x) * (x.size[0] * x.size[1])
  return total.sum(tuple({0: 0, 3: 1}[axis] for axis in axes - {1, 2}))


def _concatenate(equation: Any, *maps: Any) -> VirtualMap | None:
  axis = equation.params['dimension']
  if axis not in (0, 3) or not all(isinstance(x, VirtualMap | Constant) for x in maps):
    return None
  first = next(x for x in maps if isinstance(x, VirtualMap))

  def as_map(x):
    if isinstance(x, VirtualMap):
      return x
    shape = (x.shape[0], *first.samples.shape[1:3], x.shape[3])
    return VirtualMap(jnp.broadcast_to(x.array, shape), first.size)

  found = concatenate([as_map(x) for x in maps], axis)
  return found if isinstance(found, VirtualMap) else None


def _split(equation: Any, x: VirtualMap) -> list[VirtualMap] | None:
  axis, sizes = equation.params['axis'], equation.params['sizes']
  if axis not in (0, 3):
    return None
  ends = np.cumsum(sizes)[:-1].tolist()
  return [VirtualMap(part, x.size) for part in jnp.split(x.samples, ends, axis)]


def _slice(equation: Any, x: VirtualMap) -> jax.Array | VirtualMap | None:
  """Some channels or images; or pixels that are samples."""
  start, limit = equation.params['start_indices'], equation.params['limit_indices']
  stride = equation.params['strides'] or (1,) * 4
  whole = all((start[axis], limit[axis], stride[axis]) == (0, x.shape[axis], 1) for axis in (1, 2))
  if not whole and any(n % 2 for axis in (1, 2) for n in (start[axis], stride[axis])):
    return None
  places = [slice(*bounds) for bounds in zip(start, limit, stride)]
  if not whole:
    for axis in (1, 2):
      places[axis] = slice(start[axis] // 2, -(-limit[axis] // 2), stride[axis] // 2)
  samples = x.samples[tuple(places)]
  return VirtualMap(samples, x.size) if whole else samples


def _pad(equation: Any, x: Any, value: Any) -> VirtualMap | None:
  """Channels or images more; rows and columns more are no virtual map."""
  widths = equation.params['padding_config']
  if not isinstance(x, VirtualMap) or any(tuple(widths[axis]) != (0, 0, 0) for axis in (1, 2)):
    return None
  return VirtualMap(jax.lax.pad(x.samples, value, widths), x.size)


def _reshape(equation: Any, x: VirtualMap) -> VirtualMap | None:
  return x if tuple(equation.params['new_sizes']) == x.shape else None


def _window(equation: Any, x: VirtualMap) -> dict[str, Any] | None:
  """Window, stride and padding of a pool as the ops here take them; None if they do not."""
  params = equation.params
  window, stride, pads = (
    tuple(params[name]) for name in ('window_dimensions', 'window_strides', 'padding')
  )
  dilations = (*params['base_dilation'], *params['window_dilation'])
  outside = [(window[axis], tuple(pads[axis])) for axis in (0, 3)]
  if set(dilations) != {1} or outside != [(1, (0, 0))] * 2 or (stride[0], stride[3]) != (1, 1):
    return None
  inside = [(window[axis], pad) for axis in (1, 2) for pad in pads[axis]]
  if any(not 0 <= pad < length for length, pad in inside):
    return None
  # Where there is one window it does not matter how far the next would be.
  out = jaxprs.array_type(equation.outvars[0]).shape
  steps = [stride[axis] if out[axis] > 1 else 2 for axis in (1, 2)]
  return dict(window=window[1:3], stride=steps, padding=pads[1:3])


def _max_pool(equation: Any, x: VirtualMap) -> jax.Array | None:
  window = _window(equation, x)
  return None if window is None else _cut(max_pool(x, **window), equation)


def _sum_pool(equation: Any, x: VirtualMap) -> jax.Array | None:
  window = _window(equation, x)
  if window is None:
    return None
  height, width = window['window']
  return _cut(avg_pool(x, **window) * (height * width), equation)


def _cut(y: jax.Array, equation: Any) -> jax.Array:
  """The windows that were asked for; a smaller step than theirs may have made more."""
  _, height, width, _ = jaxprs.array_type(equation.outvars[0]).shape
  return y[:, :height, :width]


RULES: dict[str, Rule] = {
  'add': _affine,
  'concatenate': _concatenate,
  'conv_general_dilated': _conv,
  'convert_element_type': _convert,
  'copy': _affine,
  'div': _divide,
  'dot_general': _dense,
  'mul': _multiply,
  'name': _affine,
  'neg': _affine,
  'pad': _pad,
  'reduce_sum': _sum,
  'reduce_window_max': _max_pool,
  'reduce_window_sum': _sum_pool,
  'reshape': _reshape,
  'select_n': _select,
  'slice': _slice,
  'split': _split,
  'sub': _affine,
}
