"""Sums, products, ReLU, maps side by side, and what happens before interpolation."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from cnnopt_jax.kernels.interp2x_add_relu import interp2x_add_relu
from cnnopt_jax.vip.arguments import as_map
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
  """Sum of two maps of one shape, or of a map and what is one number for each channel.

  Virtual where both maps are, for interpolation is linear; and where what is added to a virtual map
  is constant along rows and columns, for its weights sum to 1.

  Args:
    a: [N, H, W, C], or a virtual map of that shape.
    b: the same; or an array that broadcasts to it and has no rows and columns of its own: a number,
      [C], [N, 1, 1, C]. Either may stand first.

  Returns:
    The sum, of the map's shape.

  Raises:
    ValueError: if the shapes are others.
  """
  found = _with_constant(jnp.add, a, b)
  if found is not None:
    return found
  _same_shape(a, b, or_constant=True)
  if isinstance(a, VirtualMap) and isinstance(b, VirtualMap):
    return VirtualMap(a.samples + b.samples, a.size)
  return materialize(a) + materialize(b)


def multiply(a: jax.Array | VirtualMap, b: jax.Array | VirtualMap) -> jax.Array | VirtualMap:
  """Product of a map with one number for each channel, or of two maps of one shape.

  What is constant along rows and columns commutes with interpolation, so a virtual map times that
  is one; the product of two maps is written in full. A squeeze-and-excitation block, with its two
  dense layers in `gate`, is

      vip.multiply(x, gate(vip.global_mean(x))[:, None, None])

  Args:
    a: [N, H, W, C], or a virtual map of that shape.
    b: as in `add`.

  Returns:
    The product, of the map's shape.

  Raises:
    ValueError: if the shapes are others.
  """
  found = _with_constant(jnp.multiply, a, b)
  if found is not None:
    return found
  _same_shape(a, b, or_constant=True)
  return materialize(a) * materialize(b)


def concatenate(maps: Sequence[jax.Array | VirtualMap], axis: int = -1) -> jax.Array | VirtualMap:
  """Maps side by side, of channels or of images; virtual where all of them are.

  Args:
    maps: [N, H, W, C] each, or virtual maps of such shapes, which differ along `axis` at most.
    axis: of channels, -1 or 3, or of images, 0 or -4.

  Returns:
    The maps in one, in their order.

  Raises:
    ValueError: if there are none, shapes differ elsewhere, or the axis is of rows or columns:
      pixels on a seam would be interpolated between two maps.
  """
  maps = [as_map(f'maps[{i}]', x) for i, x in enumerate(maps)]
  if not maps:
    raise ValueError('maps is empty; allowed: one map or more')
  if axis not in (0, 3, -1, -4):
    raise ValueError(
      f'axis={axis!r}; allowed: -1 for channels, 0 for images; for others materialize() first'
    )
  elsewhere = {tuple(n for i, n in enumerate(x.shape) if i != axis % 4) for x in maps}
  if len(elsewhere) > 1:
    shapes = ', '.join(str(tuple(x.shape)) for x in maps)
    raise ValueError(f'shapes {shapes}; allowed: shapes that differ along axis {axis} alone')
  first = maps[0]
  if isinstance(first, VirtualMap) and all(isinstance(x, VirtualMap) for x in maps):
    samples = [x.samples for x in maps if isinstance(x, VirtualMap)]
    return VirtualMap(jnp.concatenate(samples, axis), first.size)
  return jnp.concatenate([materialize(x) for x in maps], axis)


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


def _with_constant(f: Callable[..., jax.Array], a: Any, b: Any) -> jax.Array | VirtualMap | None:
  """`f` of a map and what is constant along its rows and columns; None if neither is."""
  if _is_constant(b, a):
    return on_samples(lambda samples: f(samples, b), a)
  return on_samples(lambda samples: f(a, samples), b) if _is_constant(a, b) else None


def _is_constant(value, x) -> bool:
  """Whether an array is the same in all rows and columns of a map, and broadcasts to it."""
  if isinstance(value, VirtualMap) or np.ndim(x) != 4 and not isinstance(x, VirtualMap):
    return False
  shape = np.shape(value)
  if len(shape) > 4 or any(n != 1 for n in shape[-3:-1]):
    return False
  return all(n in (1, m) for n, m in zip(reversed(shape), reversed(x.shape)))


def _same_shape(a, b, *, or_constant: bool = False) -> None:
  shapes = [tuple(x.shape) if isinstance(x, VirtualMap) else np.shape(x) for x in (a, b)]
  if shapes[0] != shapes[1]:
    also = ', or a map and one number for each channel' if or_constant else ''
    raise ValueError(f'shapes {shapes[0]} and {shapes[1]}; allowed: two of one shape{also}')
