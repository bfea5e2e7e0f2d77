"""Other ways than XLA's to compute a convolution and its two transposes, for small channel counts.

XLA's CPU convolution is at its best where channel counts are multiples of its vectors, and takes
two to three times as long beside them; the networks of a sweep have any number of channels. Forms:

    form       the convolution       its input transpose       its weight transpose
    'xla'      lax's                 lax's                     lax's
    'padded'   input channels        both channel counts       output channels
               filled with zeros up to a multiple, then lax's
    'patches'  windows side by side, times all taps: one product
    'wide'     output channels
               filled up likewise
    'rows'     rows of windows side by side, times all taps: one product; then rows are summed
    'split'                                                    a few images after the other,
                                                               which stay cached
    'taps'                           times all taps: one product; then every tap's share is put down
    'product'  one product of matrices, for kernels of one tap
    'shifts'   of depth-wise convolutions, see `depthwise.py`

All are exact up to rounding. `face_form` chooses by shape; `experiments.conv_bench` measures the
choice against the best. All but 'xla' are for two spatial axes, NHWC and HWIO, without dilation;
all but 'xla' and 'shifts' without groups; none for empty results.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from cnnopt_jax.kernels import sharding
from cnnopt_jax.kernels.conv import depthwise
from cnnopt_jax.kernels.conv.canonical import (
  with_canonical_convolutions,
  with_padded_convolutions,
)

FACE_FORMS = {
  'out': ('xla', 'padded', 'wide', 'patches', 'rows', 'product', 'shifts'),
  'lhs': ('xla', 'padded', 'taps', 'rows', 'product', 'shifts'),
  'rhs': ('xla', 'padded', 'split', 'product', 'shifts'),
}

# Multiples that channels are filled up to: of XLA's vectors of images, and of their gradients.
_VECTOR, _WIDE_VECTOR = 8, 16
# Elements that every tap's share may take together, so that they are still cached when summed, and
# where the other forms are the slower ones of strided convolutions; and that windows may take.
_SHARES_UP_TO, _STRIDED_SHARES_UP_TO, _WINDOWS_UP_TO = 2**20, 2**22, 2**23
# Elements of image and gradient that stay cached while a weight gradient reads them.
_CACHED = 3 * 2**17
# Images that a weight gradient reads at a time.
_SPLIT_INTO = 8
# With more output channels XLA's convolution is fast, however few the input's; and with more
# input channels its input gradient.
_FEW_OUTPUTS, _FEW_INPUTS = 32, 12

Pads = tuple[tuple[int, int], ...]


def applies(params: dict[str, Any], lhs_type, rhs_type) -> bool:
  """Whether there are other forms than 'xla'."""
  numbers = params['dimension_numbers']
  return (
    lhs_type.dtype == rhs_type.dtype == jnp.float32
    and tuple(numbers) == ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
    and params['batch_group_count'] == 1
    and (params['feature_group_count'] == 1 or _is_depthwise(lhs_type.shape, rhs_type.shape))
    and set(params['lhs_dilation']) == set(params['rhs_dilation']) == {1}
    and params['precision'] is None
    and params['preferred_element_type'] in (None, jnp.float32)
    and min(min(pair) for pair in params['padding']) >= 0
    and math.prod(rhs_type.shape[:2]) <= _most_taps(lhs_type.shape, rhs_type.shape)
    and lhs_type.size > 0
    and rhs_type.size > 0
    and all(
      size + sum(pads) >= taps
      for size, pads, taps in zip(lhs_type.shape[1:3], params['padding'], rhs_type.shape)
    )
  )


def _is_depthwise(lhs_shape: Sequence[int], rhs_shape: Sequence[int]) -> bool:
  return rhs_shape[2] == 1 and rhs_shape[3] == lhs_shape[3] > 1


def _most_taps(lhs_shape: Sequence[int], rhs_shape: Sequence[int]) -> int:
  """Larger kernels are left to lax: forms were measured to here, and every tap is code."""
  return 25 if _is_depthwise(lhs_shape, rhs_shape) else 9


def applicable_forms(
  target: str, lhs_shape: Sequence[int], rhs_shape: Sequence[int]
) -> tuple[str, ...]:
  """Those of `FACE_FORMS[target]` that compute a face of these shapes; arguments as `face_form`."""
  _check(target)
  if rhs_shape[2] != lhs_shape[3]:
    return ('xla', 'shifts') if _is_depthwise(lhs_shape, rhs_shape) else ('xla',)
  one_tap = math.prod(rhs_shape[:2]) == 1
  return tuple(
    form for form in FACE_FORMS[target] if form != 'shifts' and (form != 'product' or one_tap)
  )


def face_form(
  target: str, lhs_shape: Sequence[int], rhs_shape: Sequence[int], strides: Sequence[int]
) -> str:
  """The form that a CPU computes a face by, from its shapes alone.

  Thresholds follow from `experiments.conv_bench`, on one core, at batches of 64.

  Args:
    target: 'out', 'lhs' or 'rhs', see `api.py`.
    lhs_shape: [N, H, W, Cin].
    rhs_shape: [kh, kw, Cin, Cout]; [kh, kw, 1, Cin] of a depth-wise convolution.
    strides: in both directions.

  Returns:
    One of `applicable_forms`.

  Raises:
    ValueError: if there is no such face.
  """
  _check(target)
  if rhs_shape[2] != lhs_shape[3]:
    return applicable_forms(target, lhs_shape, rhs_shape)[-1]
  if math.prod(rhs_shape[:2]) == 1:
    return 'product'
  inputs, outputs = rhs_shape[2:]
  positions = math.prod(lhs_shape[:3]) // math.prod(strides)
  strided = max(strides) > 1
  if target == 'out':
    if inputs > _VECTOR:
      return 'padded' if inputs % 4 and inputs < 40 else 'xla'
    if outputs > _FEW_OUTPUTS or positions * math.prod(rhs_shape[:3]) > _WINDOWS_UP_TO:
      return 'xla'
    if inputs < 3:
      return 'wide'
    return 'patches' if strided else 'rows'
  if target == 'rhs':
    if outputs <= _WIDE_VECTOR:
      return 'padded' if _VECTOR < outputs < _WIDE_VECTOR else 'xla'
    if math.prod(lhs_shape) + positions * outputs > _CACHED:
      return 'split'
    return 'padded' if outputs % _WIDE_VECTOR and outputs <= 64 else 'xla'
  shares = positions * math.prod(rhs_shape[:3])
  if strided:
    return 'taps' if inputs > _VECTOR and shares <= _STRIDED_SHARES_UP_TO else 'xla'
  if outputs % _WIDE_VECTOR == 0 or inputs % _VECTOR == outputs % _VECTOR == 0:
    return 'xla'
  few = inputs <= _FEW_INPUTS and shares <= _WINDOWS_UP_TO
  if outputs <= 2 * _FEW_OUTPUTS and (few or shares <= _SHARES_UP_TO):
    return 'rows'
  if shares <= _SHARES_UP_TO:
    return 'taps'
  return 'padded' if inputs % 4 or outputs % 4 else 'xla'


def compute_face(
  form: str,
  target: str,
  x: jax.Array,
  y: jax.Array,
  lhs_type,
  rhs_type,
  strides: Sequence[int],
  padding: Pads,
) -> jax.Array:
  """A face of an NHWC, HWIO convolution by one of its forms.

  Args:
    form: of `applicable_forms`.
    target: 'out' for the convolution of image `x` [N, H, W, Cin] with kernel `y`
      [kh, kw, Cin, Cout]; 'lhs' for the image's gradient from the result's, `x` [N, H', W', Cout],
      and kernel `y`; 'rhs' for the kernel's gradient from image `x` and the result's gradient `y`.
    x, y: the operands.
    lhs_type, rhs_type: image and kernel, or anything of their shape and dtype.
    strides: in both directions.
    padding: ((top, bottom), (left, right)), none negative.

  Returns:
    [N, H', W', Cout], or the gradient, of the shape of image or kernel.

  Raises:
    ValueError: if there is no such face or form.
  """
  _check(target)
  forms = applicable_forms(target, lhs_type.shape, rhs_type.shape)
  if form not in forms:
    raise ValueError(f'{form=}; allowed for {target=} of these shapes: {", ".join(forms)}')
  strides = tuple(strides)
  if form == 'xla':
    groups = lhs_type.shape[3] // rhs_type.shape[2]
    options = dict(_options(strides, padding), feature_group_count=groups)
    return canonical_face(target, x, y, lhs_type, rhs_type, **options)
  if form == 'shifts':
    return depthwise.compute_face(target, x, y, lhs_type.shape, rhs_type.shape, strides, padding)
  return _FACES[target, form](x, y, lhs_type.shape, rhs_type.shape, strides, padding)


def lax_face(target: str, x: jax.Array, y: jax.Array, *types, **options) -> jax.Array:
  """A face in terms of lax's convolution, with all of its options; arguments as `compute_face`."""
  return with_padded_convolutions(lambda x, y: _lax_face(target, x, y, *types, **options), x, y)


