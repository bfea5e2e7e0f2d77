"""Plans: the authors' by name, refusals, masks, random ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax import models, vip
from cnnopt_jax.kernels import platforms


def numbers(name):
  """A VGG plan as the authors write it: {1_2, 2_2, ...}."""
  return {unit.removeprefix('conv') for unit in vip.PLANS[name]}


def test_vgg_plans():
  assert numbers('vgg16_round1') == {'1_2', '2_2', '3_3', '4_3', '5_2', '5_3'}
  assert numbers('vgg16_round2') - numbers('vgg16_round1') == {'4_1', '4_2', '5_1'}
  assert numbers('vgg16_round3') - numbers('vgg16_round2') == {'1_1'}
  assert numbers('vgg16_round4') - numbers('vgg16_round3') == {'3_1', '3_2'}
  assert set(models.unit_names(models.create('vgg16', num_classes=10))) - set(
    vip.PLANS['vgg16_round4']
  ) == {'conv2_1'}
  assert numbers('thinet_round1') == {'1_2', '3_3', '4_3', '5_3'}
  assert numbers('thinet_round2') - numbers('thinet_round1') == {'2_2', '4_1', '4_2', '5_2'}
  assert numbers('thinet_round3') - numbers('thinet_round2') == {'1_1', '3_1', '3_2', '5_1'}


def test_resnet_plans():
  """Caffe's names of a few of the authors' 53 places: 10 is res2c_branch2b, 47 res5a_branch2b..."""
  one, two = vip.PLANS['resnet50_round1'], vip.PLANS['resnet50_round2']
  assert (len(one), len(two)) == (21, 29) and set(one) < set(two)
  assert one[0] == 'stage0_block2/unit1' and one[1] == 'stage0_block2/unit2'
  assert 'stage1_block1/unit1' in one  # 17, res3b_branch2b; 16 is not in the plan.
  assert 'stage1_block1/unit0' not in two
  assert 'stage1_block2/unit2' in two and 'stage1_block2/unit2' not in one  # 21, res3c_branch2c.
  assert 'stage3_block0/unit2' in two  # 47... of the last stage's first block.
  assert not any('shortcut' in unit or unit == 'stem' for unit in two)
  units = models.unit_names(models.create('resnet50', num_classes=10))
  assert len(units) == 53 and set(two) < set(units)


def test_names_are_resolved_or_refused():
  units = ('a', 'b/c', 'd')
  assert vip.resolve_plan(('d', 'a'), units) == ('a', 'd')
  assert vip.resolve_plan('all', units) == units and vip.resolve_plan('none', units) == ()
  with pytest.raises(ValueError, match="no unit 'e'; allowed: a, b/c, d"):
    vip.resolve_plan(('a', 'e'), units)
  with pytest.raises(ValueError, match="no unit 'conv1_2'; allowed: a, b/c, d"):
    vip.resolve_plan('vgg16_round1', units)
  with pytest.raises(ValueError, match="plan='vgg'; allowed: all, none, vgg16_round1"):
    vip.resolve_plan('vgg', units)
  with pytest.raises(ValueError, match="no unit 'conv9_1'; allowed: conv1_1, conv1_2"):
    models.create('vgg16', num_classes=10, plan=('conv9_1',))
  assert vip.subplan(('a', 'b/c', 'b/d/e', 'bb/c'), 'b') == ('c', 'd/e')


def test_random_plans():
  units = tuple(map(str, range(20)))
  plans = vip.random_plans(0, units, 50)
  assert plans == vip.random_plans(0, units, 50) != vip.random_plans(1, units, 50)
  assert all(8 <= len(plan) <= 12 and list(plan) == sorted(plan, key=int) for plan in plans)
  assert set().union(*plans) == set(units) and len(set(plans)) == 50


@pytest.mark.parametrize(
  'name, plan, image',
  [
    ('plain', ('unit1', 'unit2', 'unit5'), (27, 28, 1)),
    ('vgg8', 'all', (28, 28, 1)),
    ('resnet8', 'all', (28, 28, 1)),
    ('mobilenet_v2', 'all', (16, 16, 3)),
    ('ir_resnet8', 'all', (16, 16, 3)),
    ('all_cnn', ('unit0', 'unit2', 'unit3', 'unit7'), (32, 32, 3)),
  ],
)
def test_static_plans_and_masks_agree(name, plan, image):
  with jax.enable_x64(False):
    dense = models.create(name, num_classes=5, width_multiplier=0.1)
    virtual = models.with_plan(dense, plan)
    units = models.unit_names(dense)
    x = jax.random.normal(jax.random.key(1), (2, *image))
    variables = jax.jit(dense.init)(jax.random.key(0), x)
    masked = jax.jit(
      lambda values: dense.apply({**variables, **vip.mask_variables(units, values)}, x)
    )
    values = jnp.array([float(unit in virtual.plan) for unit in units])
    plain = masked(jnp.zeros(len(units)))
    tolerance = 1e-4 * float(jnp.abs(plain).max())
    assert float(jnp.abs(masked(values) - plain).max()) > 5 * tolerance  # The plan does something.
    static = jax.jit(virtual.apply)(variables, x)
    np.testing.assert_allclose(masked(values), static, rtol=0, atol=tolerance)


def test_no_mask_is_the_dense_network_and_folding_changes_nothing():
  with jax.enable_x64(False):
    dense = models.create('vgg8', num_classes=5, width_multiplier=0.1)
    virtual = models.with_plan(dense, 'all')
    units = models.unit_names(dense)
    x = jax.random.normal(jax.random.key(1), (2, 28, 28, 1))
    variables = jax.jit(dense.init)(jax.random.key(0), x)
    readers = models.virtual_inputs(virtual, (28, 28, 1))
    assert readers == ('conv1_2', 'conv2_2', 'conv3_2', 'conv3_3')
    folded = {**variables, 'params': vip.fold(variables['params'], readers)}
    np.testing.assert_allclose(
      jax.jit(virtual.apply)(folded, x),
      jax.jit(virtual.apply)(variables, x),
      rtol=1e-5,
      atol=1e-6,
    )
    none = dense.apply({**variables, **vip.mask_variables(units, jnp.zeros(len(units)))}, x)
    np.testing.assert_allclose(none, dense.apply(variables, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  'plan, platform',
  [((), 'cpu'), (('conv1_1', 'conv2_2'), 'cpu'), (('conv1_1',), 'gpu'), ('all', None)],
)
def test_parameters_for_inference_compute_the_same(plan, platform):
  with_transforms = platforms.is_cpu(platform)
  with jax.enable_x64(False):
    model = models.create('vgg8', num_classes=5, plan=plan)
    x = jax.random.normal(jax.random.key(1), (4, 28, 28, 1))
    variables = jax.jit(model.init)(jax.random.key(0), x)
    params = models.inference_params(model, variables['params'], (28, 28, 1), platform=platform)
    kinds = {name: type(params[name]['conv']['kernel']) for name in models.unit_names(model)}
    for name, kind in kinds.items():
      reads_virtual = name in models.virtual_inputs(model, (28, 28, 1))
      assert (kind is vip.FoldedKernel) == reads_virtual
      if reads_virtual:
        assert (params[name]['conv']['kernel'].transformed is not None) == with_transforms
      # The first unit has one input channel.
      assert (kind is vip.WinogradKernel) == (
        with_transforms and not reads_virtual and name not in model.plan and name != 'conv1_1'
      )
    np.testing.assert_allclose(
      jax.jit(model.apply)({**variables, 'params': params}, x),
      jax.jit(model.apply)(variables, x),
      rtol=1e-4,
      atol=1e-5,
    )


def test_an_all_virtual_vgg_writes_no_full_map():
  model = models.VGG(num_classes=0, stages=((8, 8), (16, 16)), norm=False)
  virtual = models.with_plan(model, 'all')
  x = jax.ShapeDtypeStruct((1, 64, 48, 3), jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), x)
  assert vip.written_maps(virtual.apply, variables, x) == ()
  text = jax.jit(virtual.apply).lower(variables, x).as_text()
  assert '1x64x48x3xf32' in text and '1x32x24x8xf32' in text
  assert '64x48x8xf' not in text and '32x24x16xf' not in text
  dense = jax.jit(model.apply).lower(variables, x).as_text()
  assert '64x48x8xf' in dense and '32x24x16xf' in dense


def test_what_is_written_is_counted():
  residual = models.create(
    'resnet8', num_classes=5, plan=('stage0_block0/unit0', 'stage1_block0/unit1')
  )
  x = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
  variables = jax.eval_shape(residual.init, jax.random.key(0), x)
  # A dense 3x3 unit reads the first at stride 1 and so small; the tail of the block writes a sum.
  assert vip.written_maps(residual.apply, variables, x) == ((1, 8, 8, 16),)
