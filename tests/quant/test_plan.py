"""What plans say of networks of other libraries, and that quantizer and size go by them."""

import functools

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from jax import lax

from cnnopt_jax import quant
from cnnopt_jax.quant import GAUSSIAN, Rule
from cnnopt_jax.workload import path_string, trace_layers

KEY = jax.random.key(0)

# The step that compiles soonest: which one does not matter here.
Quantizer = functools.partial(quant.Quantizer, step='gaussian')
gaussian = functools.partial(quant.fake_quantize, step='gaussian')


def _linen(module, *inputs):
  variables = module.init(KEY, *inputs)
  params = variables.pop('params')
  return lambda p, *x: module.apply({'params': p, **variables}, *x), params, inputs


class _Convolutions(nn.Module):
  """Regular, depth-wise, grouped, dilated kernels and norms."""

  @nn.compact
  def __call__(self, x):
    x = nn.BatchNorm(use_running_average=True, name='norm')(nn.Conv(8, (3, 3), name='stem')(x))
    x = nn.Conv(8, (3, 3), feature_group_count=8, name='depthwise')(nn.relu(x))
    x = nn.Conv(12, (3, 3), feature_group_count=4, name='grouped')(x)
    x = nn.WeightNorm(nn.Conv(6, (3, 3), kernel_dilation=2, name='dilated'), name='weight_norm')(x)
    return nn.Dense(5, name='head')(x.mean((1, 2)))


class _Block(nn.Module):
  @nn.compact
  def __call__(self, x, _):
    return x + nn.Dense(12)(nn.relu(nn.Dense(24)(nn.LayerNorm()(x)))), None


class _Stack(nn.Module):
  @nn.compact
  def __call__(self, x):
    stack = nn.scan(_Block, variable_axes={'params': 0}, split_rngs={'params': True}, length=3)
    return stack(name='stack')(x, None)[0]


class _Tied(nn.Module):
  @nn.compact
  def __call__(self, tokens):
    table = nn.Embed(10, 4, name='table')
    return table.attend(nn.Dense(4, name='dense')(table(tokens)))


class _Nnx(nnx.Module):
  def __init__(self):
    rngs = nnx.Rngs(0)
    self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
    self.norm = nnx.BatchNorm(4, use_running_average=True, rngs=rngs)
    self.heads = nnx.LinearGeneral(4, (3, 5), rngs=rngs)

  def __call__(self, x):
    return self.heads(self.norm(self.conv(x)).mean((1, 2)))


def _nnx():
  graph, params, rest = nnx.split(_Nnx(), nnx.Param, ...)
  return lambda p, x: nnx.merge(graph, p, rest)(x), params, (jnp.ones((2, 6, 6, 3)),)


class _Equinox(eqx.Module):
  layers: list

  def __init__(self):
    keys = jax.random.split(KEY, 4)
    self.layers = [
      eqx.nn.Conv2d(3, 4, 3, key=keys[0]),
      eqx.nn.GroupNorm(2, 4),
      eqx.nn.Conv2d(4, 4, 3, groups=2, key=keys[1]),
      eqx.nn.ConvTranspose2d(4, 6, 3, key=keys[2]),
      jnp.ravel,
      eqx.nn.Linear(216, 5, key=keys[3]),
      eqx.nn.LayerNorm(5),
    ]

  def __call__(self, x):
    for layer in self.layers:
      x = layer(x)
    return x


def _haiku():
  def network(x):
    x = hk.LayerNorm(-1, True, True)(hk.Conv2D(4, 3)(x))
    x = hk.DepthwiseConv2D(2, 3)(x)
    return hk.Linear(5)(x.mean((1, 2)))

  transformed = hk.without_apply_rng(hk.transform(network))
  image = jnp.ones((2, 6, 6, 3))
  return transformed.apply, transformed.init(KEY, image), (image,)


