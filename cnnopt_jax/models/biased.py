"""Layers of the networks from before batch norm: convolutions with bias, and their pooling."""

import jax
from flax import linen as nn

from cnnopt_jax.kernels.conv import conv_general_dilated


class BiasedConvUnit(nn.Module):
  """Convolution with bias, then ReLU.

  Attributes:
    features: number of output channels.
    kernel_size: side of the square kernel.
    stride: in both directions.
    padding: zeros on every side.
    groups: number of channel groups.
  """
  features: int
  kernel_size: int = 3
  stride: int = 1
  padding: int = 0
  groups: int = 1

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [N, H, W, C] to [N, (H + 2 padding - kernel_size) // stride + 1, ..., features]."""
    x = nn.Conv(self.features, (self.kernel_size, self.kernel_size), strides=self.stride,
                padding=((self.padding, self.padding),) * 2, feature_group_count=self.groups,
                kernel_init=nn.initializers.he_normal(), name='conv',
                conv_general_dilated=conv_general_dilated)(x)
    return nn.relu(x)


def ceil_max_pool(x: jax.Array, window: int = 3, stride: int = 2) -> jax.Array:
  """Max-pool whose last windows may hang over the edge, as Caffe pools; [N, H, W, C]."""
  over = [max(window - size, (window - size) % stride) for size in x.shape[1:3]]
  return nn.max_pool(x, (window, window), (stride, stride), [(0, high) for high in over])
