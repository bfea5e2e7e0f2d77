"""Packed arrays and a packed network for the tests, and what it takes for two to be the same."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from cnnopt_jax.quant import bits_by_path, packing
from cnnopt_jax.quant.plan import LeafPlan, Quantizer, WeightPlan, plan_weights
from cnnopt_jax.workload import path_string, trace_layers


def weights(shape=(3, 3, 5, 6), dtype=np.float32, seed=0):
  rng = np.random.default_rng(seed)
  w = rng.standard_t(5, size=shape) * rng.uniform(0.01, 3, size=shape[-1:])
  return jnp.asarray(w, dtype)


def planned(params, axes, stack_axes=0, **options):
  """A plan that quantizes the leaves at the paths of `axes`."""
  leaves = [
    LeafPlan(
      p,
      np.shape(x),
      np.asarray(x).dtype.name,
      'weight',
      axes.get(p),
      stack_axes,
      None,
      None,
      options.get('group_size', 0) if p in axes else 0,
    )
    for p, x in flat(params).items()
  ]
  return WeightPlan(tuple(leaves), Quantizer(**options))


def flat(tree):
  return {path_string(p): x for p, x in jax.tree_util.tree_flatten_with_path(tree)[0]}


def pack_one(w, bits, axes, **options):
  packed = packing.pack({'w': w}, {'w': bits}, planned({'w': w}, {'w': axes}, **options))
  return packed['w'], packing.unpack(packed)['w']


def assert_same_bits(a, b):
  a, b = np.asarray(a), np.asarray(b)
  assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def assert_same_trees(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(assert_same_bits, a, b)


class Net(nn.Module):
  """Regular, depth-wise and dense kernels, a norm and an embedding."""

  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Conv(8, (3, 3), name='stem')(x))
    x = nn.LayerNorm(name='norm')(x)
    x = nn.Conv(8, (3, 3), feature_group_count=8, name='depthwise')(x)
    x = x.mean((1, 2)) + nn.Embed(3, 8, name='embed')(jnp.zeros((x.shape[0],), jnp.int32))
    return nn.Dense(5, name='head')(nn.relu(x))


BITS = {'stem/kernel': 3, 'depthwise/kernel': 8, 'head/kernel': 2}


def apply(params, x):
  return Net().apply({'params': params}, x)


def packed_net(**options):
  """Parameters, their plan, packed parameters, images."""
  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 6, 3)), jnp.float32)
  params = jax.jit(Net().init)(jax.random.key(0), x)['params']
  quantizer = Quantizer(**{'levels': 'mid_tread', 'step': 'gaussian', **options})
  plan = plan_weights(trace_layers(apply, params, x), quantizer)
  packed = packing.pack(params, bits_by_path(plan, BITS), plan)
  return params, plan, packed, x
