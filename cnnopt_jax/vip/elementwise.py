"""Sums, ReLU, and what happens before interpolation."""

from collections.abc import Callable

import jax
from flax import linen as nn

from cnnopt_jax.kernels.interp2x_add_relu import interp2x_add_relu
from cnnopt_jax.vip.virtual_map import VirtualMap, materialize


def on_samples(
  f: Callable[[jax.Array], jax.Array], x: jax.Array | VirtualMap
) -> jax.Array | VirtualMap:
  """Applies a function *before* interpolation: the one way to do so.

  ViP's order is convolution, norm and activation on the samples, then interpolation. An activation
  does not commute with it: `on_samples(nn.relu, x)` is not `relu(x)`.

  Args:
    f: from [N, h, w, C] to [N, h, w, C'].
    x: a virtual map, or an array, of which every pixel is a sample.

  Returns:
    A virtual map of the same size, or `f(x)` for an array.
  """
  if isinstance(x, VirtualMap):
    return VirtualMap(f(x.samples), x.size)
  return f(x)


def relu(x: jax.Array | VirtualMap) -> jax.Array:
  """ReLU of the full map: not virtual, whatever `x` is."""
  return nn.relu(materialize(x))


def add(a: jax.Array | VirtualMap, b: jax.Array | VirtualMap) -> jax.Array | VirtualMap:
  """Sum of two maps of one shape; virtual where both are, for interpolation is linear.

  Raises:
    ValueError: if the shapes differ.
  """
  _same_shape(a, b)
  if isinstance(a, VirtualMap) and isinstance(b, VirtualMap):
    return VirtualMap(a.samples + b.samples, a.size)
  return materialize(a) + materialize(b)


def add_relu(a: jax.Array | VirtualMap, b: jax.Array | VirtualMap) -> jax.Array:
  """ReLU of the sum of two full maps, the tail of a residual block, written in one go.

  Raises:
    ValueError: if the shapes differ.
  """
  _same_shape(a, b)
  if isinstance(a, VirtualMap):
    if isinstance(b, VirtualMap):
      return relu(add(a, b))
    return interp2x_add_relu(a.samples, b, a.size, a_virtual=True, b_virtual=False)
  if isinstance(b, VirtualMap):
    return interp2x_add_relu(a, b.samples, b.size, a_virtual=False, b_virtual=True)
  return nn.relu(a + b)


def _same_shape(a, b) -> None:
  if tuple(a.shape) != tuple(b.shape):
    raise ValueError(f'shapes {tuple(a.shape)} and {tuple(b.shape)}; allowed: two of one shape')
