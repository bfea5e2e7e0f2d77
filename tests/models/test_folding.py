"""Steps folded into norms: the same network, in levels one apart, in the bytes counted."""

import functools
import types

import jax
import numpy as np
import pytest

from cnnopt_jax import models, quant
from tests.quant.packed import assert_same_bits, assert_same_trees, flat

SHAPE = (8, 8, 3)
# A few channels a layer, and one block a stage of the deepest.
SMALL = {
  'plain': dict(width_multiplier=0.25),
  'ir_resnet8': dict(width_multiplier=0.25),
  'resnet50': dict(width_multiplier=0.05, blocks=(1, 1, 1, 1)),
}


@functools.cache
def network(name, dtype='float32'):
  """A network with norms that do something, images and its compiled inference."""
  model = models.create(name, num_classes=3).clone(**SMALL[name])
  rng = np.random.default_rng(0)
  spread = {'kernel': 1, 'scale': 0.3, 'mean': 0.5, 'var': 0.2, 'bias': 0.3}

  def drawn(path, leaf):
    kind = path[-1].key
    centre = 1 if kind in ('scale', 'var') else 0
    size = spread[kind] * (np.prod(leaf.shape[:-1]) ** -0.5 if kind == 'kernel' else 1)
    return np.asarray(centre + size * rng.uniform(-1.7, 1.7, leaf.shape), dtype)

  abstract = models.abstract_variables(model, SHAPE)
  variables = jax.tree_util.tree_map_with_path(drawn, abstract)
  images = rng.normal(size=(2, *SHAPE)).astype(dtype)
  apply = jax.jit(lambda variables: model.apply(variables, images))
  return types.SimpleNamespace(model=model, variables=variables, apply=apply)


def folded(net, bits, variables=None, steps=None, **options):
  """Variables with stepped weights and with folded ones, packed both."""
  variables = variables or net.variables
  plan = models.weight_plan(net.model, SHAPE, quant.Quantizer(**{'step': 'absmax', **options}))
  statistics = {'batch_stats': variables['batch_stats']}
  if plan.quantizer.learns and steps is None:
    steps = quant.initial_steps(variables['params'], bits, plan)
  packed = quant.pack(variables['params'], bits, plan, steps)
  return plan, (packed, statistics), models.fold_steps(packed, statistics, plan)


def logits(net, packed, statistics):
  return np.asarray(net.apply({'params': quant.unpack_on_host(packed), **statistics}))


LEARNED = {'step': 'learned', 'levels': 'mid_rise'}
CASES = [('plain', bits, {}, dtype) for bits in (1, 2, 3, 8) for dtype in ('float32', 'float64')]
CASES += [('plain', bits, {'granularity': 'layer'}, 'float32') for bits in (1, 3)]
CASES += [('plain', bits, LEARNED, 'float64') for bits in (2, 8)]
CASES += [('ir_resnet8', 8, {'step': 'learned'}, 'float32'), ('ir_resnet8', 1, {}, 'float64')]
CASES += [('resnet50', 3, {}, 'float32')]


@pytest.mark.parametrize('name, bits, options, dtype', CASES)
def test_a_folded_network_computes_the_same(name, bits, options, dtype):
  with jax.enable_x64(dtype == 'float64'):
    net = network(name, dtype)
    plan, stepped, (packed, statistics) = folded(net, bits, **options)
    expected = logits(net, *stepped)
    # A rounding or two of each norm, carried on from layer to layer.
    allowed = 30 * np.finfo(dtype).eps * np.abs(expected).max()
    np.testing.assert_allclose(logits(net, packed, statistics), expected, rtol=0, atol=allowed)
  assert not np.array_equal(logits(net, packed, stepped[1]), expected)  # Not without its means.
  halves = packed['head/dense/kernel'].levels == 'mid_rise'
  for path, leaf in packed.items():
    if path.endswith('conv/kernel'):
      assert leaf.steps is None and leaf.codes is stepped[0][path].codes
      levels = np.asarray(quant.packing.leaves.unpacked_on_host(leaf), np.float64) + halves / 2
      np.testing.assert_array_equal(levels, np.round(levels))
      assert np.abs(levels - halves / 2).max() <= 2 ** (bits - 1)
  assert packed['head/dense/kernel'] is stepped[0]['head/dense/kernel']
  size, counted = quant.file_size(packed), quant.model_size(plan, bits, 'folded')
  if dtype == 'float32':
    assert size.steps == counted.scales / 8
    assert size.total - size.header <= counted.total / 8 + len(packed.paths)
    assert size.steps < quant.file_size(stepped[0]).steps


