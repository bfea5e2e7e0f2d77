"""A small plain network: the default of the sweeps."""

import jax
from flax import linen as nn

from cnnopt_jax import vip
from cnnopt_jax.models.layers import Classifier, ConvUnit, Map, scaled
from cnnopt_jax.models.network import Network


class PlainNet(Network):
  """A chain of 3x3 conv units and a classifier.

  Attributes:
    num_classes: number of logits.
    width_multiplier: scales every channel count.
    channels: of each unit, at width 1.
    strides: of each unit.
    plan: names of the units that are virtual, such as 'unit1'.
  """

  num_classes: int
  width_multiplier: float = 1.0
  # No two counts are equal, so that they step to the next integer at different widths and many
  # model sizes can be met.
  channels: tuple[int, ...] = (16, 24, 32, 40, 48, 56)
  strides: tuple[int, ...] = (2, 1, 2, 1, 2, 1)
  plan: vip.Plan = ()

  @nn.compact
  def __call__(self, x: Map, *, train: bool = False) -> jax.Array:
    """Maps images [N, H, W, C] to logits [N, num_classes]."""
    for i, (channels, stride) in enumerate(zip(self.channels, self.strides, strict=True)):
      name = f'unit{i}'
      x = ConvUnit(
        scaled(channels, self.width_multiplier), stride=stride, virtual=name in self.plan, name=name
      )(x, train=train)
    return Classifier(self.num_classes, name='head')(x)
