"""AlexNet (Krizhevsky et al., NIPS 2012) with the two groups of the original, as in Caffe."""

import jax
from flax import linen as nn

from cnnopt_jax import vip
from cnnopt_jax.models.layers import ConvUnit, Map, scaled
from cnnopt_jax.models.network import Network
from cnnopt_jax.models.pooling import ceil_max_pool

# Channels, kernel, stride, padding, groups; of images of 227x227.
CONVS = (
  (96, 11, 4, 0, 1),
  (256, 5, 1, 2, 2),
  (384, 3, 1, 1, 1),
  (384, 3, 1, 1, 2),
  (256, 3, 1, 1, 2),
)
POOLED = (1, 2, 5)  # The convolutions that a 3x3 max-pool of stride 2 follows.
NORMALIZED = (1, 2)  # Those that local response normalisation follows, before the pool.
HIDDEN = (4096, 4096)


def local_response_norm(
  x: jax.Array, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75
) -> jax.Array:
  """x / (1 + alpha / size * sum of squares over `size` neighbouring channels)^beta; [..., C]."""
  window = (1,) * (x.ndim - 1) + (size,)
  sums = jax.lax.reduce_window(x * x, 0.0, jax.lax.add, window, (1,) * x.ndim, 'SAME')
  return x / (1 + alpha / size * sums) ** beta


class AlexNet(Network):
  """Five convolutions and three dense layers, without dropout; 60,965,224 parameters.

  These are Caffe's bvlc_alexnet, at 227x227 pixels. Smaller images shrink the first dense layer.

  Attributes:
    num_classes: number of logits.
    width_multiplier: scales every channel count, to an even number.
    plan: names of the units that are virtual, such as 'conv2'.
  """

  num_classes: int
  width_multiplier: float = 1.0
  plan: vip.Plan = ()

  @nn.compact
  def __call__(self, x: Map, *, train: bool = False) -> jax.Array:
    """Maps images [N, H, W, C] to logits [N, num_classes]; both sides at least 11."""

    def even(channels: int) -> int:
      # Two groups divide every channel count.
      return 2 * scaled(channels // 2, self.width_multiplier)

    for i, (channels, kernel_size, stride, padding, groups) in enumerate(CONVS, 1):
      x = ConvUnit(
        even(channels),
        kernel_size,
        stride,
        groups,
        norm=False,
        padding=((padding,) * 2,) * 2,
        virtual=f'conv{i}' in self.plan,
        name=f'conv{i}',
      )(x, train=train)
      if i in NORMALIZED:
        x = local_response_norm(vip.materialize(x))
      if i in POOLED:
        x = ceil_max_pool(x)
    x = vip.materialize(x).reshape(x.shape[0], -1)
    for i, features in enumerate(HIDDEN, 6):
      x = nn.relu(
        nn.Dense(even(features), kernel_init=nn.initializers.he_normal(), name=f'dense{i}')(x)
      )
    return nn.Dense(self.num_classes, name='dense8')(x)