@pytest.mark.parametrize('bits', [2, 3])
def test_channels_of_zeros_and_steps_of_any_kind(bits):
  """Also where zero is no level: nothing of what such a channel's levels give comes through."""
  net = network('plain')
  variables = jax.tree.map(np.array, net.variables)
  variables['params']['unit1']['conv']['kernel'][..., :2] = 0
  variables['params']['unit2']['conv']['kernel'][..., 1] *= 1e-30
  variables['batch_stats']['unit1']['norm']['mean'][:2] = 0, 3
  plan, stepped, found = folded(net, bits, variables)
  assert np.asarray(stepped[0]['unit1/conv/kernel'].steps)[:2].tolist() == [0, 0]
  expected = logits(net, *stepped)
  np.testing.assert_allclose(logits(net, *found), expected, rtol=0, atol=1e-5)
  learned = quant.plan_weights(
    models.layer_table(net.model, SHAPE), quant.Quantizer(step='learned')
  )
  steps = dict(quant.initial_steps(variables['params'], bits, learned))
  steps['unit0/conv/kernel'] *= -1
  _, stepped, found = folded(net, bits, variables, steps, step='learned')
  expected = logits(net, *stepped)
  np.testing.assert_allclose(logits(net, *found), expected, rtol=0, atol=1e-5)


def test_what_does_not_fold_stays():
  net = network('plain')
  for options in ({'group_size': 7}, {'rules': (quant.Rule('unit./conv/kernel', output_axes=2),)}):
    plan, stepped, found = folded(net, 3, **options)
    assert_same_trees(found, stepped)
    size, counted = quant.file_size(found[0]), quant.model_size(plan, 3, 'folded')
    assert size.steps == counted.scales / 8 > 0
  rules = (quant.Rule('unit1/norm/scale', 8), quant.Rule('unit2', 32))
  _, stepped, (packed, statistics) = folded(net, 3, rules=rules)
  for unit in ('unit1', 'unit2'):
    assert packed[f'{unit}/conv/kernel'] is stepped[0][f'{unit}/conv/kernel']
    assert_same_trees(statistics['batch_stats'][unit], stepped[1]['batch_stats'][unit])
  assert packed['unit0/conv/kernel'].steps is None
  expected = logits(net, *stepped)
  np.testing.assert_allclose(logits(net, packed, statistics), expected, rtol=0, atol=1e-5)


def test_folding_changes_nothing_given_and_is_done_once(tmp_path):
  net = network('plain')
  before = jax.tree.map(np.array, net.variables)
  plan, _, (packed, statistics) = folded(net, 2)
  assert_same_trees(net.variables, before)
  assert_same_trees(models.fold_steps(packed, statistics, plan), (packed, statistics))
  quant.save(tmp_path / 'file', packed)
  loaded = quant.load(tmp_path / 'file', like=net.variables['params'])
  assert_same_bits(logits(net, loaded, statistics), logits(net, packed, statistics))
  assert flat(statistics).keys() == flat({'batch_stats': before['batch_stats']}).keys()


def test_what_does_not_belong_together_is_named():
  plan, (packed, statistics), _ = folded(network('plain'), 2)
  with pytest.raises(ValueError, match="statistics has no 'batch_stats/unit0/norm/mean'; allowed"):
    models.fold_steps(packed, {}, plan)
  other, _, _ = folded(network('ir_resnet8'), 2)
  with pytest.raises(ValueError, match="packed has no 'stage0.*'; allowed: a plan of these"):
    models.fold_steps(packed, statistics, other)
