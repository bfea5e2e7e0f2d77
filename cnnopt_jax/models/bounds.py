"""Error bounds of a whole network's virtual layers: `vip.bounds` for the units of a model.

It stands here and not in `vip.bounds` because models are built from vip, which knows none of them.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from cnnopt_jax import vip
from cnnopt_jax.models.layers import ConvUnit
from cnnopt_jax.models.registry import with_plan
from cnnopt_jax.models.vgg import VGG
from cnnopt_jax.vip import bounds
from cnnopt_jax.workload import refuse_prepared

# An activation of a unit, as the bound names it.
_NAMES: dict[Any, str] = {nn.relu: 'relu', nn.relu6: 'relu6', None: 'identity'}


def bounded_layers(
  model: nn.Module, variables: Any, images: jax.Array
) -> Iterator[bounds.BoundedLayer]:
  """Every conv unit with its dense input; norms are folded into kernels and biases.

  The bound is for equal padding on all sides, in numbers: units without are left out.

  Args:
    model: a dense network of `cnnopt_jax.models`.
    variables: its variables.
    images: [N, H, W, C], normalised.

  Yields:
    The units, in the network's order: what `vip.bounds.bound_report` takes.

  Raises:
    ValueError: if the parameters are prepared for inference.
  """
  refuse_prepared(variables.get('params', {}), 'bound these')
  calls = []

  def record(call, args, kwargs, context):
    if isinstance(context.module, ConvUnit) and context.method_name == '__call__':
      unit = context.module
      calls.append((unit.path, args[0], unit))
    return call(*args, **kwargs)

  with nn.intercept_methods(record):
    model.apply(variables, images)
  for path, x, unit in calls:
    given: Any = unit.kernel_size // 2 if unit.padding is None else unit.padding
    if isinstance(given, str):
      continue
    padding = {given} if isinstance(given, int) else {p for side in given for p in side}
    if len(padding) == 1:
      (pad,) = padding
      kernel, bias = _folded_norm(unit, variables, path)
      activation = _NAMES[unit.activation]
      yield bounds.BoundedLayer(
        '/'.join(path), x, kernel, bias, unit.stride, pad, unit.groups, activation
      )


def _folded_norm(unit: ConvUnit, variables, path) -> tuple[jax.Array, jax.Array]:
  """Kernel [kh, kw, Cin / groups, Cout] and bias [Cout] of a unit's convolution and norm in one."""
  params, statistics = (_at(variables.get(name, {}), path) for name in ('params', 'batch_stats'))
  kernel = params['conv']['kernel']
  if not unit.norm:
    return kernel, params['conv']['bias']
  scale = params['norm']['scale'] / jnp.sqrt(statistics['norm']['var'] + unit.epsilon)
  return kernel * scale, params['norm']['bias'] - statistics['norm']['mean'] * scale


def _at(tree, path):
  for name in path:
    tree = tree.get(name, {})
  return tree


def chain_bound(model: nn.Module, variables: Any, images: jax.Array) -> list[float] | None:
  """Network-level bound over the true distance after each unit of an all-virtual plain VGG.

  Args:
    model: the dense network.
    variables: its variables.
    images: [N, H, W, C], normalised.

  Returns:
    Medians over images, in the units' order; None for networks that are no chain of 3x3 units and
    2x2 max-pools.
  """
  if not isinstance(model, VGG):
    return None
  with jax.enable_x64(True):
    variables, images = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), (variables, images))
    dense = list(bounded_layers(model, variables, images))
    virtual = list(bounded_layers(with_plan(model, 'all'), variables, images))
    local, lipschitz, distances = [], [], []
    for d, v in zip(dense, virtual):
      x = vip.materialize(v.x)
      options = dict(stride=d.stride, padding=d.padding, groups=d.groups, activation=d.activation)
      local.append(bounds.layer_bound(x, d.kernel, d.bias, **options).a_posteriori)
      # A 2x2 max-pool of stride 2 before the unit expands no distance.
      lipschitz.append(bounds.conv_norm(d.kernel, x.shape[1:3], stride=d.stride, groups=d.groups))
      ours, theirs = (_output(d, source) for source in (x, d.x))
      _, height, width, _ = ours.shape
      restored = vip.VirtualMap(ours[:, ::2, ::2], (height, width)).materialize()
      distances.append(jnp.linalg.norm((restored - theirs).reshape(len(images), -1), axis=1))
    whole = bounds.network_bound(jnp.stack(local), jnp.stack(lipschitz))
    # A distance of zero gives a large ratio, not a NaN.
    ratios = np.asarray(whole / jnp.maximum(jnp.stack(distances), 1e-300))
  return [float(np.median(r)) for r in ratios]


def _output(layer: bounds.BoundedLayer, x: jax.Array) -> jax.Array:
  padding = ((layer.padding,) * 2,) * 2
  y = vip.materialize(vip.conv(x, layer.kernel, stride=layer.stride, padding=padding))
  return nn.relu(y + layer.bias)
