"""Networks: parameter counts against published ones, shapes, widths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax import models


def parameters(name, num_classes, image_shape, **kwargs):
  model = models.create(name, num_classes=num_classes, **kwargs)
  table = models.layer_table(model, image_shape)
  return sum(p.size for p in table.parameters)


@pytest.mark.parametrize(
  'name, num_classes, image_shape, count',
  [
    # He et al., table 6: 0.27M, 0.46M, 0.66M, 0.85M, 1.7M. To the unit, with n blocks a stage:
    # 9 (48 + 512 n + 16*32 + 1024 (2n - 1) + 32*64 + 4096 (2n - 1)) in the convolutions, two
    # numbers for each of the 16 + 224 n norm channels, and 650 in the dense layer.
    ('resnet20', 10, (32, 32, 3), 269_722),
    ('resnet32', 10, (32, 32, 3), 464_154),
    ('resnet44', 10, (32, 32, 3), 658_586),
    ('resnet56', 10, (32, 32, 3), 853_018),
    ('resnet110', 10, (32, 32, 3), 1_727_962),
    # torchvision's mobilenet_v2.
    ('mobilenet_v2', 1000, (224, 224, 3), 3_504_872),
    ('mobilenet_v2', 10, (32, 32, 3), 3_504_872 - 990 * 1281),
    # The published file: 4,694,073 numbers less 42,016 statistics and 49 counts of the norms.
    ('efficientnet_lite0', 1000, (224, 224, 3), 4_652_008),
    # By hand: a block from i to o channels has 6 i (i + 9 + o) numbers in its convolutions and
    # 24 i + 2 o in its norms; the stem 432 and 32, the dense layer 650.
    ('ir_resnet8', 10, (32, 32, 3), 464 + 4_352 + 5_920 + 21_056 + 650),
    (
      'ir_resnet26',
      10,
      (32, 32, 3),
      464 + 4 * 4_352 + 5_920 + 3 * 14_848 + 21_056 + 3 * 54_272 + 650,
    ),
    # torchvision's vgg11 has 9,220,480 parameters in its convolutions, 2,752 of them biases, which
    # a norm's scale and shift of 5,504 replace here; one dense layer follows.
    ('vgg11', 10, (32, 32, 3), 9_220_480 - 2_752 + 5_504 + 5_130),
  ],
)
def test_published_parameter_counts(name, num_classes, image_shape, count):
  assert parameters(name, num_classes, image_shape) == count


@pytest.mark.parametrize(
  'name, image_shape, macs',
  [
    # torchvision's figure for mobilenet_v2, 300.8 M multiply-accumulates, biases not counted.
    ('mobilenet_v2', (224, 224, 3), 300_774_272),
    # ResNet-20 on CIFAR-10: 3x3 convolutions and the dense layer, by hand.
    (
      'resnet20',
      (32, 32, 3),
      9 * 1024 * (3 * 16 + 6 * 256)
      + 9 * 256 * (16 * 32 + 5 * 1024)
      + 9 * 64 * (32 * 64 + 5 * 4096)
      + 640,
    ),
  ],
)
def test_known_macs(name, image_shape, macs):
  classes = 1000 if name == 'mobilenet_v2' else 10
  assert models.layer_table(models.create(name, num_classes=classes), image_shape).macs == macs


@pytest.mark.parametrize('name', ['plain', 'vgg11', 'mobilenet_v2', 'resnet8', 'ir_resnet8'])
@pytest.mark.parametrize('image_shape', [(28, 28, 1), (17, 23, 3)])
def test_any_image_shape_width_and_class_count(name, image_shape):
  model = models.create(name, num_classes=7, width_multiplier=0.17)
  images = jnp.zeros((2, *image_shape))
  variables = jax.eval_shape(model.init, jax.random.key(0), images)
  train = lambda v, x: model.apply(v, x, train=True, mutable=['batch_stats'])
  logits, statistics = jax.eval_shape(train, variables, images)
  assert logits.shape == (2, 7)
  assert jax.tree.map(jnp.shape, statistics['batch_stats']) == jax.tree.map(
    jnp.shape, variables['batch_stats']
  )


@pytest.mark.parametrize('name', list(models.MODELS))
def test_size_grows_with_width(name):
  counts = [parameters(name, 10, (32, 32, 3), width_multiplier=w) for w in (0.05, 0.3, 1.0)]
  assert counts[0] < counts[1] < counts[2]


def test_an_inverted_residual_resnet_is_named_quantized_and_prepared_as_the_others():
  model = models.create('ir_resnet8', num_classes=3, width_multiplier=0.25, plan='all')
  units = models.unit_names(model)
  kinds = ('expand', 'depthwise', 'project')
  assert units == ('stem', *(f'stage{i}_block0/{kind}' for i in range(3) for kind in kinds))
  # A step for each output channel, those of a depth-wise kernel [3, 3, 1, C] too.
  steps = {leaf.path: leaf.steps for leaf in models.weight_plan(model, (12, 12, 1)).quantized}
  assert set(steps) == {'head/dense/kernel', *(f'{unit}/conv/kernel' for unit in units)}
  assert [steps[f'stage0_block0/{kind}/conv/kernel'] for kind in kinds] == [24, 24, 4]
  x = jax.random.normal(jax.random.key(1), (2, 12, 12, 1))
  variables = jax.jit(model.init)(jax.random.key(0), x)
  prepared = models.inference_params(model, variables['params'], (12, 12, 1))
  np.testing.assert_allclose(
    jax.jit(model.apply)({**variables, 'params': prepared}, x),
    jax.jit(model.apply)(variables, x),
    rtol=1e-4,
    atol=1e-5,
  )


def test_unknown_name_is_refused():
  with pytest.raises(ValueError, match="model='lenet'.*resnet20"):
    models.create('lenet', num_classes=10)


def test_a_virtual_network_is_traced_with_its_smaller_maps():
  table = lambda plan: models.layer_table(
    models.create('vgg16', num_classes=10, plan=plan), (64, 64, 3)
  )
  dense, virtual = table(()), table('all')
  assert {p.path: p.shape for p in dense.parameters} == {
    p.path: p.shape for p in virtual.parameters
  }
  convolutions = lambda found: sum(layer.macs for layer in found if 'conv' in layer.path)
  # A quarter, and borders where the form has some.
  assert 3.3 < convolutions(dense) / convolutions(virtual) <= 4


def test_a_unit_takes_paddings_as_the_convolution_does():
  x = jax.ShapeDtypeStruct((1, 8, 9, 3), jnp.float32)
  for padding, size in (
    (None, (8, 9)),
    (0, (6, 7)),
    ('VALID', (6, 7)),
    (2, (10, 11)),
    ('SAME', (8, 9)),
  ):
    unit = models.ConvUnit(4, padding=padding)
    y, _ = jax.eval_shape(
      lambda x, unit=unit: unit.init_with_output(jax.random.key(0), x, train=False), x
    )
    assert y.shape == (1, *size, 4)
