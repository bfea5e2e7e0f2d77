"""The walk over a jaxpr that finds its convolutions and matrix products."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from jax.extend.core import JaxprEqn

from cnnopt_jax.workload import jaxprs, provenance
from cnnopt_jax.workload import layout as layouts
from cnnopt_jax.workload.compute import Operation, Rule, compute_rule
from cnnopt_jax.workload.primitives import CALLS, FREE
from cnnopt_jax.workload.provenance import CONSTANT, Operand, Origin, Source


class UnknownPrimitiveError(ValueError):
  """A primitive whose multiply-accumulates cannot be counted."""


class UnboundedLoopError(ValueError):
  """A convolution or matrix product in a loop that runs for a number of steps not known."""


class Found(NamedTuple):
  """A convolution or matrix product in a program.

  Attributes:
    kind: 'conv', 'dense' or 'matmul'.
    scopes: the names around it, from the outside in.
    operation: its shapes.
    leaf: its weight leaf, or None.
    sources: the leaves its weight is computed from.
    output_axes: the axes of the leaf that are not summed over; None where that is not known.
    input_shape, kernel_shape, output_shape, dtype, macs: as in `Layer`.
    executions: `Layer.count`.
  """

  kind: str
  scopes: tuple[str, ...]
  operation: Operation
  leaf: Source | None
  sources: frozenset[Source]
  output_axes: tuple[int, ...] | None
  input_shape: tuple[int, ...]
  kernel_shape: tuple[int, ...]
  output_shape: tuple[int, ...]
  dtype: str
  executions: int
  macs: int


class Findings(NamedTuple):
  """What the walk finds.

  Attributes:
    operations: convolutions and matrix products, in order.
    looked_up: paths of leaves of which input data chooses rows: embeddings.
    stacked: how many of a leaf's leading axes loops run over, by path: that of a stack of layers.
  """

  operations: list[Found]
  looked_up: set[str]
  stacked: dict[str, int]


def nothing() -> Findings:
  """Findings of a walk that is about to begin."""
  return Findings([], set(), {})


class _Context(NamedTuple):
  """Where the walk is: names around it, executions of this place in one call, what was found."""

  scopes: tuple[str, ...]
  executions: int
  found: Findings


def _size(atom: Any) -> int:
  return math.prod(getattr(atom.aval, 'shape', ()))


def _rank(atom: Any) -> int:
  return len(jaxprs.array_type(atom).shape)


def _where(context: _Context, eqn: JaxprEqn) -> str:
  scopes = jaxprs.scopes_of(eqn, context.scopes)
  place = repr('/'.join(scopes)) if scopes else 'the top level'
  return f'{eqn.primitive.name} at {place}'


def walk(program: jaxprs.Program, origins: Sequence[Origin], found: Findings) -> list[Origin]:
  """Finds the convolutions and matrix products of a program, and what becomes of its parameters.

  Every equation counts, one whose result nothing uses too. Of the branches of a `cond` or `switch`
  the one with the most multiply-accumulates counts; the body of a scan counts once for each step.

  Args:
    program: closed or not.
    origins: one for each of its inputs.
    found: receives what is found.

  Returns:
    The origins of the program's results.

  Raises:
    UnknownPrimitiveError: if the program has a primitive that is not known to be free.
    UnboundedLoopError: if a while loop multiplies and accumulates.
    AmbiguousWeightError: if a kernel is computed from several leaves.
  """
  return _walk(program, origins, _Context((), 1, found))


def follow(
  eqn: JaxprEqn, origins: list[Origin], found: Findings, scopes: jaxprs.Scopes = ()
) -> list[Origin]:
  """What `walk` does with one equation, for those that walk a program in their own way.

  Args:
    eqn: the equation; a call is entered.
    origins: one for each of its operands.
    found: receives what is found.
    scopes: names around the program that holds it.

  Returns:
    The origins of its results.

  Raises:
    UnknownPrimitiveError, UnboundedLoopError, AmbiguousWeightError: as `walk`.
  """
  called = CALLS.get(eqn.primitive.name)
  if called is None:
    return _equation(eqn, origins, _Context(scopes, 1, found))
  return _walk(eqn.params[called], origins, _Context(jaxprs.scopes_of(eqn, scopes), 1, found))


def _walk(program: jaxprs.Program, origins: Sequence[Origin], context: _Context) -> list[Origin]:
  def evaluate(eqn, operands, scopes):
    return _equation(eqn, operands, context._replace(scopes=scopes))

  return jaxprs.interpret(
    program, origins, evaluate, constant=lambda _: CONSTANT, scopes=context.scopes
  )


def _equation(eqn: JaxprEqn, origins: list[Origin], context: _Context) -> list[Origin]:
  """The origins of the results of anything but a call."""
  name = eqn.primitive.name
  if name == 'optimization_barrier':
    return origins
  if name in FREE:
    return _free(eqn, _operands(eqn, origins), context)
  if (rule := compute_rule(eqn)) is not None:
    return _compute(eqn, rule, _operands(eqn, origins), context)
  inside = context._replace(scopes=jaxprs.scopes_of(eqn, context.scopes))
  match name:
    case 'scan':
      return _scan(eqn, origins, inside)
    case 'while':
      return _while(eqn, origins, inside, _where(context, eqn))
    case 'cond':
      return _cond(eqn, origins, inside)
    case 'call_hi_primitive':
      return _walk(jaxprs.expand(eqn), origins, inside)
    case _:
      raise UnknownPrimitiveError(
        f'cannot count the multiply-accumulates of {_where(context, eqn)}: a layer table knows '
        'convolutions, matrix products and the primitives that have none'
      )


def _free(eqn: JaxprEqn, operands: list[Operand], context: _Context) -> list[Origin]:
  name = eqn.primitive.name
  table = operands[0].origin.leaf if operands else None
  if name == 'gather' and table is not None and operands[1].origin.width:
    context.found.looked_up.add(table.path)
  given = [operand.origin.layout for operand in operands]
  results = []
  for var in eqn.outvars:
    origin = provenance.free_origin(name, operands, _size(var))
    if any(layout is not None for layout in given):
      held = None if origin.leaf is None else origin.leaf.path
      shape = jaxprs.array_type(var).shape
      origin = origin._replace(layout=layouts.result(eqn, given, shape, held))
    results.append(origin)
  return results


def _operands(eqn: JaxprEqn, origins: list[Origin]) -> list[Operand]:
  return [Operand(origin, _size(atom)) for origin, atom in zip(origins, eqn.invars)]


def _compute(eqn: JaxprEqn, rule: Rule, operands: list[Operand], context: _Context) -> list[Origin]:
  kernel, leaf = provenance.find_weight(operands[:2], rule.kernels, _where(context, eqn))
  operation = rule.describe(eqn, kernel)
  activation, weight = (jaxprs.array_type(eqn.invars[i]) for i in (1 - kernel, kernel))
  output = jaxprs.array_type(eqn.outvars[0])
  layout = operands[kernel].origin.layout
  if leaf is None or layout is None or layout.path != leaf.path:
    layout = None
  context.found.operations.append(
    Found(
      kind='matmul' if rule.kind == 'dense' and leaf is None else rule.kind,
      scopes=jaxprs.scopes_of(eqn, context.scopes),
      operation=operation,
      leaf=leaf,
      sources=operands[kernel].origin.sources if leaf is not None else frozenset(),
      output_axes=layouts.output_axes(layout, operation.summed),
      input_shape=tuple(activation.shape),
      kernel_shape=tuple(weight.shape),
      output_shape=tuple(output.shape),
      dtype=activation.dtype.name,
      executions=context.executions,
      macs=math.prod(output.shape) * operation.fan_in * context.executions,
    )
  )
  return [provenance.compute_origin(operands, _size(var)) for var in eqn.outvars]


def _settle(
  body: jaxprs.Program, fixed: list[Origin], carry: list[Origin], xs: list[Origin]
) -> list[Origin]:
  """The origins of a loop's carried values that hold before every step."""
  variables = jaxprs.opened(body).invars[len(fixed) :]
  step = 0
  while True:
    results = _walk(body, fixed + carry + xs, _Context((), 1, nothing()))
    settled = [provenance.join(a, b) for a, b in zip(carry, results)]
    if step:
      # Widths that still grow would do so step by step: go to their bound at once.
      settled = [
        new._replace(width=_size(var)) if new.width > old.width else new
        for new, old, var in zip(settled, carry, variables)
      ]
    if settled == carry:
      return carry
    carry, step = settled, step + 1


