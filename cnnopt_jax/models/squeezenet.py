"""SqueezeNet 1.0 and 1.1 (Iandola et al., arXiv 1602.07360)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnnopt_jax import vip
from cnnopt_jax.models.layers import ConvUnit, Map, scaled
from cnnopt_jax.models.network import Network
from cnnopt_jax.models.pooling import ceil_max_pool

# Table 1 of the paper: squeeze channels, and channels of each of the two expansions.
FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
# Stem's channels and kernel, and the fire modules that a max-pool comes before.
VERSIONS = {'1.0': (96, 7, (2, 5, 9)), '1.1': (64, 3, (2, 4, 6))}


class Fire(nn.Module):
  """A 1x1 squeeze, then a 1x1 and a 3x3 expansion side by side.

  Attributes:
    squeezed: channels of the squeeze.
    expanded: channels of each expansion.
    plan: names of the units that are virtual.
  """

  squeezed: int
  expanded: int
  plan: vip.Plan = ()

  @nn.compact
  def __call__(self, x: Map, *, train: bool) -> jax.Array:
    """Maps [N, H, W, C] to [N, H, W, 2 expanded]."""

    def unit(name, features, kernel_size, x):
      return ConvUnit(features, kernel_size, norm=False, virtual=name in self.plan, name=name)(
        x, train=train
      )

    x = unit('squeeze', self.squeezed, 1, x)
    return jnp.concatenate(
      [
        vip.materialize(unit('expand1', self.expanded, 1, x)),
        vip.materialize(unit('expand3', self.expanded, 3, x)),
      ],
      axis=-1,
    )


class SqueezeNet(Network):
  """SqueezeNet, without dropout: 1,248,424 parameters in version 1.0, 1,235,496 in 1.1.

  Attributes:
    num_classes: number of logits.
    width_multiplier: scales every channel count.
    version: a key of `VERSIONS`.
    plan: names of the units that are virtual, such as 'fire2/expand3'.
  """

  num_classes: int
  width_multiplier: float = 1.0
  version: str = '1.0'
  plan: vip.Plan = ()

  @nn.compact
  def __call__(self, x: Map, *, train: bool = False) -> jax.Array:
    """Maps images [N, H, W, C] to logits [N, num_classes]; both sides at least 7."""
    channels, kernel_size, pooled = VERSIONS[self.version]
    x = ConvUnit(
      scaled(channels, self.width_multiplier),
      kernel_size,
      2,
      norm=False,
      padding=((0, 0), (0, 0)),
      virtual='stem' in self.plan,
      name='stem',
    )(x, train=train)
    for i, (squeezed, expanded) in enumerate(FIRES, 2):
      if i in pooled:
        x = ceil_max_pool(x)
      name = f'fire{i}'
      x = Fire(
        scaled(squeezed, self.width_multiplier),
        scaled(expanded, self.width_multiplier),
        vip.subplan(self.plan, name),
        name=name,
      )(x, train=train)
    x = ConvUnit(self.num_classes, 1, norm=False, virtual='classes' in self.plan, name='classes')(
      x, train=train
    )
    return vip.global_mean(x)
