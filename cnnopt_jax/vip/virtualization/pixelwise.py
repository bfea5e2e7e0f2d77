"""Ops that act on a map pixel by pixel, computed on a smaller map than they were traced for."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal

from cnnopt_jax.workload import jaxprs
from cnnopt_jax.workload.primitives import CALLS

# Each element of a result from the same element of every operand.
ELEMENTWISE = frozenset(
  """
  abs add add_any and atan2 cbrt ceil clamp convert_element_type copy cos cosh div eq erf erf_inv
  erfc exp exp2 expm1 floor ge gt integer_pow is_finite le log log1p logistic lt max min mul name ne
  neg nextafter not or pow reduce_precision rem round rsqrt select_n sign sin sinh sqrt square sub
  tan tanh xor asinh acosh atanh asin acos atan
  """.split()
)
# Over channels these give each pixel a number of its own.
_REDUCTIONS = ('reduce_sum', 'reduce_max', 'reduce_min', 'reduce_prod')


class Samples(NamedTuple):
  """A value inside a unit: [N, h, w, ...], computed at the samples alone.

  Attributes:
    array: the samples.
    size: (H, W) of the map that they will stand for.
  """

  array: jax.Array
  size: tuple[int, int]


class Constant(NamedTuple):
  """A value that is the same in all rows and columns.

  Attributes:
    array: [N or 1, 1, 1, ...].
    shape: of the value.
  """

  array: jax.Array
  shape: tuple[int, ...]

  def full(self) -> jax.Array:
    """The value written out."""
    return jnp.broadcast_to(self.array, self.shape)


def acts_on_pixels(equation: JaxprEqn) -> bool:
  """Whether an equation whose result has the rows and columns of its operand computes by pixel."""
  params = equation.params
  match equation.primitive.name:
    case 'custom_jvp_call':
      if len(equation.outvars) != 1 or not _is_elementwise(params['call_jaxpr']):
        return False
      return _is_elementwise(_derivative(equation))
    case 'reshape':
      return params['dimensions'] is None and len(jaxprs.array_type(equation.invars[0]).shape) > 3
    case 'broadcast_in_dim':
      return tuple(params['broadcast_dimensions'][:3]) == (0, 1, 2)
    case 'squeeze':
      return min(params['dimensions'], default=3) >= 3
    case name if name in _REDUCTIONS:
      return min(params['axes'], default=3) >= 3
    case name:
      return name in ELEMENTWISE


def _is_elementwise(program: jaxprs.Program) -> bool:
  """Whether a program is elementwise ops of its inputs, which have one shape, and of numbers."""
  jaxpr = jaxprs.opened(program)
  types = [jaxprs.array_type(v) for v in jaxpr.invars]
  if len({t.shape for t in types} - {()}) != 1 or jaxpr.constvars:
    return False
  if not all(jnp.issubdtype(t.dtype, jnp.floating) for t in types):
    return False
  for place in jaxprs.equations(program):
    name = place.equation.primitive.name
    constant = name == 'broadcast_in_dim' and not jaxprs.array_type(place.equation.invars[0]).shape
    if name not in ELEMENTWISE and name not in CALLS and not constant:
      return False
  return True


def bind(equation: JaxprEqn, operands: Sequence[Any]) -> list[jax.Array]:
  """Computes an equation as it was traced."""
  variables = [atom for atom in equation.invars if not isinstance(atom, Literal)]
  given = [x for atom, x in zip(equation.invars, operands) if not isinstance(atom, Literal)]
  return core.jaxpr_as_fun(_alone(equation, variables))(*given)


def _alone(equation: JaxprEqn, variables: Sequence[Any]) -> ClosedJaxpr:
  """A program of one equation."""
  inner = jax.extend.core.Jaxpr([], variables, equation.outvars, [equation], equation.effects)
  return ClosedJaxpr(inner, [])


def _derivative(equation: JaxprEqn) -> ClosedJaxpr:
  """Primals and tangents to results and theirs, of a `custom_jvp_call` by its own rule."""
  operands = [jaxprs.array_type(atom) for atom in equation.invars]
  types = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in operands]

  def function(primals, tangents):
    return jax.jvp(lambda *xs: tuple(bind(equation, xs)), primals, tangents)

  return jax.make_jaxpr(function)(tuple(types), tuple(types))


def on_samples(equation: JaxprEqn, operands: Sequence[Any], grid: tuple[int, int]) -> jax.Array:
  """Computes an equation that acts on pixels at the samples.

  Args:
    equation: traced for [N, H, W, ...].
    operands: arrays [N, h, w, ...], or constant along rows and columns, or numbers.
    grid: (h, w).

  Returns:
    [N, h, w, ...].
  """
  params, name = equation.params, equation.primitive.name
  traced = jaxprs.array_type(equation.outvars[0])
  shape = (traced.shape[0], *grid, *traced.shape[3:])
  match name:
    case 'custom_jvp_call':
      return _custom(equation, [_filled(x, shape) for x in operands], grid)
    case 'reshape':
      return operands[0].reshape(shape)
    case 'broadcast_in_dim':
      return jax.lax.broadcast_in_dim(operands[0], shape, params['broadcast_dimensions'])
    case 'squeeze':
      return operands[0].reshape(shape)
    case _ if name in _REDUCTIONS:
      return equation.primitive.bind(operands[0], **params)
    case _:
      return equation.primitive.bind(*(_filled(x, shape) for x in operands), **params)


def _filled(x: Any, shape: tuple[int, ...]) -> jax.Array:
  return x if jnp.shape(x) == shape else jnp.broadcast_to(x, shape)


def _custom(equation: JaxprEqn, operands: list[jax.Array], grid: tuple[int, int]) -> jax.Array:
  """A function with a derivative of its own, which it keeps on the smaller map."""

  @jax.custom_jvp
  def function(*xs):
    return _run(equation.params['call_jaxpr'], xs, grid)[0]

  @function.defjvp
  def _(primals, tangents):
    out, tangent = _run(_derivative(equation), (*primals, *tangents), grid)
    return out, tangent

  return function(*operands)


def _run(program: jaxprs.Program, inputs: Sequence[jax.Array], grid: tuple[int, int]):
  """An elementwise program of maps on smaller ones."""

  def evaluate(equation, operands, scopes):
    traced = jaxprs.array_type(equation.outvars[0]).shape
    if equation.primitive.name == 'broadcast_in_dim' or not traced:
      # One number, which the next op spreads.
      return [operands[0]] if traced else bind(equation, operands)
    return [on_samples(equation, operands, grid)]

  def constant(atom):
    return jnp.asarray(atom.val, jaxprs.array_type(atom).dtype)

  return jaxprs.interpret(program, inputs, evaluate, constant=constant)