def _scan(eqn: JaxprEqn, origins: list[Origin], context: _Context) -> list[Origin]:
  body, length = eqn.params['jaxpr'], eqn.params['length']
  inner = jaxprs.opened(body)
  # How a scan stores the split of its operands differs between JAX's versions. What it runs over
  # and what it stacks has one axis more outside than inside, so the shapes tell.
  stacks = [_rank(i) < _rank(o) for i, o in zip(inner.outvars, eqn.outvars)]
  num_carry = stacks.count(False)
  num_xs = sum(_rank(i) < _rank(o) for i, o in zip(inner.invars, eqn.invars))
  num_fixed = len(origins) - num_carry - num_xs
  fixed, carry = origins[:num_fixed], origins[num_fixed : num_fixed + num_carry]
  xs = [
    provenance.sliced(origin, length, _size(var))
    for origin, var in zip(origins[num_fixed + num_carry :], inner.invars[num_fixed + num_carry :])
  ]
  for origin in origins[num_fixed + num_carry :]:
    if origin.layout is not None and (axes := layouts.leading_axes(origin.layout)):
      context.found.stacked[origin.layout.path] = axes
  carry = _settle(body, fixed, carry, xs)
  results = _walk(
    body, fixed + carry + xs, context._replace(executions=context.executions * length)
  )
  return [provenance.join(a, b) for a, b in zip(carry, results)] + [
    provenance.stacked(origin, length) for origin in results[num_carry:]
  ]