def _torch_layout():
  """Kernels [out, in, h, w] and [out, in], as a port of a PyTorch network has them."""

  def apply(p, x):
    numbers = ('NCHW', 'OIHW', 'NCHW')
    x = lax.conv_general_dilated(x, p['conv']['weight'], (1, 1), 'SAME', dimension_numbers=numbers)
    x = x * p['bn']['weight'][:, None, None] + p['bn']['bias'][:, None, None]
    return x.mean((2, 3)) @ p['fc']['weight'].T + p['fc']['bias']

  shapes = {
    'conv': {'weight': (8, 3, 3, 3)},
    'bn': {'weight': (8,), 'bias': (8,)},
    'fc': {'weight': (5, 8), 'bias': (5,)},
  }
  draw = np.random.default_rng(0).normal
  params = jax.tree.map(
    lambda s: jnp.asarray(draw(size=s), jnp.float32), shapes, is_leaf=lambda s: isinstance(s, tuple)
  )
  return apply, params, (jnp.ones((2, 3, 6, 6)),)


def _members():
  """Five networks of one shape under `vmap`."""
  conv = nn.Conv(6, (3, 3))
  x = jnp.ones((5, 1, 8, 8, 4))
  params = jax.vmap(lambda key: conv.init(key, x[0]))(jax.random.split(KEY, 5))['params']
  return lambda p, x: jax.vmap(lambda p, x: conv.apply({'params': p}, x))(p, x), params, (x,)


def _complex():
  dense = nn.Dense(3, dtype=jnp.complex64, param_dtype=jnp.complex64)
  return _linen(dense, jnp.ones((2, 4), jnp.complex64))


def _bare():
  layer = eqx.nn.Linear(4, 5, key=KEY)
  return lambda layer, x: jax.vmap(layer)(x), layer, (jnp.ones((2, 4)),)


HEADS = {f'{name}/kernel': (1, 2) for name in ('query', 'key', 'value')}

# For each network how it is made, and by hand the output axes of all that is to be quantized.
LAYOUTS = {
  'linen, convolutions': (
    lambda: _linen(_Convolutions(), jnp.ones((2, 9, 9, 3))),
    {f'{name}/kernel': (3,) for name in ('stem', 'depthwise', 'grouped', 'dilated')}
    | {'head/kernel': (1,)},
  ),
  'linen, transposed kernel': (
    lambda: _linen(nn.ConvTranspose(6, (3, 3), transpose_kernel=True), jnp.ones((1, 8, 8, 4))),
    {'kernel': (2,)},
  ),
  'linen, transposed convolution': (
    lambda: _linen(nn.ConvTranspose(6, (3, 3), strides=(2, 2)), jnp.ones((1, 8, 8, 4))),
    {'kernel': (3,)},
  ),
  'linen, 1-D': (lambda: _linen(nn.Conv(8, (3,)), jnp.ones((1, 8, 4))), {'kernel': (2,)}),
  'linen, 3-D': (
    lambda: _linen(nn.Conv(8, (3, 3, 3)), jnp.ones((1, 4, 4, 4, 2))),
    {'kernel': (4,)},
  ),
  'linen, attention': (
    lambda: _linen(nn.MultiHeadDotProductAttention(4, qkv_features=16), jnp.ones((1, 5, 12))),
    HEADS | {'out/kernel': (2,)},
  ),
  'linen, dense over two axes': (
    lambda: _linen(nn.DenseGeneral((4, 8), axis=(-2, -1)), jnp.ones((2, 5, 12))),
    {'kernel': (2, 3)},
  ),
  'linen, stack': (
    lambda: _linen(_Stack(), jnp.ones((2, 12))),
    {'stack/Dense_0/kernel': (0, 2), 'stack/Dense_1/kernel': (0, 2)},
  ),
  'linen, recurrent': (
    lambda: _linen(nn.RNN(nn.GRUCell(6)), jnp.ones((2, 5, 4))),
    {f'cell/{name}/kernel': (1,) for name in ('hn', 'hr', 'hz', 'in', 'ir', 'iz')},
  ),
  'linen, tied embedding': (
    lambda: _linen(_Tied(), jnp.ones((2, 5), jnp.int32)),
    {'dense/kernel': (1,)},
  ),
  'linen, complex': (_complex, {}),
  'linen, members': (_members, {'kernel': (0, 4)}),
  'nnx': (_nnx, {'conv/kernel': (3,), 'heads/kernel': (1, 2)}),
  'equinox': (
    lambda: (lambda net, x: net(x), _Equinox(), (jnp.ones((3, 8, 8)),)),
    {f'layers/{i}/weight': (0,) for i in (0, 2, 3, 5)},
  ),
  'equinox, bare': (_bare, {'weight': (0,)}),
  'haiku': (
    _haiku,
    {'conv2_d/w': (3,), 'depthwise_conv2_d/w': (3,), 'linear/w': (1,)},
  ),
  'PyTorch layout': (_torch_layout, {'conv/weight': (0,), 'fc/weight': (0,)}),
}


