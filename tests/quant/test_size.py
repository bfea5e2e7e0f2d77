"""Model sizes against sums done by hand, and widths against exhaustive search."""

import functools

import jax
import jax.numpy as jnp
import pytest

from cnnopt_jax import models, quant
from cnnopt_jax.models import PlainNet
from cnnopt_jax.workload import trace_layers

SHAPE = (12, 12, 1)


@functools.cache
def layers_of(width):
  return models.layer_table(PlainNet(5, width, channels=(8, 12), strides=(2, 1)), SHAPE)


def net(width, **options):
  return quant.plan_weights(layers_of(width), quant.Quantizer(**options))


# 3x3x1x8 and 3x3x8x12 kernels, two norms, a 12x5 head with bias.
WEIGHTS = 72 + 864 + 60
CHANNELS = 8 + 12 + 5
NORMS = 2 * (8 + 12)


@pytest.mark.parametrize(
  'accounting, expected',
  [
    ('stored', (4 * WEIGHTS, 32 * CHANNELS, 32 * 5, 32 * NORMS, 0)),
    ('folded', (4 * WEIGHTS, 32 * 5, 32 * 5, 32 * NORMS, 0)),  # The head's steps: no norm.
    ('weights', (4 * WEIGHTS, 0, 0, 0, 0)),
  ],
)
def test_terms_by_hand(accounting, expected):
  size = quant.model_size(net(1.0), 4, accounting)
  assert tuple(size) == expected
  assert size.total == sum(expected)


def test_one_scale_a_tensor_and_float():
  assert quant.model_size(net(1.0, granularity='layer'), 4).scales == 32 * 3
  size = quant.model_size(net(1.0), 32)
  assert (size.weights, size.scales) == (32 * WEIGHTS, 0)


def test_steps_that_no_norm_takes_count_where_others_fold():
  folded = functools.partial(quant.model_size, accounting='folded')
  assert {leaf.path: leaf.folds for leaf in net(1.0).quantized} == {
    'unit0/conv/kernel': True,
    'unit1/conv/kernel': True,
    'head/dense/kernel': False,
  }
  assert folded(net(1.0, granularity='layer'), 4).scales == 32
  assert folded(net(1.0), {'unit0': 4, 'unit1': 4, 'head': 32}).scales == 0
  bits = quant.bits_by_path(net(1.0), 4)
  totals = [
    quant.plan_table(net(1.0), bits, folded=fold).splitlines()[-1].split()[1]
    for fold in (False, True)
  ]
  assert totals == ['25', '5']
  grouped = net(1.0, group_size=9)
  assert folded(grouped, 4) == quant.model_size(grouped, 4, 'stored')
  by_input = net(1.0, rules=(quant.Rule('unit1', output_axes=2),))  # A step for each of 8 inputs.
  assert folded(by_input, 4).scales == 32 * (8 + 5)
  match = quant.match_width(layers_of, 9_000, 4, 'folded', slack=0.2)
  assert match.size.scales == 32 * 5
  # A bare trace knows of no norm: all steps count as folded, but for those of groups.
  params = {'kernel': jnp.zeros((4, 3))}
  layers = trace_layers(lambda p, x: x @ p['kernel'], params, jnp.zeros((1, 4)))
  assert layers.parameters[0].folds is None
  assert folded(quant.plan_weights(layers), 4).scales == 0
  assert folded(quant.plan_weights(layers, quant.Quantizer(group_size=2)), 4).scales == 32 * 6
  with_biases = models.create('squeezenet1_1', num_classes=3, width_multiplier=0.1)
  assert {p.folds for p in models.layer_table(with_biases, (32, 32, 3)).parameters} == {False}


def test_bits_by_path():
  bits = {'unit0/conv/kernel': 8, 'unit1/conv/kernel': 2, 'head/dense/kernel': 32}
  size = quant.model_size(net(1.0), bits)
  assert size.weights == 8 * 72 + 2 * 864 + 32 * 60
  assert size.scales == 32 * (8 + 12)
  with pytest.raises(ValueError, match='bits has none for'):
    quant.model_size(net(1.0), {'unit0/conv/kernel': 8})
  with pytest.raises(ValueError, match="accounting='all'.*stored"):
    quant.model_size(net(1.0), 2, 'all')