def _while(eqn: JaxprEqn, origins: list[Origin], context: _Context, where: str) -> list[Origin]:
  num_test, num_fixed = eqn.params['cond_nconsts'], eqn.params['body_nconsts']
  test, fixed = origins[:num_test], origins[num_test : num_test + num_fixed]
  body = eqn.params['body_jaxpr']
  carry = _settle(body, fixed, origins[num_test + num_fixed :], [])
  inside = context._replace(found=context.found._replace(operations=[]))
  _walk(eqn.params['cond_jaxpr'], test + carry, inside)
  _walk(body, fixed + carry, inside)
  if inside.found.operations:
    raise UnboundedLoopError(
      f'{where} multiplies and accumulates, and how often it runs is not known before it does; use '
      'a loop of fixed length (jax.lax.scan, or fori_loop with fixed bounds)'
    )
  return carry


def _cond(eqn: JaxprEqn, origins: list[Origin], context: _Context) -> list[Origin]:
  index, operands = origins[0], origins[1:]
  costliest: list[Found] = []
  results: list[Origin] = []
  for branch in eqn.params['branches']:
    found: list[Found] = []
    inside = context._replace(found=context.found._replace(operations=found))
    branch_results = _walk(branch, operands, inside)
    if sum(f.macs for f in found) > sum(f.macs for f in costliest):
      costliest = found
    if not results:
      results = branch_results
    else:
      results = [provenance.join(a, b) for a, b in zip(results, branch_results)]
  context.found.operations.extend(costliest)
  # The results depend on the data that chose the branch too, as far as their sizes allow.
  return [
    result._replace(width=max(result.width, min(index.width, _size(var))))
    for result, var in zip(results, eqn.outvars)
  ]
