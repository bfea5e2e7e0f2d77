"""GoogLeNet (Szegedy et al., CVPR 2015; arXiv 1409.4842) with batch norm, without side heads."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnnopt_jax import vip
from cnnopt_jax.models.layers import Classifier, ConvUnit, Map, scaled
from cnnopt_jax.models.network import Network
from cnnopt_jax.models.pooling import ceil_max_pool

# Table 1 of the paper: 1x1; 1x1 and 3x3; 1x1 and 5x5; 1x1 after the pool. One tuple a stage.
STAGES = (
  ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
  (
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
  ),
  ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)


class Inception(nn.Module):
  """Four branches of one map, side by side.

  Attributes:
    channels: a row of `STAGES`.
    large_kernel: side of the third branch's kernel.
    plan: names of the units that are virtual.
  """

  channels: tuple[int, int, int, int, int, int]
  large_kernel: int = 5
  plan: vip.Plan = ()

  @nn.compact
  def __call__(self, x: Map, *, train: bool) -> jax.Array:
    """Maps [N, H, W, C] to [N, H, W, sum of the branches' channels]."""
    one, three_reduced, three, five_reduced, five, pooled = self.channels

    def unit(name, features, kernel_size, x):
      return ConvUnit(features, kernel_size, virtual=name in self.plan, name=name)(x, train=train)

    middle = unit('three', three, 3, unit('three_reduced', three_reduced, 1, x))
    large = unit('five', five, self.large_kernel, unit('five_reduced', five_reduced, 1, x))
    pool = vip.max_pool(x, 3, 1, padding=((1, 1), (1, 1)))
    branches = unit('one', one, 1, x), middle, large, unit('pooled', pooled, 1, pool)
    return jnp.concatenate(list(map(vip.materialize, branches)), axis=-1)


class GoogLeNet(Network):
  """GoogLeNet: 7,005,832 parameters; 6,624,904 with torchvision's 3x3 kernels for the 5x5.

  A bias for each norm's scale and shift would make the first 6,998,552, as in Caffe.

  Attributes:
    num_classes: number of logits.
    width_multiplier: scales every channel count.
    large_kernel: side of the kernel of each block's third branch.
    plan: names of the units that are virtual, such as 'block3a/three'.
  """

  num_classes: int
  width_multiplier: float = 1.0
  large_kernel: int = 5
  plan: vip.Plan = ()

  @nn.compact
  def __call__(self, x: Map, *, train: bool = False) -> jax.Array:
    """Maps images [N, H, W, C] to logits [N, num_classes]."""

    def width(channels):
      return scaled(channels, self.width_multiplier)

    def unit(name, features, kernel_size, stride, x):
      return ConvUnit(width(features), kernel_size, stride, virtual=name in self.plan, name=name)(
        x, train=train
      )

    x = ceil_max_pool(unit('stem0', 64, 7, 2, x))
    x = unit('stem2', 192, 3, 1, unit('stem1', 64, 1, 1, x))
    for stage, blocks in enumerate(STAGES, 3):
      x = ceil_max_pool(x)
      for block, channels in zip('abcde', blocks):
        name = f'block{stage}{block}'
        x = Inception(
          tuple(map(width, channels)), self.large_kernel, vip.subplan(self.plan, name), name=name
        )(x, train=train)
    return Classifier(self.num_classes, name='head')(x)
