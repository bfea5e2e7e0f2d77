"""The conv unit that every network here is built from."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnnopt_jax import vip
from cnnopt_jax.models.norm import BatchNorm

Map = jax.Array | vip.VirtualMap


def scaled(channels: int, width_multiplier: float) -> int:
  """Number of channels at a width multiplier: the nearest integer, at least 1."""
  return max(1, round(channels * width_multiplier))


class ConvParameters(nn.Module):
  """The kernel of a convolution, as `flax.linen.Conv` would keep it, and perhaps a bias.

  Attributes:
    shape: [kh, kw, Cin / groups, features].
    use_bias: whether there is one.
  """

  shape: tuple[int, int, int, int]
  use_bias: bool = False

  @nn.compact
  def __call__(
    self,
  ) -> tuple[jax.Array | vip.FoldedKernel | vip.WinogradKernel, jax.Array | None]:
    """The kernel, prepared if the variables hold a prepared one, and the bias or None."""
    kernel = self.param('kernel', nn.initializers.he_normal(), self.shape, jnp.float32)
    if not self.use_bias:
      return kernel, None
    return kernel, self.param('bias', nn.initializers.zeros, self.shape[-1:], jnp.float32)


def same_padding(
  size: tuple[int, int], kernel_size: int, stride: int
) -> tuple[tuple[int, int], tuple[int, int]]:
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
  """Convolution, batch norm or bias, activation; and if virtual, interpolation.

  Attributes:
    features: number of output channels.
    kernel_size: side of the square kernel, odd.
    stride: in both directions.
    groups: number of channel groups; the input's channel count for a depth-wise convolution.
    activation: applied last; None for the identity.
    norm: batch norm after the convolution, which then has no bias; otherwise a bias.
    epsilon: of the batch norm.
    padding: ((top, bottom), (left, right)), or as `vip.conv` takes it; None for half a kernel on
      every side.
    virtual: computes every other row and column and gives a `vip.VirtualMap`; norm and activation
      act on what was computed. `vip.mask_variables` does the same by data.
  """

  features: int
  kernel_size: int = 3
  stride: int = 1
  groups: int = 1
  activation: Callable[[jax.Array], jax.Array] | None = nn.relu
  norm: bool = True
  epsilon: float = 1e-5
  padding: tuple[tuple[int, int], tuple[int, int]] | str | int | None = None
  virtual: bool = False

  @nn.compact
  def __call__(self, x: Map, *, train: bool) -> Map:
    """Maps [N, H, W, C] to [N, ceil(H / stride), ceil(W / stride), features]."""
    side = self.kernel_size
    shape = side, side, x.shape[-1] // self.groups, self.features
    kernel, bias = ConvParameters(shape, use_bias=not self.norm, name='conv')()
    dtype = jnp.result_type(jax.tree.leaves(x)[0], kernel.dtype)
    x, kernel = x.astype(dtype), kernel.astype(dtype)
    # Not `or`: a padding of 0 is one.
    padding = ((side // 2, side // 2),) * 2 if self.padding is None else self.padding
    self._check_prepared(kernel, x)
    y = vip.conv(
      x, kernel, stride=self.stride, padding=padding, groups=self.groups, virtual=self.virtual
    )

    def norm_and_activation(y):
      if self.norm:
        y = BatchNorm(not train, epsilon=self.epsilon, name='norm')(y)
      else:
        y = y + bias
      return self.activation(y) if self.activation else y

    y = vip.on_samples(norm_and_activation, y)
    mask: Any = self.get_variable(vip.MASK_COLLECTION, vip.MASK_NAME)
    if mask is None or self.virtual:
      return y
    # Under a plan that is data both are computed: the dense map, and what a virtual one would stand
    # for; the mask takes one.
    y = vip.materialize(y)
    _, height, width, _ = y.shape
    restored = vip.VirtualMap(y[:, ::2, ::2], (height, width)).materialize()
    return jnp.where(mask != 0, restored, y)

  def _check_prepared(self, kernel, x: Map) -> None:
    """Refuses a kernel that was prepared for another input than it gets."""
    if not isinstance(kernel, vip.FoldedKernel | vip.WinogradKernel):
      return
    prepared_for, read = (
      'a virtual map' if virtual else 'an array'
      for virtual in (isinstance(kernel, vip.FoldedKernel), isinstance(x, vip.VirtualMap))
    )
    if prepared_for != read:
      raise ValueError(
        f'params: the kernel of {"/".join(self.path)!r} is prepared for {prepared_for} and reads '
        f'{read}; allowed: inference_params of the trained parameters for this plan and size of '
        'images'
      )


class Classifier(nn.Module):
  """Mean over the map, then a dense layer."""

  num_classes: int

  @nn.compact
  def __call__(self, x: Map) -> jax.Array:
    """Maps [N, H, W, C] to logits [N, num_classes]."""
    return nn.Dense(self.num_classes, name='dense')(vip.global_mean(x))
