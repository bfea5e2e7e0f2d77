"""VGG (Simonyan and Zisserman, ICLR 2015; arXiv 1409.1556) for small images, with batch norm."""

import jax
from flax import linen as nn

from cnnopt_jax.models.layers import Classifier, ConvUnit, scaled

# Channels of the conv units of each stage; a 2x2 max-pool closes every stage.
VGG11_STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))


class VGG(nn.Module):
  """VGG's convolutions with batch norm, and one dense layer on the mean of the last map.

  Attributes:
    num_classes: number of logits.
    stages: channels of the conv units of each stage.
    width_multiplier: scales every channel count.
  """
  num_classes: int
  stages: tuple[tuple[int, ...], ...] = VGG11_STAGES
  width_multiplier: float = 1.0

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Maps images [N, H, W, C] to logits [N, num_classes]."""
    for stage, units in enumerate(self.stages, 1):
      for unit, channels in enumerate(units, 1):
        x = ConvUnit(scaled(channels, self.width_multiplier), name=f'conv{stage}_{unit}')(
            x, train=train)
      if min(x.shape[1:3]) >= 2:  # A map of 28x28 has shrunk to one pixel before the last stage.
        x = nn.max_pool(x, (2, 2), (2, 2))
    return Classifier(self.num_classes, name='head')(x)
