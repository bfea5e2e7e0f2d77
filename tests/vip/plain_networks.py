"""Networks in plain Flax, which know nothing of virtual maps.

Those in linen are shipped networks rewritten: module for module with the names and the shapes of
`cnnopt_jax.models`, so that variables of one fit the other.
"""

import functools
from typing import Any

import jax.numpy as jnp
from flax import linen as nn


class Unit(nn.Module):
  """Convolution, batch norm or bias, activation."""

  features: int
  side: int = 3
  stride: int = 1
  groups: int = 1
  activation: Any = nn.relu
  norm: bool = True
  padding: Any = None

  @nn.compact
  def __call__(self, x, train):
    half = (self.side // 2, self.side // 2)
    x = nn.Conv(
      self.features,
      (self.side, self.side),
      self.stride,
      padding=self.padding or (half, half),
      feature_group_count=self.groups,
      use_bias=not self.norm,
      name='conv',
    )(x)
    if self.norm:
      x = nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, name='norm')(x)
    return self.activation(x) if self.activation else x


class Classifier(nn.Module):
  """Mean over the map, then a dense layer."""

  num_classes: int

  @nn.compact
  def __call__(self, x):
    return nn.Dense(self.num_classes, name='dense')(x.mean((1, 2)))


class VGG(nn.Module):
  """`models.VGG`."""

  num_classes: int
  stages: Any
  norm: bool = True
  hidden: Any = ()

  @nn.compact
  def __call__(self, x, train=False):
    for stage, units in enumerate(self.stages, 1):
      for unit, channels in enumerate(units, 1):
        x = Unit(channels, norm=self.norm, name=f'conv{stage}_{unit}')(x, train)
      x = nn.max_pool(x, (2, 2), (2, 2))
    if not self.hidden:
      return Classifier(self.num_classes, name='head')(x)
    return Head(self.num_classes, self.hidden, name='head')(x)


class Head(nn.Module):
  """`models.VGGHead`."""

  num_classes: int
  hidden: Any

  @nn.compact
  def __call__(self, x):
    x = x.reshape(x.shape[0], -1)
    for i, features in enumerate(self.hidden):
      x = nn.relu(nn.Dense(features, name=f'hidden{i}')(x))
    return nn.Dense(self.num_classes, name='dense')(x)


class BasicBlock(nn.Module):
  """Two 3x3 convolutions around a shortcut, of option A or B."""

  features: int
  stride: int
  projection: bool = False

  @nn.compact
  def __call__(self, x, train):
    y = Unit(self.features, stride=self.stride, name='unit0')(x, train)
    y = Unit(self.features, activation=None, name='unit1')(y, train)
    if not self.projection:
      x = x[:, :: self.stride, :: self.stride]
      x = jnp.pad(x, ((0, 0),) * 3 + ((0, self.features - x.shape[-1]),))
    elif x.shape != y.shape:
      x = Unit(self.features, 1, self.stride, activation=None, name='shortcut')(x, train)
    return nn.relu(x + y)


class Bottleneck(nn.Module):
  """1x1, 3x3 and 1x1 convolutions around a shortcut."""

  features: int
  stride: int

  @nn.compact
  def __call__(self, x, train):
    y = Unit(self.features, 1, self.stride, name='unit0')(x, train)
    y = Unit(self.features, name='unit1')(y, train)
    y = Unit(4 * self.features, 1, activation=None, name='unit2')(y, train)
    if x.shape != y.shape:
      x = Unit(4 * self.features, 1, self.stride, activation=None, name='shortcut')(x, train)
    return nn.relu(x + y)


class SmallResNet(nn.Module):
  """`models.SmallResNet`."""

  num_classes: int
  widths: Any
  blocks: int = 1

  @nn.compact
  def __call__(self, x, train=False):
    x = Unit(self.widths[0], name='stem')(x, train)
    for stage, channels in enumerate(self.widths):
      for block in range(self.blocks):
        stride = 2 if stage > 0 and block == 0 else 1
        x = BasicBlock(channels, stride, name=f'stage{stage}_block{block}')(x, train)
    return Classifier(self.num_classes, name='head')(x)


class ResNet(nn.Module):
  """`models.ResNet`."""

  num_classes: int
  width: int
  blocks: Any
  bottleneck: bool

  @nn.compact
  def __call__(self, x, train=False):
    x = Unit(self.width, 7, 2, name='stem')(x, train)
    x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
    for stage, blocks in enumerate(self.blocks):
      for block in range(blocks):
        stride = 2 if stage > 0 and block == 0 else 1
        make = Bottleneck if self.bottleneck else functools.partial(BasicBlock, projection=True)
        x = make(self.width * 2**stage, stride, name=f'stage{stage}_block{block}')(x, train)
    return Classifier(self.num_classes, name='head')(x)