@pytest.mark.parametrize('name', LAYOUTS)
def test_steps_used_are_steps_counted(name):
  make, expected = LAYOUTS[name]
  apply, params, inputs = make()
  plan = quant.plan_weights(trace_layers(apply, params, *inputs), GAUSSIAN)
  assert {leaf.path: leaf.output_axes for leaf in plan.quantized} == expected
  quantized = quant.quantize_params(params, 2, plan)
  steps = 0
  old, new = (jax.tree_util.tree_flatten_with_path(tree)[0] for tree in (params, quantized))
  for (path, before), (_, after) in zip(old, new, strict=True):
    path = path_string(path)
    if path not in expected:  # Norms, biases, embeddings, functions: the same object.
      assert after is before, path
      continue
    axes = expected[path]
    np.testing.assert_array_equal(after, gaussian(before, 2, channel_axis=axes))
    # At most four levels for each output feature, and steps as many as features.
    rows = np.moveaxis(np.asarray(after), axes, range(len(axes)))
    rows = rows.reshape(int(np.prod(rows.shape[: len(axes)])), -1)
    assert all(len(np.unique(row)) <= 4 for row in rows)
    steps += len(rows)
  assert quant.model_size(plan, 2).scales == 32 * steps
  assert sum(leaf.steps for leaf in plan.leaves) == steps
  result = apply(quantized, *inputs)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result))


def test_roles_of_a_stack_and_of_an_embedding():
  apply, params, inputs = LAYOUTS['linen, stack'][0]()
  roles = {p.path: p.role for p in trace_layers(apply, params, *inputs).parameters}
  assert roles['stack/LayerNorm_0/scale'] == roles['stack/LayerNorm_0/bias'] == 'norm'
  assert roles['stack/Dense_0/bias'] == 'bias'
  apply, params, inputs = LAYOUTS['linen, tied embedding'][0]()
  plan = quant.plan_weights(trace_layers(apply, params, *inputs), GAUSSIAN)
  size = quant.model_size(plan, 4)
  assert size.others == 32 * 40 and size.weights == 4 * 16
  by_hand = quant.plan_weights(
    trace_layers(apply, params, *inputs), Quantizer((Rule('table/embedding', 4, 0),))
  )
  size = quant.model_size(by_hand, 8)
  assert size.others == 4 * 40 and size.scales == 32 * (10 + 4)
  quantized = quant.quantize_params(params, 8, by_hand)['table']['embedding']
  expected = gaussian(params['table']['embedding'], 4, channel_axis=0)
  np.testing.assert_array_equal(quantized, expected)


def test_heads_of_unlike_scale_keep_their_precision():
  apply, params, inputs = LAYOUTS['linen, attention'][0]()
  params['query']['kernel'] *= jnp.asarray([1.0, 1e-3, 1e-3, 1e-3])[:, None]
  plan = quant.plan_weights(trace_layers(apply, params, *inputs), GAUSSIAN)
  kernel = params['query']['kernel']
  error = quant.quantize_params(params, 4, plan)['query']['kernel'] - kernel
  relative = jnp.linalg.norm(error, axis=(0, 2)) / jnp.linalg.norm(kernel, axis=(0, 2))
  assert relative.max() < 0.2


