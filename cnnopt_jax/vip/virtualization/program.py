"""A traced network as one list of steps, its convolutions named after their kernels' leaves."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal, Var

from cnnopt_jax.workload import jaxprs, provenance, walk
from cnnopt_jax.workload.primitives import CALLS
from cnnopt_jax.workload.provenance import CONSTANT, Operand, Origin
from cnnopt_jax.workload.scopes import module_paths, parent

# Calls with a derivative or a batching rule of their own, which would be lost if their equations
# stood among the others.
_CLOSED = ('custom_jvp_call', 'custom_vjp_call', 'custom_vmap_call')

# `lax`'s names for [N, H, W, C] and [kh, kw, Cin, Cout].
_IMAGES, _KERNEL = (0, 3, 1, 2), (3, 2, 0, 1)


class Step(NamedTuple):
  """An equation; its operands and results are numbers that name values.

  Attributes:
    equation: the equation.
    inputs: its operands.
    outputs: its results.
    scopes: names of modules around it, from the outside in.
    layer: the name of a convolution that a plan can name, otherwise None.
    place: the path of the module around it, as far as modules have names: '' in nnx.
  """

  equation: JaxprEqn
  inputs: tuple[int, ...]
  outputs: tuple[int, ...]
  scopes: jaxprs.Scopes
  layer: str | None
  place: str

  @property
  def name(self) -> str:
    """The primitive's name."""
    return self.equation.primitive.name


class Program(NamedTuple):
  """A program whose calls are entered.

  Attributes:
    steps: in order.
    inputs: values that the program is given.
    outputs: values that it gives.
    constants: values that are known.
    shapes: of each value.
    floating: values of a floating type.
    layers: names of the convolutions in order; None, or why one cannot be virtual.
  """

  steps: list[Step]
  inputs: list[int]
  outputs: list[int]
  constants: dict[int, Any]
  shapes: dict[int, tuple[int, ...]]
  floating: set[int]
  layers: dict[str, str | None]


def flatten(closed: ClosedJaxpr, origins: Sequence[Origin]) -> Program:
  """Puts the equations of a program and of its calls in one list.

  Args:
    closed: the program.
    origins: where each of its inputs comes from: a leaf of the parameters, or data.

  Returns:
    The list. A rematerialised part is computed once like any other.
  """
  program = Program([], [], [], {}, {}, set(), {})
  numbers = itertools.count()
  origin_of: dict[int, Origin] = {}

  def value(aval: Any, origin: Origin) -> int:
    number = next(numbers)
    origin_of[number] = origin
    program.shapes[number] = tuple(getattr(aval, 'shape', ()))
    if jnp.issubdtype(getattr(aval, 'dtype', bool), jnp.floating):
      program.floating.add(number)
    return number

  def constant(aval: Any, array: Any) -> int:
    number = value(aval, CONSTANT)
    program.constants[number] = array
    return number

  def enter(called: jaxprs.Program, arguments: Sequence[int], scopes: jaxprs.Scopes) -> list[int]:
    jaxpr = jaxprs.opened(called)
    known: dict[Var, int] = dict(zip(jaxpr.invars, arguments, strict=True))
    if isinstance(called, ClosedJaxpr):
      known.update(
        (var, constant(var.aval, const)) for var, const in zip(jaxpr.constvars, called.consts)
      )

    def read(atom: Any) -> int:
      if isinstance(atom, Literal):
        return constant(atom.aval, jnp.asarray(atom.val, jaxprs.array_type(atom).dtype))
      return known[atom]

    for equation in jaxpr.eqns:
      inputs = tuple(map(read, equation.invars))
      name = equation.primitive.name
      if name in CALLS and name not in _CLOSED:
        inside = jaxprs.scopes_of(equation, scopes)
        outputs = tuple(enter(equation.params[CALLS[name]], inputs, inside))
      else:
        given = [origin_of[i] for i in inputs]
        results, layer = _follow(equation, given, program.layers, scopes)
        outputs = tuple(value(var.aval, o) for var, o in zip(equation.outvars, results))
        around = jaxprs.scopes_of(equation, scopes)
        program.steps.append(Step(equation, inputs, outputs, around, layer, ''))
      known.update(zip(equation.outvars, outputs, strict=True))
    return list(map(read, jaxpr.outvars))

  program.inputs.extend(value(v.aval, o) for v, o in zip(closed.jaxpr.invars, origins, strict=True))
  program.outputs.extend(enter(closed, program.inputs, ()))
  # `module_paths` wants leaves; which leaf of a layer does not matter to it.
  known = [(s.scopes, None if s.layer is None else f'{s.layer}/kernel') for s in program.steps]
  for index, place in enumerate(module_paths(known)):
    program.steps[index] = program.steps[index]._replace(place=place)
  return program


def _follow(
  equation: JaxprEqn, origins: list[Origin], layers: dict[str, str | None], scopes: jaxprs.Scopes
) -> tuple[list[Origin], str | None]:
  """Origins of an equation's results, and its name if it is a convolution of one leaf."""
  found = walk.nothing()
  try:
    results = walk.follow(equation, origins, found, scopes)
  except ValueError:
    # What cannot be counted or attributed can still be computed; it gives data.
    operands = [Operand(o, _elements(a)) for o, a in zip(origins, equation.invars)]
    return [provenance.compute_origin(operands, _elements(v)) for v in equation.outvars], None
  layer = None
  for operation in found.operations:
    if operation.kind != 'conv' or operation.leaf is None:
      continue
    layer = parent(operation.leaf.path) or operation.leaf.path
    if equation.primitive.name != 'conv_general_dilated':
      layers[layer] = f'it stands inside {equation.primitive.name}'
    else:
      # Of several uses of a kernel all have to be possible.
      layers[layer] = layers.get(layer) or unreadable(equation)
  return results, layer if equation.primitive.name == 'conv_general_dilated' else None


def _elements(atom: Any) -> int:
  return getattr(atom.aval, 'size', 1)


def unreadable(equation: JaxprEqn) -> str | None:
  """Why `vip.conv` cannot compute a `conv_general_dilated`; None if it can."""
  params, aval = equation.params, jaxprs.array_type(equation.invars[0])
  numbers = params['dimension_numbers']
  if len(aval.shape) != 4:
    return f'it has {len(aval.shape) - 2} spatial axes, and a virtual map has two'
  if (tuple(numbers.lhs_spec), tuple(numbers.out_spec)) != (_IMAGES, _IMAGES) or (
    tuple(numbers.rhs_spec) != _KERNEL
  ):
    return 'its layout is not [N, H, W, C] with a kernel [kh, kw, Cin, Cout]'
  if any(step != 1 for step in params['lhs_dilation']):
    return 'it is a transposed convolution'
  if params['batch_group_count'] != 1:
    return 'it has groups of images'
  if not jnp.issubdtype(aval.dtype, jnp.floating):
    return f'it computes in {aval.dtype}'
  if jaxprs.array_type(equation.outvars[0]).dtype != aval.dtype:
    return 'it gives another type than it takes'
  return None
