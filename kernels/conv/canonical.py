"""Convolutions laid out as XLA's CPU backend computes them fast.

That is images [N, spatial, C] with kernels [spatial, Cin, Cout]. XLA brings others into that form
itself, but only outside loops and branches (JAX 0.10.2 and 0.12.0.1): inside `jax.lax.scan`,
`while_loop` or `cond` the gradients of a convolution fall to its slow path. Kernel gradients of
grouped convolutions XLA lays out anew in any case.
"""

from collections.abc import Callable

import jax
from jax import lax
from jax.extend import core


def with_canonical_convolutions(function: Callable[..., jax.Array], *operands: jax.Array):
  """`function(*operands)`, its convolutions between transpositions to the canonical form and back.

  Args:
    function: of arrays, made of lax's convolutions and of primitives with one result and without
      functions of their own.
    *operands: its arguments.

  Returns:
    Its result.
  """
  closed = jax.make_jaxpr(function)(*operands)
  jaxpr = closed.jaxpr
  values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*closed.consts, *operands)))

  def read(atom):
    return atom.val if isinstance(atom, core.Literal) else values[atom]

  for equation in jaxpr.eqns:
    is_conv = equation.primitive is core.primitives.conv_general_dilated_p
    compute = _canonical_conv if is_conv else equation.primitive.bind
    (result,) = equation.outvars
    values[result] = compute(*map(read, equation.invars), **equation.params)
  return read(jaxpr.outvars[0])


def _canonical_conv(lhs, rhs, *, dimension_numbers, **options) -> jax.Array:
  batch, feature, *spatial = dimension_numbers.lhs_spec
  outputs, inputs, *taps = dimension_numbers.rhs_spec
  last = lhs.ndim - 1
  image = (0, last, *range(1, last))
  out = lax.conv_general_dilated(
    lhs.transpose(batch, *spatial, feature),
    rhs.transpose(*taps, inputs, outputs),
    dimension_numbers=lax.ConvDimensionNumbers(image, (last, last - 1, *range(last - 1)), image),
    **options,
  )
  batch, feature, *spatial = dimension_numbers.out_spec
  order = (batch, *spatial, feature)
  return out.transpose([order.index(axis) for axis in range(lhs.ndim)])