def test_a_stack_takes_a_bitwidth_for_each_layer():
  apply, params, inputs = LAYOUTS['linen, stack'][0]()
  plan = quant.plan_weights(trace_layers(apply, params, *inputs), GAUSSIAN)
  bits = {'stack/Dense_0': jnp.asarray([2, 4, 32]), 'stack/Dense_1': 8}
  quantized = jax.jit(lambda p, b: quant.quantize_params(p, b, plan))(params, bits)
  for name, layers in (('Dense_0', (2, 4, 32)), ('Dense_1', (8, 8, 8))):
    kernel = params['stack'][name]['kernel']
    expected = [gaussian(kernel[i], b) for i, b in enumerate(layers)]
    np.testing.assert_allclose(quantized['stack'][name]['kernel'], expected, rtol=1e-6)
  size = quant.model_size(plan, bits)
  elements, channels = 12 * 24, (12, 24)  # Dense_0 has 12 features, Dense_1 24.
  assert size.weights == elements * (2 + 4 + 32) + elements * 3 * 8
  assert size.scales == 32 * (2 * channels[0] + 3 * channels[1])
  with pytest.raises(
    ValueError, match=r"bits\['stack/Dense_1'\] has shape \(2,\); allowed: .*\[3\]"
  ):
    quant.quantize_params(params, {**bits, 'stack/Dense_1': jnp.asarray([2, 4])}, plan)


def _net():
  apply, params, inputs = LAYOUTS['linen, convolutions'][0]()
  return params, trace_layers(apply, params, *inputs)


def test_rules_of_first_and_last_layer():
  params, layers = _net()
  rules = (
    Rule('stem', 8),
    Rule('head', 32),
    Rule('depthwise/kernel', output_axes=()),
    Rule('stem/bias', 3, 0),
  )
  plan = quant.plan_weights(layers, Quantizer(rules))
  quantized = quant.quantize_params(params, 2, plan)
  expected = {
    'stem': gaussian(params['stem']['kernel'], 8),
    'head': params['head']['kernel'],
    'depthwise': gaussian(params['depthwise']['kernel'], 2, channel_axis=None),
    'grouped': gaussian(params['grouped']['kernel'], 2),
  }
  for name, value in expected.items():
    np.testing.assert_array_equal(quantized[name]['kernel'], value)
  bias = gaussian(params['stem']['bias'], 3, channel_axis=0)
  np.testing.assert_array_equal(quantized['stem']['bias'], bias)
  bits = quant.bits_by_path(plan, 2)
  assert [bits[f'{name}/kernel'] for name in expected] == [8, 32, 2, 2]
  assert bits['stem/bias'] == 3 and bits['norm/scale'] == 32
  size = quant.model_size(plan, 2)
  dilated = 3 * 3 * 12 * 6
  assert size.weights == 8 * 216 + 32 * 30 + 2 * (72 + 216 + dilated)
  assert size.scales == 32 * (8 + 8 + 1 + 12 + 6)
  assert size.biases == 3 * 8 + 32 * (8 + 12 + 6 + 5)
  # The network that is float throughout, the bitwidth traced or not.
  for whole in (quant.quantize_params(params, 32, plan), quant.quantize_params(params, None, plan)):
    jax.tree.map(np.testing.assert_array_equal, whole, params)
  traced = jax.jit(lambda p, b: quant.quantize_params(p, b, plan))
  jax.tree.map(np.testing.assert_array_equal, traced(params, 32), params)
  assert quant.model_size(plan, 32).scales == 0
  assert traced(params, 2)['head']['kernel'].tolist() == params['head']['kernel'].tolist()


def test_layer_granularity():
  params, layers = _net()
  plan = quant.plan_weights(layers, Quantizer(granularity='layer', step='absmax'))
  assert all(leaf.output_axes == () for leaf in plan.quantized)
  assert quant.model_size(plan, 4).scales == 32 * 5
  kernel = params['grouped']['kernel']
  np.testing.assert_array_equal(
    quant.quantize_params(params, 4, plan)['grouped']['kernel'],
    gaussian(kernel, 4, channel_axis=None, step='absmax'),
  )
  apply, params, inputs = LAYOUTS['linen, stack'][0]()
  stack = quant.plan_weights(trace_layers(apply, params, *inputs), Quantizer(granularity='layer'))
  assert {leaf.output_axes for leaf in stack.quantized} == {(0,)}  # A step for each of its layers.


