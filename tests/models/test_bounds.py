"""Bounds of a network's units: what is bounded is what the network computes."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from cnnopt_jax import models, vip


def test_bounded_layers_are_the_units_with_folded_norms():
  model = models.create('resnet8', num_classes=3, width_multiplier=0.2)
  x = jax.random.normal(jax.random.key(0), (2, 9, 9, 1))
  variables = jax.jit(model.init)(jax.random.key(1), x)
  variables = jax.tree.map(lambda v: v + 0.3, variables)
  layers = list(models.bounded_layers(model, variables, x))
  assert tuple(layer.name for layer in layers) == models.unit_names(model)
  layer, after = layers[0], layers[1]
  got = vip.relu(vip.conv(layer.x, layer.kernel) + layer.bias)
  np.testing.assert_allclose(got, after.x, rtol=1e-5, atol=1e-5)
  assert {layer.activation for layer in layers} == {'relu', 'identity'}
  assert all(math.isfinite(float(jnp.sum(layer.kernel))) for layer in layers)


def test_the_bound_of_a_chain_is_above_its_distance():
  model = models.VGG(num_classes=0, stages=((4, 4), (6,)), norm=False)
  x = jax.random.normal(jax.random.key(0), (2, 12, 12, 3))
  variables = jax.jit(model.init)(jax.random.key(1), x)
  ratios = models.chain_bound(model, variables, x)
  assert len(ratios) == 3 and min(ratios) >= 1


def test_a_network_with_branches_is_no_chain():
  assert models.chain_bound(models.create('resnet8', num_classes=3), {}, None) is None
