"""A network's conv units: their names, how they read under a plan, their parameters and layers."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnnopt_jax import vip
from cnnopt_jax.models.folding import norm_after
from cnnopt_jax.models.layers import ConvUnit
from cnnopt_jax.quant import Quantizer, WeightPlan, plan_weights
from cnnopt_jax.workload import LayerTable, trace_layers

# Names of units depend neither on the size of the images nor on their channels.
_ANY_IMAGE = (64, 64, 3)


def with_plan(model: nn.Module, plan: str | Iterable[str]) -> nn.Module:
  """The same network with other virtual units; its variables fit both.

  Args:
    model: a module of this package.
    plan: as in `create`.

  Returns:
    A module.

  Raises:
    ValueError: if a unit of the plan is unknown.
  """
  return model.clone(plan=vip.resolve_plan(plan, unit_names(model)))


class _Reading(NamedTuple):
  """How a conv unit reads its input: a virtual map or an array, and at what it steps over it."""

  virtual: bool
  stride: int
  groups: int


@functools.cache
def _units(model: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, _Reading]:
  """The conv units of a network in its order."""
  found = {}

  def record(call, args, kwargs, context):
    unit = context.module
    if isinstance(unit, ConvUnit) and context.method_name == '__call__':
      found['/'.join(unit.path)] = _Reading(
        isinstance(args[0], vip.VirtualMap), unit.stride * (2 if unit.virtual else 1), unit.groups
      )
    return call(*args, **kwargs)

  with nn.intercept_methods(record):
    jax.eval_shape(
      model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    )
  return found


def unit_names(model: nn.Module) -> tuple[str, ...]:
  """Names of a network's conv units, in its order: what a plan can name."""
  return tuple(_units(model.clone(plan=()), _ANY_IMAGE))


def virtual_inputs(model: nn.Module, image_shape: tuple[int, int, int]) -> tuple[str, ...]:
  """Names of the conv units that read a virtual map under the network's plan: for `vip.fold`.

  Args:
    model: a module of this package.
    image_shape: (H, W, C).

  Returns:
    Names, in the network's order.
  """
  return tuple(
    name for name, reading in _units(model, tuple(image_shape)).items() if reading.virtual
  )


def inference_params(
  model: nn.Module,
  params: Any,
  image_shape: tuple[int, int, int],
  *,
  platform: str | None = None,
) -> Any:
  """Trained parameters prepared once for inference, as fast as the network's plan allows.

  Kernels that read a virtual map are folded, and, for a CPU, those that read at stride 1 get their
  transform (`vip.fold`, `vip.winograd_transform`). The network computes the same. A transform
  stands beside its kernel and is 16/9 of its size.

  Args:
    model: a module of this package.
    params: its parameters.
    image_shape: (H, W, C).
    platform: that the result is for, as in `vip.fold`; None for `jax.default_backend()`. It decides
      which leaves are a `vip.WinogradKernel` and which folded kernels hold a transform.

  Returns:
    A tree to put where the parameters were.

  Raises:
    ValueError: if the platform is unknown.
  """
  folded = vip.fold(params, virtual_inputs(model, image_shape), platform=platform)
  dense_at_stride_1 = [
    name
    for name, reading in _units(model, tuple(image_shape)).items()
    if not reading.virtual and reading.stride == reading.groups == 1
  ]
  return vip.winograd_transform(folded, dense_at_stride_1, platform=platform)


def abstract_variables(model: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, Any]:
  """Shapes and dtypes of a network's variables; nothing is computed.

  Args:
    model: a module.
    image_shape: (H, W, C).
  """
  images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  return dict(jax.eval_shape(model.init, jax.random.key(0), images))


def layer_table(
  model: nn.Module, image_shape: tuple[int, int, int], *, train: bool = False
) -> LayerTable:
  """Traces a network's layers for one image; nothing is computed.

  Args:
    model: a module of this package.
    image_shape: (H, W, C).
    train: trace the network as it trains, batch norm's statistics included.

  Returns:
    The layers; MACs are those of one image, parameter paths start below 'params'. Of each parameter
    it is known whether it `folds`: the kernel of a conv unit with a norm does.
  """
  images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  variables = abstract_variables(model, image_shape)
  statistics = {name: value for name, value in variables.items() if name != 'params'}
  options: dict[str, Any] = dict(train=True, mutable=list(statistics)) if train else {}

  def apply(params, images, statistics):
    return model.apply({'params': params, **statistics}, images, **options)

  table = trace_layers(apply, variables['params'], images, statistics)
  paths = {parameter.path for parameter in table.parameters}
  parameters = tuple(
    dataclasses.replace(parameter, folds=norm_after(parameter.path, paths) is not None)
    for parameter in table.parameters
  )
  return dataclasses.replace(table, parameters=parameters)


@functools.cache
def weight_plan(
  model: nn.Module, image_shape: tuple[int, int, int], quantizer: Quantizer = Quantizer()
) -> WeightPlan:
  """How a network's weights are quantized: `plan_weights` of its `layer_table`.

  Args:
    model: as in `layer_table`; which of its maps are virtual does not matter.
    image_shape: (H, W, C).
    quantizer: how.

  Returns:
    The plan; paths start below 'params'.

  Raises:
    ValueError: as `plan_weights`.
  """
  if getattr(model, 'plan', ()):  # Kernels that read through maps are computed from their leaves.
    model = model.clone(plan=())
  return plan_weights(layer_table(model, image_shape), quantizer)