def _lax_face(target, x, y, lhs_type, rhs_type, **options) -> jax.Array:
  conv: Callable[..., jax.Array] = functools.partial(lax.conv_general_dilated, **options)
  if target == 'out':
    return conv(x, y)
  kind = lhs_type if target == 'lhs' else rhs_type
  # An array to take a type from: it varies as `x` does.
  like = sharding.alike(jnp.zeros(kind.shape, kind.dtype), x)[0]
  if target == 'lhs':
    return jax.linear_transpose(lambda lhs: conv(lhs, y), like)(x)[0]
  return jax.linear_transpose(lambda rhs: conv(x, rhs), like)(y)[0]


def canonical_face(target: str, x: jax.Array, y: jax.Array, *types, **options) -> jax.Array:
  """`lax_face` for a CPU: fast inside loops and branches too."""
  return with_canonical_convolutions(lambda x, y: _lax_face(target, x, y, *types, **options), x, y)


def _check(target: str) -> None:
  if target not in FACE_FORMS:
    raise ValueError(f'{target=}; allowed: {", ".join(FACE_FORMS)}')


def _options(strides, padding) -> dict[str, Any]:
  return dict(window_strides=strides, padding=padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def _filled(x: jax.Array, axis: int, multiple: int) -> jax.Array:
  """Zeros after the end of an axis, up to a multiple."""
  around = [(0, 0, 0)] * x.ndim
  around[axis] = (0, -x.shape[axis] % multiple, 0)
  return lax.pad(x, jnp.zeros((), x.dtype), around)


def _surrounded(x: jax.Array, padding: Pads) -> jax.Array:
  around = ((0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0))
  return lax.pad(x, jnp.zeros((), x.dtype), around)


def _every(x: jax.Array, axis: int, start: int, count: int, stride: int) -> jax.Array:
  return lax.slice_in_dim(x, start, start + (count - 1) * stride + 1, stride, axis)


def _windows(size: int, taps: int, stride: int, pads: tuple[int, int]) -> int:
  return (size + sum(pads) - taps) // stride + 1


def _out_padded(x, w, lhs_shape, rhs_shape, strides, padding):
  x, w = _filled(x, 3, _VECTOR), _filled(w, 2, _VECTOR)
  return canonical_face('out', x, w, x, w, **_options(strides, padding))


def _out_wide(x, w, lhs_shape, rhs_shape, strides, padding):
  w = _filled(w, 3, _FEW_OUTPUTS)
  return canonical_face('out', x, w, x, w, **_options(strides, padding))[..., : rhs_shape[3]]


def _out_patches(x, w, lhs_shape, rhs_shape, strides, padding):
  kh, kw, _, features = rhs_shape
  rows, columns = (
    _windows(*axis) for axis in zip(lhs_shape[1:3], (kh, kw), strides, padding, strict=True)
  )
  x = _surrounded(x, padding)
  windows = jnp.concatenate(
    [
      _every(_every(x, 1, i, rows, strides[0]), 2, j, columns, strides[1])
      for i in range(kh)
      for j in range(kw)
    ],
    -1,
  )
  y = windows.reshape(-1, windows.shape[-1]) @ w.reshape(-1, features)
  return y.reshape(-1, rows, columns, features)


def _out_rows(x, w, lhs_shape, rhs_shape, strides, padding):
  kh, kw, inputs, features = rhs_shape
  rows, columns = (
    _windows(*axis) for axis in zip(lhs_shape[1:3], (kh, kw), strides, padding, strict=True)
  )
  x = _surrounded(x, padding)
  windows = jnp.concatenate([_every(x, 2, j, columns, strides[1]) for j in range(kw)], -1)
  taps = w.transpose(1, 2, 0, 3).reshape(kw * inputs, kh * features)
  products = (windows.reshape(-1, kw * inputs) @ taps).reshape(*windows.shape[:3], kh, features)
  parts = [_every(products[:, :, :, i], 1, i, rows, strides[0]) for i in range(kh)]
  return sum(parts[1:], parts[0])


def _put(part: jax.Array, taps: dict[int, int], lhs_shape, strides, padding: Pads) -> jax.Array:
  """One tap's share of an input gradient, where it belongs in the padded image.

  Args:
    part: [N, rows, columns, Cin].
    taps: the tap on axis 1, on axis 2 or on both; the other axis stays.
    lhs_shape, strides, padding: of the convolution.

  Returns:
    The share with zeros around and between.
  """
  around = [(0, 0, 0)] * part.ndim
  for axis, tap in taps.items():
    stride = strides[axis - 1]
    covered = (part.shape[axis] - 1) * stride + 1
    length = lhs_shape[axis] + sum(padding[axis - 1])
    around[axis] = (tap, length - tap - covered, stride - 1)
  return lax.pad(part, jnp.zeros((), part.dtype), around)


def _lhs_padded(g, w, lhs_shape, rhs_shape, strides, padding):
  g, w = _filled(g, 3, _VECTOR), _filled(_filled(w, 3, _VECTOR), 2, _VECTOR)
  image = jax.ShapeDtypeStruct((*lhs_shape[:3], w.shape[2]), g.dtype)
  return canonical_face('lhs', g, w, image, w, **_options(strides, padding))[..., : rhs_shape[2]]


def _lhs_taps(g, w, lhs_shape, rhs_shape, strides, padding):
  kh, kw, inputs, features = rhs_shape
  taps = w.transpose(3, 0, 1, 2).reshape(features, -1)
  products = (g.reshape(-1, features) @ taps).reshape(*g.shape[:3], kh, kw, inputs)
  height, width = lhs_shape[1:3]
  shares = [
    _put(products[:, :, :, i, j], {1: i, 2: j}, lhs_shape, strides, padding)
    for i in range(kh)
    for j in range(kw)
  ]
  (top, _), (left, _) = padding
  return sum(shares[1:], shares[0])[:, top : top + height, left : left + width]


def _lhs_rows(g, w, lhs_shape, rhs_shape, strides, padding):
  """Windows of the gradient along its rows, times the taps turned round; then rows are put down."""
  kh, kw, inputs, features = rhs_shape
  height, width = lhs_shape[1:3]
  (top, _), (left, right) = padding
  columns = g.shape[2]
  # A column of the image reads the gradient from kw - 1 - left before it on.
  before = max(0, kw - 1 - left)
  after = max(0, width + left - ((columns - 1) * strides[1] + 1))
  spread = lax.pad(
    g,
    jnp.zeros((), g.dtype),
    ((0, 0, 0), (0, 0, 0), (before, after, strides[1] - 1), (0, 0, 0)),
  )
  start = before + left - (kw - 1)
  windows = jnp.concatenate([_every(spread, 2, start + j, width, 1) for j in range(kw)], -1)
  taps = w[:, ::-1].transpose(1, 3, 0, 2).reshape(kw * features, kh * inputs)
  products = (windows.reshape(-1, kw * features) @ taps).reshape(*windows.shape[:3], kh, inputs)
  shares = [_put(products[:, :, :, i], {1: i}, lhs_shape, strides, padding) for i in range(kh)]
  return sum(shares[1:], shares[0])[:, top : top + height]


def _rhs_padded(x, g, lhs_shape, rhs_shape, strides, padding):
  g = _filled(g, 3, _WIDE_VECTOR)
  kernel = jax.ShapeDtypeStruct((*rhs_shape[:3], g.shape[3]), g.dtype)
  return canonical_face('rhs', x, g, x, kernel, **_options(strides, padding))[..., : rhs_shape[3]]


def _rhs_split(x, g, lhs_shape, rhs_shape, strides, padding):
  images = math.gcd(_SPLIT_INTO, x.shape[0])
  lhs_shape = (images, *lhs_shape[1:])

  def add(total, part):
    x, g = part
    return total + _rhs_padded(x, g, lhs_shape, rhs_shape, strides, padding), None

  parts = [a.reshape(-1, images, *a.shape[1:]) for a in (x, g)]
  zero = sharding.alike(jnp.zeros(rhs_shape, x.dtype), x)[0]
  return lax.scan(add, zero, tuple(parts))[0]


def _out_product(x, w, lhs_shape, rhs_shape, strides, padding):
  x = _surrounded(x, padding)[:, :: strides[0], :: strides[1]]
  return (x.reshape(-1, x.shape[3]) @ w[0, 0]).reshape(*x.shape[:3], -1)


def _lhs_product(g, w, lhs_shape, rhs_shape, strides, padding):
  x = (g.reshape(-1, g.shape[3]) @ w[0, 0].T).reshape(*g.shape[:3], -1)
  height, width = lhs_shape[1:3]
  (top, _), (left, _) = padding
  x = _put(x, {1: 0, 2: 0}, lhs_shape, strides, padding)
  return x[:, top : top + height, left : left + width]


def _rhs_product(x, g, lhs_shape, rhs_shape, strides, padding):
  x = _surrounded(x, padding)[:, :: strides[0], :: strides[1]]
  return (x.reshape(-1, x.shape[3]).T @ g.reshape(-1, g.shape[3])).reshape(rhs_shape)


_FACES: dict[tuple[str, str], Callable[..., jax.Array]] = {
  ('out', 'padded'): _out_padded,
  ('out', 'wide'): _out_wide,
  ('out', 'patches'): _out_patches,
  ('out', 'rows'): _out_rows,
  ('out', 'product'): _out_product,
  ('lhs', 'padded'): _lhs_padded,
  ('lhs', 'taps'): _lhs_taps,
  ('lhs', 'rows'): _lhs_rows,
  ('lhs', 'product'): _lhs_product,
  ('rhs', 'padded'): _rhs_padded,
  ('rhs', 'split'): _rhs_split,
  ('rhs', 'product'): _rhs_product,
}
