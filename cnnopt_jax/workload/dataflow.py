"""Which arrays a program writes to memory and reads back: its kernels, fused or one by one.

Fused, as a compiler does: a convolution, a matrix product or a pooling window is a kernel of its
own. Element-wise operations, moves and reductions that follow one another fuse into one kernel,
which reads each array from outside once and writes what others read: a reduction ends a kernel, as
what uses its result has to wait for all of it. Arrays of one axis, such as a norm's statistics, are
neglected.

One by one, as a framework does that runs each operation when it is called: a bias, a sum of maps,
an activation and a concatenation are a kernel each, and so is all of a norm. A bias, an activation
or a sum whose operand nobody else reads overwrites it.
"""

import collections
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from jax.extend.core import ClosedJaxpr, JaxprEqn

from cnnopt_jax.workload import jaxprs
from cnnopt_jax.workload.compute import compute_rule
from cnnopt_jax.workload.scopes import merge_methods

# Where they keep every element, these show an array in another way.
_VIEWS = frozenset(
  (
    'reshape',
    'squeeze',
    'copy',
    'stop_gradient',
    'broadcast_in_dim',
    'name',
    'optimization_barrier',
    'transpose',
    'convert_element_type',
    'slice',
    'pad',
  )
)
_BATCHED_ROLES = frozenset(('input', 'activation', 'gradient'))
# What an unfused kernel does: a layer's product, a bias added to it, a function of one map, a sum
# or product of maps, a norm, dropout, a window's maximum or mean, a reduction, a concatenation, the
# rest.
OPERATIONS = (
  *('layer', 'bias', 'activation', 'sum', 'product', 'norm', 'dropout'),
  *('max_pool', 'mean_pool', 'reduction', 'concatenation', 'other'),
)
_MEANS = ('mean_pool', 'reduction')
_IN_PLACE = ('bias', 'activation', 'sum')
_RANDOM = ('random_', 'threefry', 'rng_')
_LOOPS = frozenset(('scan', 'while', 'cond', 'call_hi_primitive'))


class Tensor(NamedTuple):
  """An array in memory.

  Attributes:
    elements: of the traced call, its batch included.
    role: 'parameter', 'input' (data of the call) or 'activation'; a schedule adds 'gradient' (of an
      activation), 'parameter_gradient' and 'momentum'.
    path: of a parameter's leaf; '' for others.
    alias: index of the tensor whose memory it takes over; -1 for memory of its own.
  """

  elements: int
  role: str
  path: str = ''
  alias: int = -1

  @property
  def batched(self) -> bool:
    """Whether its elements grow with the batch."""
    return self.role in _BATCHED_ROLES


class FusedKernel(NamedTuple):
  """What reads and writes memory at once.

  Attributes:
    path: module of the last operation in it, without the outermost scope.
    layer: index of the convolution or matrix product in the table's layers; -1 for others.
    reads: indices of the tensors read; of a layer the activation operand first, then the kernel.
    writes: indices of the tensors written.
    operation: of an unfused kernel one of `OPERATIONS`; '' for fused ones.
  """

  path: str
  layer: int
  reads: tuple[int, ...]
  writes: tuple[int, ...]
  operation: str = ''


class Dataflow(NamedTuple):
  """Tensors of a program, and its kernels in an order of execution.

  Attributes:
    tensors: all arrays in memory.
    kernels: those whose results are used, each after what it reads is written.
    unfused: the same of a framework that runs operations one by one; None if this is it.
  """

  tensors: tuple[Tensor, ...]
  kernels: tuple[FusedKernel, ...]
  unfused: 'Dataflow | None' = None


class _Value(NamedTuple):
  """A value of the flat program: its identity, the array's size, whether data decide it."""

  key: int
  elements: int
  is_map: bool
  from_data: bool


class _Operation(NamedTuple):
  """An equation of the flat program."""

  kind: str  # 'layer', 'window', 'reduction' or 'fusible'.
  primitive: str
  scopes: tuple[str, ...]
  layer: int
  inputs: tuple[_Value, ...]
  outputs: tuple[_Value, ...]


