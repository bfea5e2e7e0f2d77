"""GoogLeNet (Szegedy et al., CVPR 2015; arXiv 1409.4842) with batch norm, without side heads."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnnopt_jax.models.biased import ceil_max_pool
from cnnopt_jax.models.layers import Classifier, ConvUnit, scaled

# Table 1 of the paper: 1x1; 1x1 and 3x3; 1x1 and 5x5; 1x1 after the pool. One tuple a stage.
STAGES = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    ((192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64),
     (112, 144, 288, 32, 64, 64), (256, 160, 320, 32, 128, 128)),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)


class Inception(nn.Module):
  """Four branches of one map, side by side.

  Attributes:
    channels: a row of `STAGES`.
    large_kernel: side of the third branch's kernel.
  """
  channels: tuple[int, int, int, int, int, int]
  large_kernel: int = 5

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps [N, H, W, C] to [N, H, W, sum of the branches' channels]."""
    one, three_reduced, three, five_reduced, five, pooled = self.channels
    unit = lambda name, features, kernel_size, x: ConvUnit(features, kernel_size, name=name)(
        x, train=train)
    middle = unit('three', three, 3, unit('three_reduced', three_reduced, 1, x))
    large = unit('five', five, self.large_kernel, unit('five_reduced', five_reduced, 1, x))
    pool = nn.max_pool(x, (3, 3), (1, 1), 'SAME')
    return jnp.concatenate([unit('one', one, 1, x), middle, large, unit('pooled', pooled, 1, pool)],
                           axis=-1)


class GoogLeNet(nn.Module):
  """GoogLeNet: 7,005,832 parameters; 6,624,904 with torchvision's 3x3 kernels for the 5x5.

  A bias for each norm's scale and shift would make the first 6,998,552, as in Caffe.

  Attributes:
    num_classes: number of logits.
    width_multiplier: scales every channel count.
    large_kernel: side of the kernel of each block's third branch.
  """
  num_classes: int
  width_multiplier: float = 1.0
  large_kernel: int = 5

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Maps images [N, H, W, C] to logits [N, num_classes]."""
    width = lambda channels: scaled(channels, self.width_multiplier)
    x = ConvUnit(width(64), 7, stride=2, name='stem0')(x, train=train)
    x = ceil_max_pool(x)
    x = ConvUnit(width(64), 1, name='stem1')(x, train=train)
    x = ConvUnit(width(192), 3, name='stem2')(x, train=train)
    for stage, blocks in enumerate(STAGES, 3):
      x = ceil_max_pool(x)
      for block, channels in zip('abcde', blocks):
        x = Inception(tuple(map(width, channels)), self.large_kernel,
                      name=f'block{stage}{block}')(x, train=train)
    return Classifier(self.num_classes, name='head')(x)
