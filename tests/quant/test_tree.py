"""Quantized parameter trees: bits as numbers, trees and paths, transforms, devices."""

import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec

from cnnopt_jax import quant
from cnnopt_jax.quant import GAUSSIAN, Quantizer, Rule, fake_quantize, quantize_params
from cnnopt_jax.workload import trace_layers


class Net(nn.Module):
  """Three kernels, a norm and biases."""

  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.LayerNorm(name='norm')(nn.Conv(8, (3, 3), name='stem')(x)))
    x = nn.relu(nn.Conv(12, (3, 3), feature_group_count=4, name='grouped')(x))
    return nn.Dense(5, name='head')(x.mean((1, 2)))


IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 6, 3)), jnp.float32)
gaussian = functools.partial(fake_quantize, step='gaussian')

KERNELS = ('stem/kernel', 'grouped/kernel', 'head/kernel')


def apply(params, images):
  return Net().apply({'params': params}, images)


@pytest.fixture(scope='module')
def params():
  return Net().init(jax.random.key(0), IMAGES)['params']


@pytest.fixture(scope='module')
def plan(params):
  return quant.plan_weights(trace_layers(apply, params, IMAGES), GAUSSIAN)


def test_a_tree_of_bits_a_prefix_of_it_and_a_dict_by_path(params, plan):
  full = jax.tree.map(lambda _: 4, params)
  full['head']['kernel'] = 1
  full['grouped'] = {'kernel': None, 'bias': None}
  prefix = dict.fromkeys(params, 4) | {'head': 1, 'grouped': None}
  by_path = {'stem/kernel': 4, 'head/kernel': np.int64(1), 'grouped/kernel': 32}
  for bits in (full, prefix, by_path, flax.core.freeze(full)):
    quantized = quantize_params(params, bits, plan)
    for name, few in (('stem', 4), ('head', 1)):
      np.testing.assert_array_equal(
        quantized[name]['kernel'], gaussian(params[name]['kernel'], few)
      )
    assert quantized['grouped']['kernel'] is params['grouped']['kernel']
    assert quantized['norm']['scale'] is params['norm']['scale']
    found = quant.bits_by_path(plan, bits)
    assert [found[path] for path in KERNELS] == [4, 32, 1] and found['norm/scale'] == 32
    assert quant.model_size(plan, bits).weights == 4 * 216 + 32 * 216 + 60
  frozen = quantize_params(flax.core.freeze(params), by_path, plan)
  np.testing.assert_array_equal(frozen['head']['kernel'], quantized['head']['kernel'])


def test_vmap_over_bitwidths_works_as_it_reads(params, plan):
  def loss(params, bits):
    return jnp.mean(apply(quantize_params(params, bits, plan), IMAGES) ** 2)

  bits = jnp.asarray([1, 2, 3, 4, 8, 32])
  swept = jax.jit(jax.vmap(loss, in_axes=(None, 0)))(params, bits)
  np.testing.assert_allclose(swept, [loss(params, int(b)) for b in bits], rtol=1e-4)
  grads = jax.vmap(jax.grad(loss), in_axes=(None, 0))(params, bits)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
  one = jax.jit(loss)
  for b in bits:
    one(params, b)
  assert one._cache_size() == 1
  with pytest.raises(TypeError, match='int'):
    jax.grad(loss, argnums=1)(params, 4)


def test_of_a_rule_and_a_traced_bitwidth(params):
  layers = trace_layers(apply, params, IMAGES)
  plan = quant.plan_weights(layers, Quantizer((Rule('stem', 2),), step='gaussian'))
  eight = jax.jit(lambda p, b: quantize_params(p, b, plan))(params, 8)
  np.testing.assert_allclose(
    eight['stem']['kernel'], gaussian(params['stem']['kernel'], 2), rtol=1e-6
  )
  np.testing.assert_allclose(
    eight['head']['kernel'], gaussian(params['head']['kernel'], 8), rtol=1e-6
  )


