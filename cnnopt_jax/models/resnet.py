"""ResNets (He et al., CVPR 2016; arXiv 1512.03385): for small images, and for ImageNet."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnnopt_jax import vip
from cnnopt_jax.models.layers import Classifier, ConvUnit, Map, scaled
from cnnopt_jax.models.network import Network


class BasicBlock(nn.Module):
  """Two 3x3 conv units around a shortcut.

  Attributes:
    features: number of output channels.
    stride: of the first unit.
    projection: the shortcut has a 1x1 conv unit where shapes change (option B of the paper);
      otherwise it drops pixels and adds channels of zeros (option A).
    plan: names of the units that are virtual.
  """

  features: int
  stride: int
  projection: bool = False
  plan: vip.Plan = ()

  @nn.compact
  def __call__(self, x: Map, *, train: bool) -> jax.Array:
    """Maps [N, H, W, C] to [N, ceil(H / stride), ceil(W / stride), features], features >= C."""
    y = ConvUnit(self.features, stride=self.stride, virtual='unit0' in self.plan, name='unit0')(
      x, train=train
    )
    y = ConvUnit(self.features, activation=None, virtual='unit1' in self.plan, name='unit1')(
      y, train=train
    )
    if self.projection:
      return vip.add_relu(_projected(x, y, self.stride, self.plan, train), y)
    channels = (0, self.features - x.shape[-1])
    widen = lambda x: jnp.pad(x, ((0, 0),) * 3 + (channels,))
    return vip.add_relu(vip.on_samples(widen, _every(x, self.stride)), y)


class Bottleneck(nn.Module):
  """1x1, 3x3 and 1x1 conv units around a shortcut; the first one has the stride, as published.

  Attributes:
    features: channels of the first two units; the block gives four times as many.
    stride: of the first unit.
    plan: names of the units that are virtual.
  """

  features: int
  stride: int
  plan: vip.Plan = ()

  @nn.compact
  def __call__(self, x: Map, *, train: bool) -> jax.Array:
    """Maps [N, H, W, C] to [N, ceil(H / stride), ceil(W / stride), 4 * features]."""
    y = ConvUnit(self.features, 1, self.stride, virtual='unit0' in self.plan, name='unit0')(
      x, train=train
    )
    y = ConvUnit(self.features, virtual='unit1' in self.plan, name='unit1')(y, train=train)
    y = ConvUnit(4 * self.features, 1, activation=None, virtual='unit2' in self.plan, name='unit2')(
      y, train=train
    )
    return vip.add_relu(_projected(x, y, self.stride, self.plan, train), y)


def _projected(x: Map, y: Map, stride: int, plan: vip.Plan, train: bool) -> Map:
  """The shortcut of a block with output `y`: `x`, through a 1x1 conv unit where shapes change."""
  if x.shape == y.shape:
    return x
  return ConvUnit(
    y.shape[-1], 1, stride, activation=None, virtual='shortcut' in plan, name='shortcut'
  )(x, train=train)


def _every(x: Map, stride: int) -> Map:
  """Every `stride`-th row and column."""
  if stride == 1:
    return x
  if isinstance(x, vip.VirtualMap) and stride % 2 == 0:
    return x.samples[:, :: stride // 2, :: stride // 2]
  return vip.materialize(x)[:, ::stride, ::stride]


class SmallResNet(Network):
  """ResNet-(6n+2): a stem and three stages of n blocks with 16, 32 and 64 channels.

  Attributes:
    num_classes: number of logits.
    blocks: n, blocks in each stage.
    width_multiplier: scales every channel count.
    plan: names of the units that are virtual, such as 'stage1_block0/unit0'.
  """

  num_classes: int
  blocks: int
  width_multiplier: float = 1.0
  plan: vip.Plan = ()

  @nn.compact
  def __call__(self, x: Map, *, train: bool = False) -> jax.Array:
    """Maps images [N, H, W, C] to logits [N, num_classes]."""
    x = ConvUnit(scaled(16, self.width_multiplier), virtual='stem' in self.plan, name='stem')(
      x, train=train
    )
    for stage, channels in enumerate((16, 32, 64)):
      for block in range(self.blocks):
        name = f'stage{stage}_block{block}'
        x = BasicBlock(
          scaled(channels, self.width_multiplier),
          stride=2 if stage > 0 and block == 0 else 1,
          plan=vip.subplan(self.plan, name),
          name=name,
        )(x, train=train)
    return Classifier(self.num_classes, name='head')(x)


class ResNet(Network):
  """ResNet for large images: a 7x7 stem, a max-pool, and four stages of 64 to 512 channels.

  Attributes:
    num_classes: number of logits.
    blocks: number of blocks in each stage.
    bottleneck: three units a block instead of two.
    width_multiplier: scales every channel count.
    plan: names of the units that are virtual, such as 'stage1_block0/unit0'.
  """

  num_classes: int
  blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
  bottleneck: bool = True
  width_multiplier: float = 1.0
  plan: vip.Plan = ()

  @nn.compact
  def __call__(self, x: Map, *, train: bool = False) -> jax.Array:
    """Maps images [N, H, W, C] to logits [N, num_classes]."""
    x = ConvUnit(scaled(64, self.width_multiplier), 7, 2, virtual='stem' in self.plan, name='stem')(
      x, train=train
    )
    x = vip.max_pool(x, 3, 2, padding=((1, 1), (1, 1)))
    for stage, blocks in enumerate(self.blocks):
      features = scaled(64 * 2**stage, self.width_multiplier)
      for block in range(blocks):
        name = f'stage{stage}_block{block}'
        stride, plan = 2 if stage > 0 and block == 0 else 1, vip.subplan(self.plan, name)
        if self.bottleneck:
          x = Bottleneck(features, stride, plan, name=name)(x, train=train)
        else:
          x = BasicBlock(features, stride, True, plan, name=name)(x, train=train)
    return Classifier(self.num_classes, name='head')(x)
