"""`virtualize`: a plan for a network that knows nothing of this library."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
from flax import linen as nn
from flax import nnx

from cnnopt_jax.vip.plans import Plan, resolve_plan
from cnnopt_jax.vip.virtualization.program import Program
from cnnopt_jax.vip.virtualization.run import Record, WrittenMap, run
from cnnopt_jax.vip.virtualization.tracing import Function, abstractly, trace_call

Model = nn.Module | nnx.Module | Callable[..., Any]
PlanLike = str | Iterable[str]


def layer_names(model: Model, *args: Any, **kwargs: Any) -> tuple[str, ...]:
  """Names of a network's convolutions that can be virtual, in its order: what a plan can name.

  A name is the path of the kernel in the tree of parameters, without its last part: 'stem/conv' of
  a linen module's 'stem/conv/kernel'. Nothing is computed.

  Args:
    model: as in `virtualize`.
    *args: one example of what the network is called with (for a function, its parameters first);
      arrays may be `jax.ShapeDtypeStruct`.
    **kwargs: the same.

  Returns:
    The names. Not among them are convolutions in loops and branches, transposed ones, of one or
    three spatial axes, or in other layouts than [N, H, W, C].
  """
  return _usable(_wrapped(model, ()).example(args, kwargs))


def virtualize(model: Model, plan: PlanLike, *args: Any, **kwargs: Any) -> Any:
  """The network with the convolutions of a plan virtual; its code and parameters stay as they are.

      names = vip.layer_names(model, images)
      virtual = vip.virtualize(model, names[1:], images)
      logits = virtual.apply(variables, images)            # linen
      logits, new = virtual.apply(variables, images, train=True, mutable=['batch_stats'])
      logits = virtual(images)                             # nnx
      logits = virtual(params, images)                     # any function of parameters and arrays
      print(virtual.report(variables, images))             # what is written in full

  The network is traced at every call, so call it under `jax.jit`; `jax.grad` and `jax.vmap` go
  through it. A planned convolution computes every other row and column. Bias, norm and activation
  act on these samples, in training with the samples' statistics; what reads the map then reads
  through the interpolation: convolutions, pools, means over it, sums of maps, products with one
  number a channel, maps side by side, matrix products over channels. Before any other op the map is
  written in full, and `report` lists it. Where the activation of a unit ends is told in
  `virtualization/units.py`. The others of the network's ops, and all of them under an empty plan,
  are computed as they were. Rematerialised parts (`jax.checkpoint`) are kept instead.

  Args:
    model: a Flax linen module, an nnx module, or a function whose first argument is a tree of
      parameters; its images are [N, H, W, C].
    plan: names of layers, 'all', 'none', or a key of `vip.PLANS` if it has these layers.
    *args: one example of what the network is called with, as in `layer_names`, to check the plan
      now; without, it is checked at each call.
    **kwargs: the same.

  Returns:
    What is called as the model is.

  Raises:
    ValueError: if the network has no layer of a name, or one that cannot be virtual; then with the
      reason.
  """
  virtual = _wrapped(model, plan)
  if args or kwargs:
    _checked_plan(virtual.plan, virtual.example(args, kwargs))
  return virtual


class Virtual:
  """A function of parameters with virtual convolutions, called as the function is.

  Attributes:
    model: what was virtualized.
    plan: as given.
  """

  # The entry of the first argument that holds the parameters.
  _root: str | None = None

  def __init__(self, model: Any, plan: PlanLike):
    self.model = model
    self.plan = plan if isinstance(plan, str) else tuple(plan)

  def __call__(self, *args: Any, **kwargs: Any) -> Any:
    """What the function gives, its planned convolutions virtual."""
    return self._call(args, kwargs)

  def report(self, *args: Any, **kwargs: Any) -> tuple[WrittenMap, ...]:
    """The virtual maps that are written in full, for one call; nothing is computed.

    Args:
      *args: of the call; for a linen module those of `apply`. Arrays may be `jax.ShapeDtypeStruct`.
      **kwargs: the same.

    Returns:
      A row for each, in the program's order.
    """
    rows: list[WrittenMap] = []
    abstractly(lambda *a, **k: self._call(a, k, rows.append), args, kwargs)
    return tuple(rows)

  def example(self, args: Any, kwargs: Any) -> Program:
    """The program for what the model is called with; arrays may be shapes."""
    found: list[Program] = []

    def keep(*args, **kwargs):
      found.append(trace_call(self._function(), args, kwargs, self._root).program)

    abstractly(keep, args, kwargs)
    return found[0]

  def _call(self, args: Any, kwargs: Any, record: Record | None = None) -> Any:
    call = trace_call(self._function(), args, kwargs, self._root)
    planned = frozenset(_checked_plan(self.plan, call.program))
    return call.restore(run(call.program, planned, call.arrays, record))

  def _function(self) -> Function:
    """What is traced: a function whose first argument holds the parameters."""
    return self.model


class VirtualModule(Virtual):
  """A linen module with virtual convolutions: `init` and `apply` as the module has them."""

  _root = 'params'

  def init(self, *args: Any, **kwargs: Any) -> Any:
    """The module's variables; they are those of the dense network."""
    return self.model.init(*args, **kwargs)

  def apply(self, variables: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
    """`flax.linen.Module.apply`, the planned convolutions virtual."""
    return self._call((variables, *args), kwargs)

  def example(self, args: Any, kwargs: Any) -> Program:
    """As `Virtual.example`, without variables: what `init` would make stands for them."""
    rngs = {name: jax.random.key(0) for name in ('params', 'dropout')}
    found: list[Program] = []

    def keep(*args, **kwargs):
      variables = self.model.init(rngs, *args, **kwargs)
      options = dict(mutable=[name for name in variables if name != 'params'], rngs=rngs)
      call = trace_call(self.model.apply, (variables, *args), {**kwargs, **options}, self._root)
      found.append(call.program)

    abstractly(keep, args, kwargs)
    return found[0]

  def _function(self) -> Function:
    return self.model.apply


class VirtualGraph(Virtual):
  """An nnx module with virtual convolutions; a call changes the module as it would have itself."""

  def __call__(self, *args: Any, **kwargs: Any) -> Any:
    """What the module gives; norms' statistics and the like are updated in the module."""
    out, state = self._call((nnx.state(self.model), *args), kwargs)
    nnx.update(self.model, state)
    return out

  def report(self, *args: Any, **kwargs: Any) -> tuple[WrittenMap, ...]:
    """As `Virtual.report`; the module is not changed."""
    return super().report(nnx.state(self.model), *args, **kwargs)

  def example(self, args: Any, kwargs: Any) -> Program:
    """As `Virtual.example`; the module is not changed."""
    return super().example((nnx.state(self.model), *args), kwargs)

  def _function(self) -> Function:
    graph = nnx.graphdef(self.model)

    def function(state, *args, **kwargs):
      # Before the call, which may write into the variables of the state itself.
      before = {path: jax.tree.leaves(v) for path, v in nnx.to_flat_state(state)}
      model = nnx.merge(graph, state)
      out = model(*args, **kwargs)
      return out, _changed(before, nnx.state(model))

    return function


def _changed(before: Mapping[Any, list[Any]], after: Any) -> Any:
  """The variables that a call has changed; others may not be writable where the call stands."""

  def is_new(path, variable):
    return list(map(id, jax.tree.leaves(variable))) != list(map(id, before.get(path, ())))

  return nnx.from_flat_state([(p, v) for p, v in nnx.to_flat_state(after) if is_new(p, v)])


def _wrapped(model: Any, plan: PlanLike) -> Virtual:
  if isinstance(model, nn.Module):
    return VirtualModule(model, plan)
  if isinstance(model, nnx.Module):
    return VirtualGraph(model, plan)
  if callable(model):
    return Virtual(model, plan)
  raise ValueError(
    f'model={type(model).__name__}; allowed: a linen or nnx module, or a function of parameters'
  )


def _usable(program: Program) -> Plan:
  return tuple(name for name, reason in program.layers.items() if reason is None)


def _checked_plan(plan: PlanLike, program: Program) -> Plan:
  """The plan's layers in the network's order; raises ValueError for others."""
  for name in () if isinstance(plan, str) else plan:
    if reason := program.layers.get(name):
      raise ValueError(f'plan: {name!r} cannot be virtual: {reason}')
  return resolve_plan(plan, _usable(program))