def test_embeddings_count_in_float_and_shared_weights_once():
  params = {'table': jnp.zeros((10, 4)), 'w': jnp.zeros((4, 4))}

  def fn(params, tokens):
    x = params['table'][tokens]
    return x @ params['w'] @ params['w']

  layers = trace_layers(fn, params, jax.ShapeDtypeStruct((3,), jnp.int32))
  size = quant.model_size(quant.plan_weights(layers), 1)
  assert size == quant.ModelSize(weights=16, scales=32 * 4, biases=0, norms=0, others=32 * 40)


@pytest.mark.parametrize('bits, budget', [(1, 20_000), (4, 9_000), (8, 30_000), (32, 64_000)])
def test_match_is_the_widest_that_fits(bits, budget):
  match = quant.match_width(layers_of, budget, bits, slack=0.2, resolution=1 / 16)
  sizes = {k / 16: quant.model_size(net(k / 16), bits).total for k in range(1, 75)}
  assert match.width == max(width for width, size in sizes.items() if size <= budget)
  assert budget / 1.2 <= match.size.total <= budget
  assert match.size == quant.model_size(net(match.width), bits)


def test_budget_that_cannot_be_met_names_the_nearest_sizes():
  with pytest.raises(quant.BudgetError) as error:
    quant.match_width(layers_of, 9_300, 8, slack=1e-6, resolution=1 / 50)
  sizes = [quant.model_size(net(k / 50), 8).total for k in range(30, 55)]
  below = max(size for size in sizes if size <= 9_300)
  above = min(size for size in sizes if size > 9_300)
  assert f'{below} bits' in str(error.value) and f'{above} bits' in str(error.value)
  with pytest.raises(quant.BudgetError, match='nearest'):
    quant.match_width(layers_of, 10, 8)


def test_a_network_that_does_not_grow_is_refused():
  with pytest.raises(quant.BudgetError, match='nearest'):
    quant.match_width(lambda width: layers_of(1.0), 10**6, 8)


def test_bit_operations_by_hand_and_their_match():
  plan, layers = net(1.0), layers_of(1.0)
  macs = [layer.macs for layer in layers]
  assert sum(macs) == layers.macs
  bits = {'unit0/conv/kernel': 8, 'unit1/conv/kernel': 2, 'head/dense/kernel': 32}
  expected = 8 * macs[0] + 2 * macs[1] + 32 * macs[2]
  assert quant.bit_operations(layers, plan, bits, activation_bits=1) == expected
  assert quant.bit_operations(layers, plan, 4) == 32 * 4 * layers.macs
  budget = 32 * 5 * layers.macs
  for few in (1, 4, 8):
    match = quant.match_width(layers_of, budget, few, cost='bit_operations', slack=0.3)
    assert budget / 1.3 <= match.cost <= budget
    assert match.cost == quant.bit_operations(match.layers, match.plan, few)
  with pytest.raises(ValueError, match="cost='macs'; allowed: size, bit_operations"):
    quant.match_width(layers_of, budget, 4, cost='macs')


@pytest.mark.parametrize('accounting', quant.ACCOUNTINGS)
@pytest.mark.parametrize('levels', ['auto', 'mid_tread'])
def test_sizes_of_leaves_add_up(accounting, levels):
  rules = (quant.Rule('unit0', 8),)
  plan = net(1.0, levels=levels, rules=rules)
  choices = (2, 3, 8, 32)
  found = quant.leaf_sizes(plan, choices, accounting)
  assert found.paths == ('head/dense/kernel', 'unit1/conv/kernel') and found.sizes.shape == (2, 4)
  for first in range(4):
    for second in range(4):
      bits = dict(zip(found.paths, (choices[first], choices[second])))
      total = found.rest + found.sizes[0, first] + found.sizes[1, second]
      assert quant.model_size(plan, bits, accounting).total == total


def test_three_levels_are_stored_five_to_a_byte():
  plan = net(1.0, levels='mid_tread')
  assert quant.model_size(plan, 2).weights == 8 * (-(-72 // 5) + -(-864 // 5) + 12)
  assert quant.model_size(plan, 3).weights == 3 * WEIGHTS


def test_operations_of_leaves_add_up():
  layers, plan = layers_of(1.0), net(1.0, rules=(quant.Rule('unit0', 8),))
  found = quant.leaf_operations(layers, plan, (2, 4, 32))
  for first, one in enumerate(found.bits):
    for second, other in enumerate(found.bits):
      bits = dict(zip(found.paths, (one, other)))
      total = found.rest + found.sizes[0, first] + found.sizes[1, second]
      assert quant.bit_operations(layers, plan, bits) == total
