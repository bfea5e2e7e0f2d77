"""`conv_general_dilated`: lax's convolution as one primitive with a batching rule of its own.

`jax.vmap` turns a convolution whose kernels are mapped into a grouped one, which XLA's CPU backend
runs several times slower than the members one by one (`python -m experiments.sweep_bench`). The
primitive here batches by one of the rules of `rule.py`, and keeps every other transform of JAX.

A convolution is one of three faces of a trilinear form T(lhs, rhs, out) = <conv(lhs, rhs), out>:
its derivatives by out, lhs and rhs are the convolution, its input transpose and its weight
transpose. `target` names the operand differentiated by; transposing one face gives another, so
forward mode, reverse mode and every nesting of them stay among the three. On a CPU each face is
lowered to the form that `faces.py` chooses for its shapes.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
from jax import lax
from jax.extend import core
from jax.interpreters import ad, batching, mlir

from cnnopt_jax.kernels import sharding
from cnnopt_jax.kernels.conv import faces
from cnnopt_jax.kernels.conv.batching import batched
from cnnopt_jax.kernels.conv.padding import without_negative
from cnnopt_jax.kernels.conv.rule import current_forms, current_rule

# For each target, the two operands that the primitive takes, in order.
_OPERANDS = {'out': ('lhs', 'rhs'), 'lhs': ('out', 'rhs'), 'rhs': ('lhs', 'out')}

conv_p = core.Primitive('cnnopt_conv')


def conv_general_dilated(
  lhs: jax.Array,
  rhs: jax.Array,
  window_strides: Sequence[int],
  padding: str | Sequence[tuple[int, int]],
  lhs_dilation: Sequence[int] | None = None,
  rhs_dilation: Sequence[int] | None = None,
  dimension_numbers: Any = None,
  feature_group_count: int = 1,
  batch_group_count: int = 1,
  precision: lax.PrecisionLike = None,
  preferred_element_type: Any = None,
) -> jax.Array:
  """`jax.lax.conv_general_dilated`, argument for argument, with a batching rule for sweeps.

  Hand it to Flax as `nn.Conv(..., conv_general_dilated=conv_general_dilated)`.

  Under `jax.vmap`: where only the images are mapped, members join the batch dimension; otherwise
  the members run one after the other (the default on a CPU: bit for bit as without `vmap`) or as
  one grouped convolution (the default elsewhere). `batching_rule` asks for another rule. On a CPU
  the convolution and its derivatives are computed as `face_form` says; `forms('xla')` asks for
  lax's alone. Negative padding cuts the image before it is read (`padding.py`).
  """
  rule = current_rule()
  dimension_numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
  spatial = len(window_strides)
  lhs_dilation = tuple(lhs_dilation or (1,) * spatial)
  rhs_dilation = tuple(rhs_dilation or (1,) * spatial)
  pads = (
    _resolve_padding(
      padding, lhs.shape, rhs.shape, window_strides, lhs_dilation, rhs_dilation, dimension_numbers
    )
    if isinstance(padding, str)
    else padding
  )
  lhs, pads = without_negative(lhs, pads, dimension_numbers.lhs_spec[2:], lhs_dilation)
  # Operands of unlike dtype, for one, are refused here, in lax's own words.
  params = dict(
    window_strides=tuple(window_strides),
    padding=pads,
    lhs_dilation=lhs_dilation,
    rhs_dilation=rhs_dilation,
    dimension_numbers=dimension_numbers,
    feature_group_count=feature_group_count,
    batch_group_count=batch_group_count,
    precision=lax.Precision(precision) if isinstance(precision, str) else precision,
    preferred_element_type=preferred_element_type,
  )
  if rule == 'lax':
    return lax.conv_general_dilated(lhs, rhs, **params)
  lhs, rhs = sharding.alike(lhs, rhs)
  return conv_p.bind(
    lhs,
    rhs,
    target='out',
    lhs_type=_type_of(lhs),
    rhs_type=_type_of(rhs),
    rule=rule,
    forms=current_forms(),
    **params,
  )


def _resolve_padding(padding, lhs_shape, rhs_shape, strides, lhs_dilation, rhs_dilation, numbers):
  if padding in ('SAME', 'SAME_LOWER') and set(lhs_dilation) != {1}:
    raise ValueError("padding='SAME' is not defined with lhs_dilation; allowed: explicit padding")
  sizes = [lhs_shape[axis] for axis in numbers.lhs_spec[2:]]
  window = [
    (rhs_shape[axis] - 1) * dilation + 1
    for axis, dilation in zip(numbers.rhs_spec[2:], rhs_dilation)
  ]
  return lax.padtype_to_pads(sizes, window, strides, padding)


def _type_of(x) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _compute(
  x: jax.Array, y: jax.Array, *, target: str, lhs_type, rhs_type, rule: str, forms: str, **params
) -> jax.Array:
  """The three faces in terms of lax's convolution."""
  del rule, forms  # Say how the primitive batches and is lowered, not what it computes.
  return faces.lax_face(target, x, y, lhs_type, rhs_type, **params)


def _compute_on_cpu(
  x: jax.Array, y: jax.Array, *, target: str, lhs_type, rhs_type, rule: str, forms: str, **params
) -> jax.Array:
  """The three faces by the forms that are chosen for their shapes."""
  del rule
  if forms == 'chosen' and faces.applies(params, lhs_type, rhs_type):
    strides = params['window_strides']
    form = faces.face_form(target, lhs_type.shape, rhs_type.shape, strides)
    return faces.compute_face(form, target, x, y, lhs_type, rhs_type, strides, params['padding'])
  return faces.canonical_face(target, x, y, lhs_type, rhs_type, **params)


def _abstract_eval(x, y, **params):
  return jax.make_jaxpr(functools.partial(_compute, **params))(x, y).out_avals[0]


@functools.cache
def _compiled(**params):
  return jax.jit(functools.partial(conv_p.bind, **params))


def _transpose(operand: int, cotangent, x, y, *, target: str, **params):
  """Cotangent of one operand: the face whose target is that operand's role."""
  roles = _OPERANDS[target]
  known = {roles[1 - operand]: (x, y)[1 - operand], target: cotangent}
  face = roles[operand]
  return conv_p.bind(*(known[role] for role in _OPERANDS[face]), target=face, **params)


conv_p.def_impl(lambda x, y, **params: _compiled(**params)(x, y))
conv_p.def_abstract_eval(_abstract_eval)
mlir.register_lowering(conv_p, mlir.lower_fun(_compute, multiple_results=False))
mlir.register_lowering(
  conv_p, mlir.lower_fun(_compute_on_cpu, multiple_results=False), platform='cpu'
)
ad.defbilinear(conv_p, functools.partial(_transpose, 0), functools.partial(_transpose, 1))
batching.primitive_batchers[conv_p] = functools.partial(batched, conv_p.bind, _compute, _OPERANDS)
