"""VGG (Simonyan and Zisserman, ICLR 2015; arXiv 1409.1556)."""

import jax
from flax import linen as nn

from cnnopt_jax import vip
from cnnopt_jax.models.layers import Classifier, ConvUnit, Map, scaled
from cnnopt_jax.models.network import Network

# Channels of the conv units of each stage; a 2x2 max-pool closes every stage.
VGG8_STAGES = ((32, 32), (64, 64), (128, 128, 128))
VGG11_STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))
VGG16_STAGES = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)
# What ThiNet leaves of VGG-16 (Luo et al., ICCV 2017; arXiv 1707.06342): half of each channel count
# but in the last stage.
THINET_STAGES = ((32, 32), (64, 64), (128,) * 3, (256,) * 3, (512,) * 3)


class VGG(Network):
  """VGG's convolutions and a head.

  Attributes:
    num_classes: number of logits; 0 for no head: the last map comes out.
    stages: channels of the conv units of each stage.
    width_multiplier: scales every channel count, the hidden layers' too.
    norm: batch norm in every unit, as is usual on small images; otherwise biases, as published.
    hidden: sizes of the dense layers before the last, which read the map as one vector (published:
      4096, 4096); without any, one dense layer reads the mean over the map.
    dropout: rate after each hidden layer while training; needs an rng named 'dropout' unless 0.
    plan: names of the units that are virtual, such as 'conv1_2'.
  """

  num_classes: int
  stages: tuple[tuple[int, ...], ...] = VGG11_STAGES
  width_multiplier: float = 1.0
  norm: bool = True
  hidden: tuple[int, ...] = ()
  dropout: float = 0.0
  plan: vip.Plan = ()

  @nn.compact
  def __call__(self, x: Map, *, train: bool = False) -> Map:
    """Maps images [N, H, W, C] to logits [N, num_classes], or to the last map."""
    for stage, units in enumerate(self.stages, 1):
      for unit, channels in enumerate(units, 1):
        name = f'conv{stage}_{unit}'
        x = ConvUnit(
          scaled(channels, self.width_multiplier),
          norm=self.norm,
          virtual=name in self.plan,
          name=name,
        )(x, train=train)
      if min(x.shape[1:3]) >= 2:  # A map of 28x28 has shrunk to one pixel before the last stage.
        x = vip.max_pool(x, 2, 2)
    if not self.num_classes:
      return x
    if not self.hidden:
      return Classifier(self.num_classes, name='head')(x)
    return VGGHead(
      self.num_classes,
      tuple(scaled(n, self.width_multiplier) for n in self.hidden),
      self.dropout,
      name='head',
    )(x, train=train)


class VGGHead(nn.Module):
  """Dense layers with ReLU on the flattened map, and a last one.

  Attributes:
    num_classes: number of logits.
    hidden: outputs of each dense layer before the last.
    dropout: rate after each hidden layer while training.
  """

  num_classes: int
  hidden: tuple[int, ...]
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x: Map, *, train: bool = False) -> jax.Array:
    """Maps [N, H, W, C] to logits [N, num_classes]."""
    x = vip.materialize(x).reshape(x.shape[0], -1)
    for i, features in enumerate(self.hidden):
      x = nn.relu(nn.Dense(features, name=f'hidden{i}')(x))
      x = nn.Dropout(self.dropout, deterministic=not train)(x)
    return nn.Dense(self.num_classes, name='dense')(x)
