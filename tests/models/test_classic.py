"""AlexNet, GoogLeNet and SqueezeNet: published parameter counts, MACs, and numbers by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax import models
from cnnopt_jax.models import alexnet, googlenet, pooling


def table(name, side, **kwargs):
  return models.layer_table(models.create(name, num_classes=1000, **kwargs), (side, side, 3))


# Multiply-accumulates by hand: output pixels x kernel x input channels x output channels.
ALEXNET_MACS = (
  55**2 * 11**2 * 3 * 96
  + 27**2 * 25 * 48 * 256
  + 13**2 * 9 * 256 * 384
  + 13**2 * 9 * 192 * 384
  + 13**2 * 9 * 192 * 256
  + 9216 * 4096
  + 4096 * 4096
  + 4096 * 1000
)


def fire_macs(sides, fires):
  squeezed = lambda side, channels, s, e: side**2 * (channels * s + s * e * 10)
  return sum(squeezed(side, *fire) for side, fire in zip(sides, fires))


FIRES = (
  (96, 16, 64),
  (128, 16, 64),
  (128, 32, 128),
  (256, 32, 128),
  (256, 48, 192),
  (384, 48, 192),
  (384, 64, 256),
  (512, 64, 256),
)
SQUEEZENET_1_0_MACS = (
  109**2 * 49 * 3 * 96 + 13**2 * 512 * 1000 + fire_macs((54, 54, 54, 27, 27, 27, 27, 13), FIRES)
)
SQUEEZENET_1_1_MACS = (
  111**2 * 9 * 3 * 64
  + 13**2 * 512 * 1000
  + fire_macs((55, 55, 27, 27, 13, 13, 13, 13), ((64, 16, 64), *FIRES[1:]))
)


def googlenet_macs():
  total = 112**2 * 49 * 3 * 64 + 56**2 * (64 * 64 + 9 * 64 * 192) + 1024 * 1000
  channels = 192
  for side, blocks in zip((28, 14, 7), googlenet.STAGES):
    for one, r3, three, r5, five, pooled in blocks:
      total += side**2 * (channels * (one + r3 + r5 + pooled) + 9 * r3 * three + 25 * r5 * five)
      channels = one + three + five + pooled
  return total


@pytest.mark.parametrize(
  'name, side, parameters, macs, published_macs',
  [
    # torchvision's resnet18, and MACs as usually quoted.
    ('resnet18', 224, 11_689_512, None, 1.81e9),
    # Simonyan and Zisserman, table 2: 138 M; torchvision's vgg16.
    ('vgg16', 224, 138_357_544, None, 15.47e9),
    # torchvision's parameters; MACs of Caffe's, whose first convolution of a block has the stride.
    ('resnet50', 224, 25_557_032, None, 3.86e9),
    # Caffe's bvlc_alexnet. torchvision's single tower has 61,100,840.
    ('alexnet', 227, 60_965_224, ALEXNET_MACS, 724e6),
    # Caffe's bvlc_googlenet has 6,998,552: a bias for each channel that has two norm parameters
    # here, and 7,280 channels have them.
    ('googlenet', 224, 6_998_552 + 7_280, googlenet_macs(), 1.58e9),
    ('squeezenet1_0', 224, 1_248_424, SQUEEZENET_1_0_MACS, 0.82e9),  # torchvision's.
    ('squeezenet1_1', 224, 1_235_496, SQUEEZENET_1_1_MACS, 0.35e9),
  ],
)
def test_published_counts(name, side, parameters, macs, published_macs):
  layers = table(name, side)
  assert sum(p.size for p in layers.parameters) == parameters
  assert macs is None or layers.macs == macs
  assert published_macs is None or abs(layers.macs / published_macs - 1) < 0.01


def test_torchvision_googlenet():
  model = googlenet.GoogLeNet(1000, large_kernel=3)
  layers = models.layer_table(model, (224, 224, 3))
  assert sum(p.size for p in layers.parameters) == 6_624_904
  assert abs(layers.macs / 1.5e9 - 1) < 0.01


@pytest.mark.parametrize('name', ['alexnet', 'googlenet', 'squeezenet1_0', 'squeezenet1_1'])
def test_any_image_shape_width_and_class_count(name):
  model = models.create(name, num_classes=7, width_multiplier=0.17)
  images = jnp.zeros((2, 17, 23, 3))
  variables = jax.eval_shape(model.init, jax.random.key(0), images)
  train = lambda v, x: model.apply(v, x, train=True, mutable=['batch_stats'])
  assert jax.eval_shape(train, variables, images)[0].shape == (2, 7)


@pytest.mark.parametrize('name', ['alexnet', 'googlenet', 'squeezenet1_0'])
def test_every_unit_can_be_virtual(name):
  dense = models.create(name, num_classes=7, width_multiplier=0.1)
  virtual = models.create(name, num_classes=7, width_multiplier=0.1, plan='all')
  assert virtual.plan and set(virtual.plan) == set(models.unit_names(dense))
  images = jnp.zeros((2, 96, 96, 3))
  variables = jax.eval_shape(dense.init, jax.random.key(0), images)
  assert jax.eval_shape(virtual.apply, variables, images).shape == (2, 7)


def test_ceil_max_pool():
  x = jnp.arange(1.0, 6.0).reshape(1, 5, 1, 1)
  assert pooling.ceil_max_pool(x).ravel().tolist() == [3, 5]
  assert pooling.ceil_max_pool(x[:, :4]).ravel().tolist() == [3, 4]  # The last window hangs over.
  assert pooling.ceil_max_pool(x[:, :1]).ravel().tolist() == [1]


def test_local_response_norm():
  x = np.random.default_rng(0).normal(size=(1, 2, 2, 7)) * 100
  expected = np.empty_like(x)
  for c in range(7):
    sums = (x[..., max(0, c - 2) : c + 3] ** 2).sum(-1)
    expected[..., c] = x[..., c] / (1 + 1e-4 / 5 * sums) ** 0.75
  np.testing.assert_allclose(
    alexnet.local_response_norm(jnp.asarray(x, jnp.float32)), expected, rtol=1e-5
  )
