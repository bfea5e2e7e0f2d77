"""What plans say of networks of other libraries, and that quantizer and size go by them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax import quant
from cnnopt_jax.quant import GAUSSIAN, Rule
from cnnopt_jax.workload import path_string, trace_layers
from tests.quant.layouts import LAYOUTS

# The step that compiles soonest: which one does not matter here.
Quantizer = functools.partial(quant.Quantizer, step='gaussian')
gaussian = functools.partial(quant.fake_quantize, step='gaussian')


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
