"""ResNet-(6n+2) for small images (He et al., CVPR 2016, section 4.2; arXiv 1512.03385)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnnopt_jax.models.layers import Classifier, ConvUnit, scaled


class BasicBlock(nn.Module):
  """Two 3x3 conv units around a shortcut without parameters (option A of the paper)."""
  features: int
  stride: int

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps [N, H, W, C] to [N, ceil(H / stride), ceil(W / stride), features], features >= C."""
    y = ConvUnit(self.features, stride=self.stride, name='unit0')(x, train=train)
    y = ConvUnit(self.features, activation=None, name='unit1')(y, train=train)
    shortcut = x[:, ::self.stride, ::self.stride]
    new_channels = self.features - x.shape[-1]
    shortcut = jnp.pad(shortcut, ((0, 0),) * 3 + ((0, new_channels),))
    return nn.relu(shortcut + y)


class SmallResNet(nn.Module):
  """ResNet-(6n+2): a stem and three stages of n blocks with 16, 32 and 64 channels.

  Attributes:
    num_classes: number of logits.
    blocks: n, blocks in each stage.
    width_multiplier: scales every channel count.
  """
  num_classes: int
  blocks: int
  width_multiplier: float = 1.0

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Maps images [N, H, W, C] to logits [N, num_classes]."""
    x = ConvUnit(scaled(16, self.width_multiplier), name='stem')(x, train=train)
    for stage, channels in enumerate((16, 32, 64)):
      for block in range(self.blocks):
        x = BasicBlock(scaled(channels, self.width_multiplier),
                       stride=2 if stage > 0 and block == 0 else 1,
                       name=f'stage{stage}_block{block}')(x, train=train)
    return Classifier(self.num_classes, name='head')(x)
