"""The residual block's tail with virtual operands as Mosaic GPU kernels, around `interp2x`'s."""

import jax
import jax.numpy as jnp
from jax import lax

from cnnopt_jax.kernels import pallas, taps
from cnnopt_jax.kernels.interp2x import mosaic as interp2x
from cnnopt_jax.kernels.interp2x.mosaic import F32, block, every_second, from_pairs, to_pairs
from cnnopt_jax.kernels.interp2x_add_relu import reference
from cnnopt_jax.kernels.linear import Linear
from cnnopt_jax.kernels.rows import Tile, walk

# Shared memory for each channel of a row's samples: two rows in float32.
POSITION_BYTES = 8


def add_relu(
  virtual: jax.Array, other: jax.Array, *, size: tuple[int, int], other_virtual: bool, tile: Tile
) -> tuple[jax.Array]:
  """relu of the sum: samples `[N, h, w, C]` and samples or a map `[N, H, W, C]` to a map."""
  batch, height, width, channels = virtual.shape

  def body(x, y, out, rows):
    image, block_ = lax.axis_index('image'), block(tile, channels)

    def read(row, s):
      at = image, row, pallas.ds(s, tile.columns), block_
      if other_virtual:
        return tile.load(x, *at).astype(F32) + tile.load(y, *at).astype(F32)
      return tile.load(x, *at)

    def emit(row, column, values):
      at = every_second(size, image, row, column, tile, block_)
      if not other_virtual:
        values = values + tile.load(y, *at).astype(F32)
      out[at] = jnp.maximum(values, 0.0).astype(out.dtype)

    interp2x.interpolate(rows, emit, height=height, size=size, tile=tile, read=read)

  staged = F32 if other_virtual else virtual.dtype
  out = pallas.kernel(
    body,
    name='interp2x_add_relu',
    out_type=interp2x.pairs_type(batch, size, channels, virtual.dtype),
    grid=(batch, height, channels // tile.channels),
    grid_names=('image', 'row', 'channels'),
    scratch_types=[pallas.smem((2, width + 1, tile.channels), staged)],
  )(virtual, other if other_virtual else to_pairs(other))
  return (from_pairs(out, batch, size),)


def tangent(
  virtual: jax.Array,
  other: jax.Array,
  out: jax.Array,
  *,
  size: tuple[int, int],
  other_virtual: bool,
  tile: Tile,
) -> tuple[jax.Array]:
  """Forward mode is XLA's: nothing trains with it, and it is one fusion."""
  del tile
  return reference.tangent(virtual, other, out > 0, size=size, other_virtual=other_virtual)


def transposed(
  cotangent: jax.Array, out: jax.Array, *, size: tuple[int, int], other_virtual: bool, tile: Tile
) -> tuple[jax.Array, jax.Array]:
  """Cotangent of the map to those of both operands: both in one pass over it."""
  batch, channels = cotangent.shape[0], cotangent.shape[3]
  height, width = map(taps.samples_of, size)

  def body(g, y, virtual, *rest):
    image, i, block_ = lax.axis_index('image'), lax.axis_index('row'), block(tile, channels)
    *others, odd = rest

    def read(row, s):
      at = every_second(size, image, row, s, tile, block_)
      given, value = tile.load(g, *at).astype(F32), tile.load(y, *at).astype(F32)
      return jnp.where(value > 0.0, given, tile.zeros())

    def write(s, values):
      virtual[image, i, pallas.ds(s, tile.columns), block_] = values.astype(virtual.dtype)

    interp2x.gather_back(odd, write, height=height, size=size, tile=tile, read=read)
    for other in others:
      for row in (2 * i, 2 * i + 1):

        @pallas.when(row < size[0])
        def _(row=row, other=other):
          for phase, count in ((0, width), (1, size[1] // 2)):

            def copy(s, phase=phase):
              at = every_second(size, image, row, 2 * s + phase, tile, block_)
              other[at] = read(row, 2 * s + phase).astype(other.dtype)

            walk(count, tile, copy)

  samples = jax.ShapeDtypeStruct((batch, height, width, channels), cotangent.dtype)
  pairs = interp2x.pairs_type(batch, size, channels, cotangent.dtype)
  outs = pallas.kernel(
    body,
    name='interp2x_add_relu_transposed',
    out_type=(samples,) if other_virtual else (samples, pairs),
    grid=(batch, height, channels // tile.channels),
    grid_names=('image', 'row', 'channels'),
    scratch_types=[pallas.smem((width + 1, tile.channels), F32)],
  )(to_pairs(cotangent), to_pairs(out))
  return outs[0], outs[0] if other_virtual else from_pairs(outs[1], batch, size)


OP = Linear(tangent, transposed)
