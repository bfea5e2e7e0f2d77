"""Networks built from conv units: the names of their units, and plans that must name some."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnnopt_jax import vip
from cnnopt_jax.models.layers import ConvUnit
from cnnopt_jax.workload import path_string

# Names of units depend neither on the size of the images nor on their channels.
_ANY_IMAGE = (64, 64, 3)


class Network(nn.Module):
  """Base of the networks here: a plan, static or as data, names units of theirs or is an error.

  A network has a field `plan` with a default of (), which its constructor takes as `create` does:
  names of units, 'all', 'none' or a key of `vip.PLANS`. It then holds names in the network's order.

  Raises:
    ValueError: on construction, if the network lacks a unit of the plan; from `apply`, if it lacks
      one of the units that `vip.mask_variables` were made for.
  """

  def __post_init__(self):
    plan = getattr(self, 'plan', ())
    if plan:
      fields = {f.name for f in dataclasses.fields(self) if f.init} - {'parent', 'name', 'plan'}
      dense = type(self)(**{name: getattr(self, name) for name in fields}, parent=None)
      plan = vip.resolve_plan(plan, unit_names(dense))
    self.plan: Any = plan or ()
    super().__post_init__()

  def apply(self, variables: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
    """`flax.linen.Module.apply`, after a check of the masks among the variables."""
    masks = variables.get(vip.MASK_COLLECTION)
    if masks:
      paths = jax.tree_util.tree_flatten_with_path(masks)[0]
      names = [path_string(path).removesuffix(f'/{vip.MASK_NAME}') for path, _ in paths]
      vip.resolve_plan(names, unit_names(self))
    return super().apply(variables, *args, **kwargs)


class Reading(NamedTuple):
  """How a conv unit reads its input: a virtual map or an array, and at what it steps over it."""

  virtual: bool
  stride: int
  groups: int


@functools.cache
def unit_readings(model: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, Reading]:
  """The conv units of a network in its order.

  Args:
    model: a module built from `ConvUnit`.
    image_shape: (H, W, C).

  Returns:
    How each unit reads its input, by the unit's name.

  Raises:
    ValueError: if the module has no such unit.
  """
  found = {}

  def record(call, args, kwargs, context):
    unit = context.module
    if isinstance(unit, ConvUnit) and context.method_name == '__call__':
      found['/'.join(unit.path)] = Reading(
        isinstance(args[0], vip.VirtualMap), unit.stride * (2 if unit.virtual else 1), unit.groups
      )
    return call(*args, **kwargs)

  with nn.intercept_methods(record):
    jax.eval_shape(
      model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    )
  if not found:
    raise ValueError(
      f'model={type(model).__name__} has no models.ConvUnit; allowed: networks of '
      'cnnopt_jax.models, and others built from that unit'
    )
  return found


def with_plan(model: nn.Module, plan: str | Iterable[str]) -> nn.Module:
  """The same network with other virtual units; its variables fit both.

  Args:
    model: a module of this package.
    plan: as in `create`.

  Returns:
    A module.

  Raises:
    ValueError: if a unit of the plan is unknown, or the module has no units or no plan.
  """
  units = unit_names(model)
  if not hasattr(model, 'plan'):
    raise ValueError(f'model={type(model).__name__} has no field plan; allowed: models.Network')
  return model.clone(plan=vip.resolve_plan(plan, units))


def unit_names(model: nn.Module) -> tuple[str, ...]:
  """Names of a network's conv units, in its order: what a plan can name.

  Raises:
    ValueError: if it has none.
  """
  return tuple(unit_readings(model.clone(plan=()) if hasattr(model, 'plan') else model, _ANY_IMAGE))


def virtual_inputs(model: nn.Module, image_shape: tuple[int, int, int]) -> tuple[str, ...]:
  """Names of the conv units that read a virtual map under the network's plan: for `vip.fold`.

  Args:
    model: a module of this package.
    image_shape: (H, W, C).

  Returns:
    Names, in the network's order.

  Raises:
    ValueError: if it has no conv unit.
  """
  readings = unit_readings(model, tuple(image_shape))
  return tuple(name for name, reading in readings.items() if reading.virtual)
