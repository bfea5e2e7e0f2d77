"""All-CNN-C (Springenberg et al., ICLR 2015 workshop; arXiv 1412.6806)."""

import jax
from flax import linen as nn

from cnnopt_jax import vip
from cnnopt_jax.models.layers import ConvUnit, Map, scaled
from cnnopt_jax.models.network import Network

# Table 1 of the paper: channels, kernel side, stride, and padding of each unit. The last 3x3 unit
# has no padding, and the unit after the last gives one channel a class.
UNITS = (
  (96, 3, 1, 1),
  (96, 3, 1, 1),
  (96, 3, 2, 1),
  (192, 3, 1, 1),
  (192, 3, 1, 1),
  (192, 3, 2, 1),
  (192, 3, 1, 0),
  (192, 1, 1, 0),
)


class AllCNN(Network):
  """Nine conv units and the mean over the last map; no pooling, no dense layer.

  Attributes:
    num_classes: number of logits.
    width_multiplier: scales every channel count but the last.
    norm: batch norm in every unit; otherwise biases, as published.
    plan: names of the units that are virtual, such as 'unit1'.
  """

  num_classes: int
  width_multiplier: float = 1.0
  norm: bool = False
  plan: vip.Plan = ()

  @nn.compact
  def __call__(self, x: Map, *, train: bool = False) -> jax.Array:
    """Maps images [N, H, W, C] to logits [N, num_classes]."""
    units = [(scaled(c, self.width_multiplier), *rest) for c, *rest in UNITS]
    for i, (channels, side, stride, pad) in enumerate([*units, (self.num_classes, 1, 1, 0)]):
      name = f'unit{i}'
      x = ConvUnit(
        channels,
        side,
        stride,
        norm=self.norm,
        padding=((pad, pad), (pad, pad)),
        virtual=name in self.plan,
        name=name,
      )(x, train=train)
    return vip.global_mean(x)
