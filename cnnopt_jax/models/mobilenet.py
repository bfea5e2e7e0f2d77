"""MobileNetV2 (Sandler et al., CVPR 2018; arXiv 1801.04381), and a small ResNet of its blocks."""

import jax
from flax import linen as nn

from cnnopt_jax import vip
from cnnopt_jax.models.layers import Classifier, ConvUnit, Map, scaled
from cnnopt_jax.models.network import Network

# Table 2 of the paper: expansion, channels, blocks, stride of the first block.
STAGES = (
  (1, 16, 1, 1),
  (6, 24, 2, 2),
  (6, 32, 3, 2),
  (6, 64, 4, 2),
  (6, 96, 3, 1),
  (6, 160, 3, 2),
  (6, 320, 1, 1),
)
# Below this side the stem and the first strided stage keep the map, as is usual on CIFAR.
SMALL_IMAGE = 64


class InvertedResidual(nn.Module):
  """1x1 expansion, depth-wise 3x3, linear 1x1 projection, and a shortcut where shapes allow."""

  features: int
  stride: int
  expansion: int
  plan: vip.Plan = ()

  @nn.compact
  def __call__(self, x: Map, *, train: bool) -> Map:
    """Maps [N, H, W, C] to [N, ceil(H / stride), ceil(W / stride), features]."""
    y, hidden = x, self.expansion * x.shape[-1]

    def unit(name, features, kernel_size, x, **options):
      virtual = name in self.plan
      return ConvUnit(features, kernel_size, virtual=virtual, name=name, **options)(x, train=train)

    if self.expansion != 1:
      y = unit('expand', hidden, 1, y, activation=nn.relu6)
    y = unit('depthwise', hidden, 3, y, stride=self.stride, groups=hidden, activation=nn.relu6)
    y = unit('project', self.features, 1, y, activation=None)
    return vip.add(x, y) if x.shape == y.shape else y


class MobileNetV2(Network):
  """MobileNetV2; the width multiplier scales every channel count, the last layer's too.

  Attributes:
    num_classes: number of logits.
    width_multiplier: scales every channel count, to the nearest integer.
    plan: names of the units that are virtual, such as 'stage1_block0/depthwise'.
  """

  num_classes: int
  width_multiplier: float = 1.0
  plan: vip.Plan = ()

  @nn.compact
  def __call__(self, x: Map, *, train: bool = False) -> jax.Array:
    """Maps images [N, H, W, C] to logits [N, num_classes]."""
    small = min(x.shape[1:3]) < SMALL_IMAGE
    x = ConvUnit(
      scaled(32, self.width_multiplier),
      stride=1 if small else 2,
      activation=nn.relu6,
      virtual='stem' in self.plan,
      name='stem',
    )(x, train=train)
    for stage, (expansion, channels, blocks, stride) in enumerate(STAGES):
      for block in range(blocks):
        first_stride = 1 if small and stage == 1 else stride
        name = f'stage{stage}_block{block}'
        x = InvertedResidual(
          scaled(channels, self.width_multiplier),
          first_stride if block == 0 else 1,
          expansion,
          vip.subplan(self.plan, name),
          name=name,
        )(x, train=train)
    x = ConvUnit(
      scaled(1280, self.width_multiplier),
      1,
      activation=nn.relu6,
      virtual='last' in self.plan,
      name='last',
    )(x, train=train)
    return Classifier(self.num_classes, name='head')(x)


class InvertedResNet(Network):
  """The ResNet-(6n+2) for small images with MobileNetV2's block in place of the basic one.

  A stem and three stages of n inverted residuals with 16, 32 and 64 channels, of which the second
  and the third stride. As recalled, and unverified, its n = 4 is the inverted-residual ResNet-26 of
  One Weight Bitwidth to Rule Them All (arXiv 2008.09916). The number in the name is that of
  `SmallResNet`; a block has three convolutions here.

  Attributes:
    num_classes: number of logits.
    blocks: n, blocks in each stage.
    width_multiplier: scales every channel count.
    expansion: of each block.
    plan: names of the units that are virtual, such as 'stage1_block0/depthwise'.
  """

  num_classes: int
  blocks: int
  width_multiplier: float = 1.0
  expansion: int = 6
  plan: vip.Plan = ()

  @nn.compact
  def __call__(self, x: Map, *, train: bool = False) -> jax.Array:
    """Maps images [N, H, W, C] to logits [N, num_classes]."""
    x = ConvUnit(
      scaled(16, self.width_multiplier),
      activation=nn.relu6,
      virtual='stem' in self.plan,
      name='stem',
    )(x, train=train)
    for stage, channels in enumerate((16, 32, 64)):
      for block in range(self.blocks):
        name = f'stage{stage}_block{block}'
        x = InvertedResidual(
          scaled(channels, self.width_multiplier),
          2 if stage > 0 and block == 0 else 1,
          self.expansion,
          vip.subplan(self.plan, name),
          name=name,
        )(x, train=train)
    return Classifier(self.num_classes, name='head')(x)
