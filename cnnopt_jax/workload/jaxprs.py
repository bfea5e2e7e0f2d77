"""Walks over jaxprs, for all that read a traced program: its equations, or values run through it.

`equations` lists what a program holds; `interpret` runs it on values of the caller's own, such as
where a number comes from. Both enter the programs that equations hold, and both give the names of
the modules around an equation, which JAX stores relative to the innermost of these programs.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
from jax.core import ShapedArray
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from cnnopt_jax.workload.primitives import CALLS
from cnnopt_jax.workload.scopes import parse_scopes

Program = Jaxpr | ClosedJaxpr
Scopes = tuple[str, ...]
Value = TypeVar('Value')


class Place(NamedTuple):
  """An equation of a program.

  Attributes:
    equation: the equation.
    scopes: names that modules and users gave, from the outside in, those around the programs that
      hold it included.
  """

  equation: JaxprEqn
  scopes: Scopes


def opened(program: Program) -> Jaxpr:
  """The jaxpr of a program, closed or not."""
  return program.jaxpr if isinstance(program, ClosedJaxpr) else program


def array_type(atom: Any) -> ShapedArray:
  """Shape and dtype of a variable or literal that is an array."""
  return atom.aval


def scopes_of(equation: JaxprEqn, outer: Scopes = ()) -> Scopes:
  """The names around an equation, after those around the program that holds it."""
  return outer + parse_scopes(str(equation.source_info.name_stack))


def inner_programs(equation: JaxprEqn) -> list[Program]:
  """The programs among the parameters of an equation: of a call, a loop, or each of its branches.

  A primitive that is written in terms of JAX's own functions (`call_hi_primitive`) holds none
  before it is expanded; `expand` does so.
  """
  return [program for value in equation.params.values() for program in _programs(value)]


def _programs(value: Any) -> list[Program]:
  if isinstance(value, (Jaxpr, ClosedJaxpr)):
    return [value]
  if isinstance(value, (tuple, list)):
    return [program for item in value for program in _programs(item)]
  return []


def expand(equation: JaxprEqn) -> ClosedJaxpr:
  """The program that defines a primitive which JAX writes in terms of its own functions."""
  definition = equation.params['_prim']

  def function(*operands):
    return definition.expand(*jax.tree.unflatten(definition.in_tree, operands))

  return jax.make_jaxpr(function)(
    *(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in map(array_type, equation.invars))
  )


def equations(program: Program, scopes: Scopes = ()) -> Iterator[Place]:
  """Lists all equations of a program in its order, each before those of the programs in it.

  Args:
    program: closed or not.
    scopes: names around it.

  Yields:
    Each equation once, however often a loop runs it, with its scopes.
  """
  for equation in opened(program).eqns:
    place = Place(equation, scopes_of(equation, scopes))
    yield place
    for inner in inner_programs(equation):
      yield from equations(inner, place.scopes)


def interpret(
  program: Program,
  inputs: Sequence[Value],
  evaluate: Callable[[JaxprEqn, list[Value], Scopes], Sequence[Value]],
  *,
  constant: Callable[[Any], Value],
  scopes: Scopes = (),
) -> list[Value]:
  """Runs a program on abstract values, its calls (`CALLS`) as if their equations stood in it.

  Args:
    program: closed or not.
    inputs: a value for each of its inputs.
    evaluate: gives the values of an equation's results from the equation, the values of its
      operands, and the names around the program that holds it; `scopes_of` joins these with the
      equation's own, which takes too long to do for every equation unasked. Loops and branches are
      handed to it too.
    constant: the value of a literal, or of a variable that is neither input nor result.
    scopes: names around the program.

  Returns:
    The values of the program's results.
  """
  jaxpr = opened(program)
  values: dict[Var, Value] = dict(zip(jaxpr.invars, inputs, strict=True))

  def read(atom: Any) -> Value:
    return constant(atom) if isinstance(atom, Literal) or atom not in values else values[atom]

  for equation in jaxpr.eqns:
    operands = [read(atom) for atom in equation.invars]
    called = CALLS.get(equation.primitive.name)
    if called is None:
      results = evaluate(equation, operands, scopes)
    else:
      results = interpret(
        equation.params[called],
        operands,
        evaluate,
        constant=constant,
        scopes=scopes_of(equation, scopes),
      )
    values.update(zip(equation.outvars, results, strict=True))
  return [read(atom) for atom in jaxpr.outvars]
