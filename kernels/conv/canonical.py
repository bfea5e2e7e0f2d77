"""Convolutions laid out as XLA computes them: without negative padding, and on a CPU fast.

Negative padding is sliced off before (`padding.py`). Fast are images [N, spatial, C] with kernels
[spatial, Cin, Cout]. XLA brings others into that form itself, but only outside loops and branches
(JAX 0.10.2 and 0.12.0.1): inside `jax.lax.scan`, `while_loop` or `cond` the gradients of a
convolution fall to its slow path. Kernel gradients of grouped convolutions XLA lays out anew in any
case.
"""

from collections.abc import Callable

import jax
from jax import lax
from jax.extend import core

from cnnopt_jax.kernels.conv.padding import without_negative


def with_canonical_convolutions(function: Callable[..., jax.Array], *operands: jax.Array):
  """`function(*operands)`, its convolutions between transpositions to the canonical form and back.

  Args:
    function: of arrays, made of lax's convolutions and of primitives with one result and without
      functions of their own.
    *operands: its arguments.

  Returns:
    Its result.
  """
  return _with_convolutions(_canonical_conv, function, *operands)


def with_padded_convolutions(function: Callable[..., jax.Array], *operands: jax.Array):
  """The same with convolutions as they are laid out, but without negative padding."""
  return _with_convolutions(_padded_conv, function, *operands)


def _with_convolutions(conv, function, *operands):
  closed = jax.make_jaxpr(function)(*operands)
  jaxpr = closed.jaxpr
  values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*closed.consts, *operands)))

  def read(atom):
    return atom.val if isinstance(atom, core.Literal) else values[atom]

  for equation in jaxpr.eqns:
    is_conv = equation.primitive is core.primitives.conv_general_dilated_p
    compute = conv if is_conv else equation.primitive.bind
    (result,) = equation.outvars
    values[result] = compute(*map(read, equation.invars), **equation.params)
  return read(jaxpr.outvars[0])


def _padded_conv(lhs, rhs, *, dimension_numbers, padding, lhs_dilation, **options) -> jax.Array:
  axes = dimension_numbers.lhs_spec[2:]
  lhs, padding = without_negative(lhs, padding, axes, lhs_dilation)
  return lax.conv_general_dilated(
    lhs,
    rhs,
    dimension_numbers=dimension_numbers,
    padding=padding,
    lhs_dilation=lhs_dilation,
    **options,
  )


def _canonical_conv(lhs, rhs, *, dimension_numbers, **options) -> jax.Array:
  batch, feature, *spatial = dimension_numbers.lhs_spec
  outputs, inputs, *taps = dimension_numbers.rhs_spec
  last = lhs.ndim - 1
  image = (0, last, *range(1, last))
  out = _padded_conv(
    lhs.transpose(batch, *spatial, feature),
    rhs.transpose(*taps, inputs, outputs),
    dimension_numbers=lax.ConvDimensionNumbers(image, (last, last - 1, *range(last - 1)), image),
    **options,
  )
  batch, feature, *spatial = dimension_numbers.out_spec
  order = (batch, *spatial, feature)
  return out.transpose([order.index(axis) for axis in range(lhs.ndim)])