def test_names_are_whole_parts_of_paths():
  params = {f'Conv_{i}': {'kernel': jnp.ones((4, 4))} for i in range(12)}

  def apply(p, x):
    for i in range(12):
      x = x @ p[f'Conv_{i}']['kernel']
    return x

  layers = trace_layers(apply, params, jnp.ones((2, 4)))
  plan = quant.plan_weights(layers, Quantizer((Rule('Conv_1', 8),)))
  assert [leaf.path for leaf in plan.leaves if leaf.bits == 8] == ['Conv_1/kernel']
  plan = quant.plan_weights(layers, Quantizer((Rule(r'Conv_1\d?', 8),)))
  assert sum(leaf.bits == 8 for leaf in plan.leaves) == 3


@pytest.mark.parametrize(
  'rules, message',
  [
    ((Rule('stm'),), "rule 'stm' matches no parameter.*stem/kernel"),
    (
      (Rule('stem', 4), Rule('stem/kernel', 8)),
      "'stem/kernel' decides nothing: .*'stem' before it",
    ),
    ((Rule('norm', 8),), "'norm' matches no weight; .*name it to the end of its path"),
    ((Rule('stem/bias', 8, 3),), r"'stem/bias': output_axes=3; allowed: axes of stem/bias \(8,\)"),
    ((Rule('stem', 9),), "rule 'stem': bits=9; allowed: an integer, 1 to 8, or 32"),
    ((Rule('(', 4),), r"rule '\(': no regular expression"),
  ],
)
def test_rules_that_decide_nothing_are_named(rules, message):
  with pytest.raises(ValueError, match=message):
    quant.plan_weights(_net()[1], Quantizer(rules))


def test_axes_that_the_program_does_not_tell_are_asked_for():
  layers = trace_layers(
    lambda p, x: x @ p['w'].reshape(4, 6), {'w': jnp.ones(24)}, jnp.ones((1, 4))
  )
  with pytest.raises(ValueError, match=r'w \(24,\): the program does not tell.*output_axes'):
    quant.plan_weights(layers, GAUSSIAN)
  plan = quant.plan_weights(layers, Quantizer((Rule('w', output_axes=()),)))
  assert plan.leaves[0].steps == 1


def test_trees_that_are_not_the_plans_are_refused():
  params, layers = _net()
  plan = quant.plan_weights(layers, GAUSSIAN)
  with pytest.raises(ValueError, match="params has no 'stem/bias'"):
    quant.quantize_params({k: v for k, v in params.items() if k != 'stem'}, 2, plan)
  with pytest.raises(ValueError, match=r'head/kernel has shape \(7, 5\); allowed: \(6, 5\)'):
    quant.quantize_params(
      {**params, 'head': {**params['head'], 'kernel': jnp.ones((7, 5))}}, 2, plan
    )


def test_the_table_has_all_leaves_and_totals():
  _, layers = _net()
  plan = quant.plan_weights(layers, Quantizer((Rule('stem', 8),)))
  bits = quant.bits_by_path(plan, 2)
  table = quant.plan_table(plan, bits)
  lines = table.splitlines()
  assert len(lines) == len(plan.leaves) + 2
  stem = next(line.split() for line in lines if line.startswith('stem/kernel'))
  assert stem == ['stem/kernel', '3x3x3x8', 'weight', '3', '8', 'stem', '8', '216']
  weights = {leaf.path: leaf.size for leaf in plan.quantized}
  average = sum(bits[path] * size for path, size in weights.items()) / sum(weights.values())
  assert quant.average_bits(plan, bits) == pytest.approx(average)
  assert f'{average:.3g}' in lines[-1]