@pytest.mark.parametrize(
  'bits, message',
  [
    (0, 'bits=0; allowed: an integer, 1 to 8, or 32'),
    (9, 'bits=9; allowed'),
    (-3, 'bits=-3; allowed'),
    (4.9, 'bits=4.9; allowed'),
    (4.0, 'bits=4.0; allowed'),
    (True, 'bits=True; allowed'),
    (np.True_, 'bits=.*True.*; allowed'),
    ('4', "bits='4'; allowed"),
    (jnp.asarray(9), 'bits=9; allowed'),
    (jnp.float32(4), r'bits is float32\[\]; allowed: an integer'),
    (jnp.asarray([4]), r'bits has shape \(1,\); allowed: a scalar'),
    ({'stem': 4, 'grouped': 4}, "bits has none for 'head/kernel'"),
    ({'stm': 4}, r"bits\['stm'\] names no parameter; allowed: .*stem/kernel"),
    ({'stem': 0, 'grouped': 4, 'head': 4}, r"bits\['stem'\]=0; allowed"),
  ],
)
def test_bits_that_are_none_are_named(params, plan, bits, message):
  with pytest.raises(ValueError, match=message):
    quantize_params(params, bits, plan)
  with pytest.raises(ValueError, match=message):
    quant.model_size(plan, bits)


def _over_two(function, *specs, **options):
  auto = (jax.sharding.AxisType.Auto,)
  mesh = jax.make_mesh((2,), ('split',), axis_types=auto, devices=jax.devices()[:2])
  mapped = jax.shard_map(function, mesh=mesh, in_specs=specs[:1], out_specs=specs[1], **options)
  return jax.jit(mapped)


@pytest.mark.parametrize('step', ['gaussian', 'absmax'])
@pytest.mark.parametrize('bits', [1, 2, 4])
def test_steps_of_a_kernel_split_over_devices_are_those_of_the_whole(step, bits):
  kernel = jnp.asarray(np.random.default_rng(1).normal(size=(3, 3, 8, 6)), jnp.float32)
  kernel *= jnp.linspace(0.1, 3, 8)[:, None]
  quantize = functools.partial(fake_quantize, bits=bits, step=step)
  inputs, outputs = PartitionSpec(None, None, 'split'), PartitionSpec(None, None, None, 'split')
  whole = quantize(kernel)
  by_input = _over_two(lambda w: quantize(w, axis_name='split'), inputs, inputs)(kernel)
  np.testing.assert_allclose(by_input, whole, rtol=1e-5)
  by_output = _over_two(lambda w: quantize(w, axis_name=()), outputs, outputs)(kernel)
  np.testing.assert_allclose(by_output, whole, rtol=1e-5)
  with pytest.raises(ValueError, match='axis_name=None for an array .* mesh axes split'):
    _over_two(quantize, inputs, inputs)(kernel)
  with pytest.raises(ValueError, match="step='mse' with axis_name='split'"):
    gaussian(kernel, 4, step='mse', axis_name='split')


def test_a_tree_split_over_devices():
  params = {'kernel': jnp.asarray(np.random.default_rng(2).normal(size=(8, 6)), jnp.float32)}
  layers = trace_layers(lambda p, x: x @ p['kernel'], params, jnp.ones((2, 8)))
  plan = quant.plan_weights(layers, GAUSSIAN)
  spec = {'kernel': PartitionSpec('split')}

  def local(params):
    return quantize_params(params, 3, plan, axis_name='split')

  found = _over_two(local, spec, spec)(params)
  np.testing.assert_allclose(found['kernel'], gaussian(params['kernel'], 3), rtol=1e-5)
  # Shards are told by their shape, whether JAX knows what differs between devices or not.
  with pytest.raises(ValueError, match=r'kernel has shape \(4, 6\); allowed: \(8, 6\).*axis_name'):
    _over_two(lambda p: quantize_params(p, 3, plan), spec, spec, check_vma=False)(params)
