"""EfficientNet-lite0: EfficientNet-B0 (Tan and Le, ICML 2019, arXiv 1905.11946) for small devices.

The lite networks have no squeeze-and-excitation and ReLU6 for swish; their authors' definition is
`models/official/efficientnet/lite` of github.com/tensorflow/tpu. Padding and epsilon are
TensorFlow's, so that the published weights fit. Dropout and dropped blocks are left out.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
from flax import linen as nn

from cnnopt_jax import vip
from cnnopt_jax.models.layers import Classifier, ConvUnit, Map, same_padding, scaled
from cnnopt_jax.models.network import Network


class Stage(NamedTuple):
  """Blocks of one kind; only the first of them strides."""

  blocks: int
  kernel_size: int
  stride: int
  expansion: int
  channels: int


# Table 1 of the paper, stages 2 to 8.
STAGES = (
  Stage(1, 3, 1, 1, 16),
  Stage(2, 3, 2, 6, 24),
  Stage(2, 5, 2, 6, 40),
  Stage(3, 3, 2, 6, 80),
  Stage(3, 5, 1, 6, 112),
  Stage(4, 5, 2, 6, 192),
  Stage(1, 3, 1, 6, 320),
)
EPSILON = 1e-3  # Of every norm.


def _unit(
  x: Map,
  features: int,
  kernel_size: int = 1,
  *,
  stride: int = 1,
  groups: int = 1,
  activation: Callable[[jax.Array], jax.Array] | None = nn.relu6,
  plan: vip.Plan,
  name: str,
) -> ConvUnit:
  """The conv unit that reads `x`; the padding depends on its size."""
  _, height, width, _ = x.shape
  return ConvUnit(
    features,
    kernel_size,
    stride,
    groups,
    activation,
    epsilon=EPSILON,
    padding=same_padding((height, width), kernel_size, stride),
    virtual=name in plan,
    name=name,
  )


class InvertedBottleneck(nn.Module):
  """1x1 expansion, depth-wise convolution, linear 1x1 projection, a shortcut where shapes allow."""

  features: int
  kernel_size: int
  stride: int
  expansion: int
  plan: vip.Plan = ()

  @nn.compact
  def __call__(self, x: Map, *, train: bool) -> Map:
    """Maps [N, H, W, C] to [N, ceil(H / stride), ceil(W / stride), features]."""
    y, hidden = x, self.expansion * x.shape[-1]
    if self.expansion != 1:
      y = _unit(y, hidden, plan=self.plan, name='expand')(y, train=train)
    y = _unit(
      y,
      hidden,
      self.kernel_size,
      stride=self.stride,
      groups=hidden,
      plan=self.plan,
      name='depthwise',
    )(y, train=train)
    y = _unit(y, self.features, activation=None, plan=self.plan, name='project')(y, train=train)
    return vip.add(x, y) if self.stride == 1 and x.shape == y.shape else y


class EfficientNetLite0(Network):
  """EfficientNet-lite0; the width multiplier scales every channel count.

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
    x = _unit(x, scaled(32, self.width_multiplier), 3, stride=2, plan=self.plan, name='stem')(
      x, train=train
    )
    for i, stage in enumerate(STAGES):
      for block in range(stage.blocks):
        name = f'stage{i}_block{block}'
        x = InvertedBottleneck(
          scaled(stage.channels, self.width_multiplier),
          stage.kernel_size,
          stage.stride if block == 0 else 1,
          stage.expansion,
          vip.subplan(self.plan, name),
          name=name,
        )(x, train=train)
    x = _unit(x, scaled(1280, self.width_multiplier), plan=self.plan, name='last')(x, train=train)
    return Classifier(self.num_classes, name='head')(x)
