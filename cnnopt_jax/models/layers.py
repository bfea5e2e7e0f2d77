"""The conv unit that every network here is built from."""

from collections.abc import Callable

import jax
from flax import linen as nn

from cnnopt_jax.kernels.conv import conv_general_dilated


def scaled(channels: int, width_multiplier: float) -> int:
  """Number of channels at a width multiplier: the nearest integer, at least 1."""
  return max(1, round(channels * width_multiplier))


def same_padding(size: tuple[int, int], kernel_size: int,
                 stride: int) -> tuple[tuple[int, int], tuple[int, int]]:
  """TensorFlow's 'SAME' padding: only as much as ceil(size / stride) outputs need, odd part last.

  At stride 2 an even side gets one zero less than kernel_size // 2 on both sides, before the map.

  Args:
    size: height and width of the map.
    kernel_size: side of the square kernel.
    stride: in both directions.

  Returns:
    ((above, below), (left, right)).
  """
  def one_axis(length: int) -> tuple[int, int]:
    zeros = max(0, (-(-length // stride) - 1) * stride + kernel_size - length)
    return zeros // 2, zeros - zeros // 2
  return one_axis(size[0]), one_axis(size[1])


class ConvUnit(nn.Module):
  """Convolution without bias, batch norm, activation.

  Attributes:
    features: number of output channels.
    kernel_size: side of the square kernel, odd.
    stride: in both directions.
    groups: number of channel groups; the input's channel count for a depth-wise convolution.
    activation: applied last; None for the identity.
    epsilon: added to the variance by the norm.
    padding: zeros ((above, below), (left, right)); None for kernel_size // 2 on every side.
  """
  features: int
  kernel_size: int = 3
  stride: int = 1
  groups: int = 1
  activation: Callable[[jax.Array], jax.Array] | None = nn.relu
  epsilon: float = 1e-5
  padding: tuple[tuple[int, int], tuple[int, int]] | None = None

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps [N, H, W, C] to [N, ceil(H / stride), ceil(W / stride), features].

    That is the size with the default padding and with `same_padding`'s.
    """
    half = self.kernel_size // 2
    padding = ((half, half), (half, half)) if self.padding is None else self.padding
    x = nn.Conv(self.features, (self.kernel_size, self.kernel_size), strides=self.stride,
                padding=padding, feature_group_count=self.groups, use_bias=False,
                kernel_init=nn.initializers.he_normal(), name='conv',
                conv_general_dilated=conv_general_dilated)(x)
    x = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=self.epsilon,
                     name='norm')(x)
    return x if self.activation is None else self.activation(x)


class Classifier(nn.Module):
  """Mean over the map, then a dense layer."""
  num_classes: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [N, H, W, C] to logits [N, num_classes]."""
    return nn.Dense(self.num_classes, name='dense')(x.mean((1, 2)))