class _FlatProgram:
  """The equations of a jaxpr with all calls inlined, and views replaced by what they show."""

  def __init__(self) -> None:
    self.operations: list[_Operation] = []
    self.layers = 0
    self.values = 0

  def value(self, aval: Any, from_data: bool) -> _Value:
    shape = tuple(getattr(aval, 'shape', ()))
    # One axis, or one axis that others were put before, holds channels and no map.
    is_map = len(shape) == 2 or len(shape) > 2 and math.prod(shape[:-1]) > 1
    self.values += 1
    return _Value(self.values, math.prod(shape), is_map, from_data)

  def inline(self, program: jaxprs.Program, inputs: Sequence[_Value]) -> list[_Value]:
    """Appends a program's equations; returns the values of its results."""
    return jaxprs.interpret(program, inputs, self._equation, constant=self._constant)

  def _constant(self, atom: Any) -> _Value:
    return self.value(atom.aval, False)._replace(is_map=False)

  def _equation(self, eqn: JaxprEqn, operands: list[_Value], outer: jaxprs.Scopes) -> list[_Value]:
    name = eqn.primitive.name
    if name in _LOOPS:
      raise _UnfollowedError
    outputs = [
      self.value(var.aval, any(operand.from_data for operand in operands)) for var in eqn.outvars
    ]
    if name in _VIEWS and outputs[0].elements == operands[0].elements:
      return operands[: len(outputs)]
    kind, layer = 'fusible', -1
    if (rule := compute_rule(eqn)) is not None:
      kind, layer = 'layer', self.layers
      self.layers += 1
      if rule.kind == 'dense' and operands[0].from_data is False:
        operands = operands[::-1]  # The weight stood on the left.
    elif name.startswith(('reduce_window', 'select_and_')):
      # A window along one axis, as of local response normalisation, is a loop within a kernel.
      if sum(size > 1 for size in eqn.params.get('window_dimensions', (2, 2))) > 1:
        kind = 'window'
    elif name.startswith(('reduce_', 'arg', 'cum', 'sort', 'top_k')) and name != 'reduce_precision':
      kind = 'reduction'
    if kind in ('layer', 'window'):
      outputs = [output._replace(is_map=True) for output in outputs]
    elif kind == 'fusible':
      # A map of one pixel looks like a vector of channels, but for where it comes from.
      maps = {operand.elements for operand in operands if operand.is_map}
      outputs = [o._replace(is_map=o.is_map or o.elements in maps) for o in outputs]
    scopes = jaxprs.scopes_of(eqn, outer)
    self.operations.append(_Operation(kind, name, scopes, layer, tuple(operands), tuple(outputs)))
    return outputs


class _UnfollowedError(Exception):
  """A loop or branch."""


def trace_dataflow(program: ClosedJaxpr, paths: Sequence[str], layers: int) -> Dataflow | None:
  """Finds the kernels of a program.

  Args:
    program: closed; its first inputs are the parameters.
    paths: of the parameters' leaves.
    layers: how many convolutions and matrix products the program has.

  Returns:
    The dataflow; None if the program has loops or branches, which are not followed.
  """
  flat = _FlatProgram()
  variables = jaxprs.opened(program).invars
  inputs = [flat.value(var.aval, i >= len(paths)) for i, var in enumerate(variables)]
  try:
    results = flat.inline(program, inputs)
  except _UnfollowedError:
    return None
  assert flat.layers == layers
  operations = _live(flat.operations, results)
  writer = {value.key: i for i, operation in enumerate(operations) for value in operation.outputs}
  stages = _stages(operations)
  fused = _kernels(operations, _fused(operations, stages, writer), stages, inputs, paths, results)
  group, names = _unfused(operations, writer)
  # Program order, a kernel where the last of its operations stood.
  order = [max(j for j, g in enumerate(group) if g == leader) for leader in group]
  one_by_one = _kernels(operations, group, order, inputs, paths, results, names)
  return fused._replace(unfused=_in_place(one_by_one))


def _live(operations, results) -> list[_Operation]:
  """The operations whose results are used."""
  used, kept = {value.key for value in results}, []
  for operation in reversed(operations):
    if any(value.key in used for value in operation.outputs):
      used.update(value.key for value in operation.inputs)
      kept.append(operation)
  return kept[::-1]


def _kernels(operations, group, stages, inputs, paths, results, names=()) -> Dataflow:
  writer = {value.key: i for i, operation in enumerate(operations) for value in operation.outputs}
  members = collections.defaultdict(list)
  for i in range(len(operations)):
    members[group[i]].append(i)
  # Every stage waits for those before it only, so their order is an order of execution.
  order = sorted(members, key=lambda leader: (stages[leader], leader))

  known = {
    value.key: (value, Tensor(value.elements, 'parameter', path))
    for value, path in zip(inputs, paths)
  }
  known |= {value.key: (value, Tensor(value.elements, 'input')) for value in inputs[len(paths) :]}
  index: dict[int, int] = {}
  tensors: list[Tensor] = []

  def tensor(value):
    if value.key not in index:
      index[value.key] = len(tensors)
      role = 'activation' if value.from_data else 'parameter'
      tensors.append(known.get(value.key, (None, Tensor(value.elements, role)))[1])
    return index[value.key]

  outside = {value.key for value in results}
  for i, operation in enumerate(operations):
    outside.update(
      value.key
      for value in operation.inputs
      if value.key in writer and group[writer[value.key]] != group[i]
    )
  kernels = []
  for leader in order:
    own = [operations[i] for i in members[leader]]
    made = {value.key for operation in own for value in operation.outputs}
    reads = dict.fromkeys(
      tensor(value)
      for operation in own
      for value in operation.inputs
      if value.is_map and value.key not in made
    )
    writes = dict.fromkeys(
      tensor(value)
      for operation in own
      for value in operation.outputs
      if value.is_map and value.key in outside
    )
    if reads or writes:
      path = '/'.join(merge_methods(own[-1].scopes)[1:])
      name = names[leader] if names else ''
      kernels.append(FusedKernel(path, own[0].layer, tuple(reads), tuple(writes), name))
  return Dataflow(tuple(tensors), tuple(kernels))


