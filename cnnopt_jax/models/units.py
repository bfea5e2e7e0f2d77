"""A network's parameters and layers: prepared for inference, traced, planned for quantization."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnnopt_jax import vip
from cnnopt_jax.models.folding import norm_after
from cnnopt_jax.models.network import unit_readings, virtual_inputs
from cnnopt_jax.quant import Quantizer, WeightPlan, plan_weights
from cnnopt_jax.workload import LayerTable, refuse_prepared, trace_layers


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

  The trained parameters stay the one source: what is prepared fits this plan and this size of
  images, and is for inference alone. Under a plan that reads a kernel otherwise the network refuses
  it; a derivative by it, a quantizer and another preparation are refused too.

  Args:
    model: a module of this package.
    params: its trained parameters; quantized ones, if it is to be.
    image_shape: (H, W, C).
    platform: that the result is for, as in `vip.fold`; None for `jax.default_backend()`. It decides
      which leaves are a `vip.WinogradKernel` and which folded kernels hold a transform.

  Returns:
    A tree to put where the parameters were.

  Raises:
    ValueError: if the module has no conv unit, so that nothing of it would be prepared, the
      parameters are prepared already or not those of the module, or the platform is unknown.
  """
  refuse_prepared(params, 'prepare these, for each plan')
  folded = vip.fold(params, virtual_inputs(model, image_shape), platform=platform)
  dense_at_stride_1 = [
    name
    for name, reading in unit_readings(model, tuple(image_shape)).items()
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
