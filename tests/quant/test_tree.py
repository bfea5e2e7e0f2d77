"""Quantized parameter trees of foreign models: linen, nnx, Equinox."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from cnnopt_jax.quant import (
  DEFAULT_RULES,
  LEAVE_ALONE,
  Rule,
  bits_by_path,
  fake_quantize,
  quantize_params,
)


class LinenNet(nn.Module):
  """Regular, depth-wise, grouped and dense kernels, norms, biases and an embedding."""

  @nn.compact
  def __call__(self, x):
    x = nn.Conv(8, (3, 3), name='stem')(x)
    x = nn.BatchNorm(use_running_average=True, name='norm')(x)
    x = nn.Conv(8, (3, 3), feature_group_count=8, name='depthwise')(x)
    x = nn.Conv(12, (3, 3), feature_group_count=4, name='grouped')(nn.relu(x))
    x = x.mean((1, 2)) + nn.Embed(3, 12, name='embed')(jnp.zeros((x.shape[0],), jnp.int32))
    return nn.Dense(5, name='head')(x)


IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 6, 3)), jnp.float32)


@pytest.fixture(scope='module')
def net():
  variables = LinenNet().init(jax.random.key(0), IMAGES)
  return variables['params'], variables['batch_stats']


KERNELS = ('stem/kernel', 'depthwise/kernel', 'grouped/kernel', 'head/kernel')


def flat(tree):
  return {
    '/'.join(k.key for k in path): leaf
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
  }


def test_default_quantizes_every_kernel_and_nothing_else(net):
  params, _ = net
  quantized = flat(quantize_params(params, 3))
  for path, leaf in flat(params).items():
    expected = fake_quantize(leaf, 3) if path in KERNELS else leaf
    np.testing.assert_array_equal(quantized[path], expected)
    if path in KERNELS:  # One step, so at most 7 values, an output channel.
      columns = quantized[path].reshape(-1, leaf.shape[-1]).T
      assert all(len(np.unique(column)) <= 7 for column in columns)


def test_first_and_last_by_rule(net):
  params, _ = net
  rules = (
    Rule('^stem/', -1, 8),
    Rule('^head/kernel', LEAVE_ALONE),
    Rule('depthwise/kernel', ()),
    *DEFAULT_RULES,
  )
  quantized = flat(quantize_params(params, 2, rules=rules))
  params = flat(params)
  expected = {
    'stem/kernel': fake_quantize(params['stem/kernel'], 8),
    'head/kernel': params['head/kernel'],
    'depthwise/kernel': fake_quantize(params['depthwise/kernel'], 2, channel_axis=None),
    'grouped/kernel': fake_quantize(params['grouped/kernel'], 2),
  }
  for path, value in expected.items():
    np.testing.assert_array_equal(quantized[path], value)
  # The first rule names the stem's bias too: a vector is a channel a number.
  np.testing.assert_array_equal(quantized['stem/bias'], fake_quantize(params['stem/bias'], 8))
  bits = bits_by_path(net[0], 2, rules=rules)
  assert {bits[path] for path in KERNELS} == {8, 2, 32}
  assert bits['embed/embedding'] == 32 and bits['head/kernel'] == 32


def test_a_tree_of_bits_and_a_prefix_of_it(net):
  params, _ = net
  full = jax.tree.map(lambda _: 4, params)
  full['head']['kernel'] = 1
  full['grouped'] = {'kernel': None, 'bias': None}
  prefix = dict.fromkeys(params, 4) | {'head': 1, 'grouped': None}
  for bits in (full, prefix):
    quantized = flat(quantize_params(params, bits))
    leaves = flat(params)
    np.testing.assert_array_equal(quantized['stem/kernel'], fake_quantize(leaves['stem/kernel'], 4))
    np.testing.assert_array_equal(quantized['head/kernel'], fake_quantize(leaves['head/kernel'], 1))
    np.testing.assert_array_equal(quantized['grouped/kernel'], leaves['grouped/kernel'])
  with pytest.raises(ValueError):
    quantize_params(params, {'stem': 4})


def test_vmap_over_bitwidths_works_as_it_reads(net):
  params, statistics = net

  def loss(params, bits):
    logits = LinenNet().apply(
      {'params': quantize_params(params, bits), 'batch_stats': statistics}, IMAGES
    )
    return jnp.mean(logits**2)

  bits = jnp.asarray([1, 2, 3, 4, 8, 32])
  swept = jax.jit(jax.vmap(loss, in_axes=(None, 0)))(params, bits)
  np.testing.assert_allclose(swept, [loss(params, int(b)) for b in bits], rtol=1e-4)
  grads = jax.vmap(jax.grad(loss), in_axes=(None, 0))(params, bits)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
  one = jax.jit(loss)
  for b in bits:
    one(params, b)
  assert one._cache_size() == 1


def test_nnx():
  model = nnx.Sequential(
    nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0)),
    nnx.BatchNorm(4, use_running_average=True, rngs=nnx.Rngs(1)),
    nnx.Linear(4, 2, rngs=nnx.Rngs(2)),
  )
  graph, params, rest = nnx.split(model, nnx.Param, ...)
  quantized = nnx.merge(graph, quantize_params(params, 2), rest)
  for i in (0, 2):
    original, new = model.layers[i].kernel[...], quantized.layers[i].kernel[...]
    np.testing.assert_array_equal(new, fake_quantize(original, 2))
  np.testing.assert_array_equal(quantized.layers[1].scale[...], model.layers[1].scale[...])
  assert quantized(IMAGES).shape == (2, 6, 6, 2)


def test_equinox_kernels_with_output_channels_first():
  keys = jax.random.split(jax.random.key(0), 3)
  model = eqx.nn.Sequential(
    [
      eqx.nn.Conv2d(3, 4, 3, key=keys[0]),
      eqx.nn.Lambda(jax.nn.relu),
      eqx.nn.Conv2d(4, 4, 3, groups=4, key=keys[1]),
      eqx.nn.Lambda(jnp.ravel),
      eqx.nn.Linear(16, 5, key=keys[2]),
    ]
  )
  quantized = quantize_params(model, 2, rules=(Rule(r'/weight$', 0),))
  for i in (0, 2, 4):
    weight, new = model.layers[i].weight, quantized.layers[i].weight
    np.testing.assert_array_equal(new, fake_quantize(weight, 2, channel_axis=0))
    assert all(len(np.unique(row)) <= 4 for row in new.reshape(len(new), -1))
    np.testing.assert_array_equal(quantized.layers[i].bias, model.layers[i].bias)
  image = IMAGES[0].transpose(2, 0, 1)
  assert np.isfinite(quantized(image)).all()
  grad = eqx.filter_grad(
    lambda m: jnp.sum(quantize_params(m, 2, rules=(Rule(r'/weight$', 0),))(image) ** 2)
  )(model)
  assert np.abs(grad.layers[2].weight).max() > 0


def test_what_is_not_allowed_is_named(net):
  params, _ = net
  with pytest.raises(ValueError, match="rule 'stm' matches no parameter.*stem/kernel"):
    quantize_params(params, 2, rules=(Rule('stm', -1), *DEFAULT_RULES))
  with pytest.raises(ValueError, match=r'head/kernel \(12, 5\): bits=9'):
    quantize_params({'head': params['head']}, 9)
  with pytest.raises(ValueError, match=r'stem/bias \(8,\): channel_axis=3'):
    quantize_params(params, 2, rules=(Rule('stem/bias', 3),))
