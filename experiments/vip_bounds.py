"""The error bound of every unit of a trained network, on real images."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from cnnopt_jax import data, models, vip
from cnnopt_jax.models import ConvUnit
from cnnopt_jax.vip import bounds

# An activation of a unit, as the bound names it.
_NAMES = {nn.relu: 'relu', nn.relu6: 'relu6', None: 'identity'}


def bounded_layers(
  model: nn.Module, variables: Any, images: jax.Array
) -> Iterator[bounds.BoundedLayer]:
  """Every conv unit with its dense input; norms are folded into kernels and biases.

  Args:
    model: a dense network of `cnnopt_jax.models`.
    variables: its variables.
    images: [N, H, W, C], normalised.

  Yields:
    The units, in the network's order.
  """
  calls = []

  def record(call, args, kwargs, context):
    if isinstance(context.module, ConvUnit) and context.method_name == '__call__':
      unit = context.module
      calls.append((unit.path, args[0], unit))
    return call(*args, **kwargs)

  with nn.intercept_methods(record):
    model.apply(variables, images)
  for path, x, unit in calls:
    params, statistics = (_at(variables.get(name, {}), path) for name in ('params', 'batch_stats'))
    kernel = params['conv']['kernel']
    if unit.norm:
      scale = params['norm']['scale'] / jnp.sqrt(statistics['norm']['var'] + unit.epsilon)
      kernel = kernel * scale
      bias = params['norm']['bias'] - statistics['norm']['mean'] * scale
    else:
      bias = params['conv']['bias']
    padding = {p for side in unit.padding or ((unit.kernel_size // 2,) * 2,) * 2 for p in side}
    if len(padding) == 1:  # The bound is for equal padding on all sides.
      yield bounds.BoundedLayer(
        '/'.join(path), x, kernel, bias, unit.stride, *padding, unit.groups, _NAMES[unit.activation]
      )


def _at(tree, path):
  for name in path:
    tree = tree.get(name, {})
  return tree


def measure(run, state) -> dict[str, Any]:
  """Bounds of every unit of the first member, and of the chain where the units are one."""
  images, _ = run.dataset.test.get(np.arange(run.config.bound_images))
  images = data.normalize(images, run.dataset.mean, run.dataset.std)
  variables, rows = run.members(state)[0], []
  with run.progress.stage('error bound of each unit', len(run.units)) as at:
    for layer in bounded_layers(run.model, variables, images):
      rows += bounds.bound_report([layer])
      at(len(rows))
  return dict(
    rows=[{k: None if v != v else v for k, v in row._asdict().items()} for row in rows],
    chain=chain_bound(run.model, variables, images),
  )


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
  if not isinstance(model, models.VGG):
    return None
  with jax.enable_x64(True):
    wide = lambda tree: jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), tree)
    variables, images = wide(variables), wide(images)
    dense = list(bounded_layers(model, variables, images))
    virtual = list(bounded_layers(models.with_plan(model, 'all'), variables, images))
    local, lipschitz, distances = [], [], []
    for d, v in zip(dense, virtual):
      x = vip.materialize(v.x)
      options = dict(stride=d.stride, padding=d.padding, groups=d.groups, activation=d.activation)
      local.append(bounds.layer_bound(x, d.kernel, d.bias, **options).a_posteriori)
      # A 2x2 max-pool of stride 2 before the unit expands no distance.
      lipschitz.append(bounds.conv_norm(d.kernel, x.shape[1:3], stride=d.stride, groups=d.groups))
      ours, theirs = (_output(d, source) for source in (x, d.x))
      restored = vip.VirtualMap(ours[:, ::2, ::2], ours.shape[1:3]).materialize()
      distances.append(jnp.linalg.norm((restored - theirs).reshape(len(images), -1), axis=1))
    whole = bounds.network_bound(jnp.stack(local), jnp.stack(lipschitz))
    ratios = np.asarray(whole / jnp.maximum(jnp.stack(distances), 1e-300))
  return [float(np.median(r)) for r in ratios]


def _output(layer: bounds.BoundedLayer, x: jax.Array) -> jax.Array:
  padding = ((layer.padding,) * 2,) * 2
  return nn.relu(vip.conv(x, layer.kernel, stride=layer.stride, padding=padding) + layer.bias)