def _stages(operations) -> list[int]:
  """For each operation the earliest step at which it can run, fused where it may be."""
  made: dict[int, int] = {}
  available: dict[int, int] = {}
  stages: list[int] = []
  for operation in operations:
    keys = [value.key for value in operation.inputs]
    if operation.kind in ('layer', 'window'):  # These fuse with nothing before them.
      stage = 1 + max((made.get(key, -1) for key in keys), default=-1)
      stage = max([stage, *(available.get(key, 0) for key in keys)])
    else:
      stage = max((available.get(key, 0) for key in keys), default=0)
    stages.append(stage)
    for value in operation.outputs:
      made[value.key] = stage
      available[value.key] = stage + (operation.kind != 'fusible')
  return stages


def _fused(operations, stages, writer) -> list[int]:
  """For each operation the first one of its kernel."""
  leader = list(range(len(operations)))

  def find(i):
    while leader[i] != i:
      leader[i] = i = leader[leader[i]]
    return i

  readers: dict[tuple[int, int], int] = {}
  for i, operation in enumerate(operations):
    if operation.kind in ('layer', 'window'):
      continue
    for value in operation.inputs:
      if not value.is_map:
        continue
      # With the operation that made it, and with others that read it at the same time.
      others = [writer.get(value.key), readers.setdefault((value.key, stages[i]), i)]
      for other in others:
        if (
          other is not None
          and stages[other] == stages[i]
          and (operations[other].kind not in ('layer', 'window'))
        ):
          a, b = sorted((find(i), find(other)))
          leader[b] = a
  return [find(i) for i in range(len(operations))]


def _unfused(operations, writer) -> tuple[list[int], list[str]]:
  """For each operation the first one of its kernel, and what it does, one of `OPERATIONS`."""
  readers = collections.Counter(value.key for o in operations for value in o.inputs)
  scopes = [merge_methods(operation.scopes) for operation in operations]
  with_layer = {scope for scope, o in zip(scopes, operations) if o.kind == 'layer'}
  inner = {scope[:n] for scope in set(scopes) for n in range(len(scope))}
  # A module that reduces, and has neither a layer nor other modules in it, is a norm.
  norms = {s for s, o in zip(scopes, operations) if o.kind == 'reduction'} - with_layer - inner
  # One that draws random numbers likewise drops values out.
  drawing = {s for s, o in zip(scopes, operations) if o.primitive.startswith(_RANDOM)}
  modules = dict.fromkeys(norms, 'norm') | dict.fromkeys(drawing - with_layer - inner, 'dropout')
  names: list[str] = []
  leader = list(range(len(operations)))
  first_readers: dict[tuple[int, tuple[str, ...]], int] = {}
  for i, operation in enumerate(operations):
    maps = [value for value in operation.inputs if value.is_map]
    names.append(modules.get(scopes[i]) or _named(operation, maps, operations, writer))
    for value in maps:
      before = writer.get(value.key, i)
      others = [before]
      if names[i] in modules.values():  # A norm's statistics and their use read the same map.
        others.append(first_readers.setdefault((value.key, scopes[i]), i))
      elif names[i] != 'activation' or readers[value.key] > 1 or len(maps) > 1:
        continue
      elif operation.primitive in ('mul', 'div') and names[before] in _MEANS:
        names[i] = names[before]  # A sum becomes a mean.
      for other in others:
        if names[other] == names[i] and scopes[other] == scopes[i]:
          old, new = sorted((leader[other], leader[i]))
          leader = [old if first == new else first for first in leader]
  return leader, names


def _named(operation, maps, operations, writer) -> str:
  if operation.kind == 'layer':
    return 'layer'
  if operation.kind == 'window':
    is_maximum = 'max' in operation.primitive or 'select' in operation.primitive
    return 'max_pool' if is_maximum else 'mean_pool'
  if operation.kind == 'reduction':
    return 'reduction'
  if operation.primitive == 'concatenate':
    return 'concatenation'
  if len({value.key for value in maps}) > 1:
    return 'sum' if operation.primitive in ('add', 'sub', 'add_any') else 'product'
  if not maps:
    return 'other'
  before = writer.get(maps[0].key)
  if operation.primitive in ('add', 'sub') and before is not None:
    layer = operations[before]
    # The subtraction of a norm's mean stands in a module of its own.
    if layer.kind == 'layer' and merge_methods(layer.scopes) == merge_methods(operation.scopes):
      return 'bias'
  return 'activation'


def _in_place(flow: Dataflow) -> Dataflow:
  """Lets a kernel overwrite what nobody else reads."""
  readers = collections.Counter(t for kernel in flow.kernels for t in kernel.reads)
  tensors = list(flow.tensors)
  for kernel in flow.kernels:
    if kernel.operation in _IN_PLACE and len(kernel.writes) == 1:
      read, written = kernel.reads[0], kernel.writes[0]
      same = tensors[read].elements == tensors[written].elements
      if same and readers[read] == 1 and tensors[read].role == 'activation':
        tensors[written] = tensors[written]._replace(alias=read)
  return flow._replace(tensors=tuple(tensors))
