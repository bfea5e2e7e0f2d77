"""Border-exact padding and its transpose as Mosaic GPU kernels; `rows.py` says how they walk."""

import jax
import jax.numpy as jnp
from jax import lax

from cnnopt_jax.kernels import pallas
from cnnopt_jax.kernels.border_pad.reference import last_sign
from cnnopt_jax.kernels.interp2x.mosaic import F32, block
from cnnopt_jax.kernels.linear import Linear
from cnnopt_jax.kernels.rows import Tile, walk

# Shared memory for each channel of a row's samples: two rows in float32.
POSITION_BYTES = 8


def border_pad(samples: jax.Array, *, size: tuple[int, int], tile: Tile) -> tuple[jax.Array]:
  """Samples `[N, h, w, C]` to `[N, h + 2, w + 2, C]`."""
  batch, height, width, channels = samples.shape
  columns = tile.columns

  def body(x, out, padded):
    image, i, block_ = lax.axis_index('image'), lax.axis_index('row'), block(tile, channels)
    sign = jnp.where(i == 0, -1.0, jnp.where(i == height + 1, last_sign(size[0]), 1.0)).astype(F32)
    row = jnp.clip(i - 1, 0, height - 1)

    def read(s):
      return tile.load(x, image, row, pallas.ds(s, columns), block_).astype(F32) * sign

    padded[pallas.ds(0, columns)] = -read(0)
    padded[pallas.ds(width + 2 - columns, columns)] = last_sign(size[1]) * read(width - columns)
    pallas.barrier()

    def stage(s):
      padded[pallas.ds(s + 1, columns)] = read(s)

    def write(s):
      out[image, i, pallas.ds(s, columns), block_] = tile.load(
        padded, pallas.ds(s, columns), slice(None)
      ).astype(out.dtype)

    walk(width, tile, stage)
    pallas.barrier()
    walk(width + 2, tile, write)

  return (
    pallas.kernel(
      body,
      name='border_pad',
      out_type=jax.ShapeDtypeStruct((batch, height + 2, width + 2, channels), samples.dtype),
      grid=(batch, height + 2, channels // tile.channels),
      grid_names=('image', 'row', 'channels'),
      scratch_types=[pallas.smem((width + 2, tile.channels), F32)],
    )(samples),
  )


def border_pad_transposed(
  cotangent: jax.Array, *, size: tuple[int, int], tile: Tile
) -> tuple[jax.Array]:
  """Cotangent of the padded map `[N, h + 2, w + 2, C]` to that of the samples `[N, h, w, C]`."""
  batch, channels, columns = cotangent.shape[0], cotangent.shape[3], tile.columns
  height, width = cotangent.shape[1] - 2, cotangent.shape[2] - 2

  def body(g, out, first, last):
    image, i, block_ = lax.axis_index('image'), lax.axis_index('row'), block(tile, channels)
    # The borders' rows; elsewhere the same row again with weight zero, which is in a cache.
    weighted = (
      (i + 1, 1.0),
      (jnp.where(i == 0, 0, i + 1), jnp.where(i == 0, -1.0, 0.0)),
      (
        jnp.where(i == height - 1, height + 1, i + 1),
        jnp.where(i == height - 1, last_sign(size[0]), 0.0),
      ),
    )

    def column_sum(s):
      return sum(
        tile.load(g, image, row, pallas.ds(s, columns), block_).astype(F32)
        * jnp.asarray(weight, F32)
        for row, weight in weighted
      )

    # Zero but for the first sample of `first` and the last of `last`.
    first[pallas.ds(0, columns)] = -column_sum(0)
    last[pallas.ds(width - columns, columns)] = last_sign(size[1]) * column_sum(width + 2 - columns)
    pallas.barrier()
    nothing = tile.zeros()

    def clear(s):
      first[pallas.ds(s + 1, columns)] = nothing
      last[pallas.ds(s, columns)] = nothing

    def total(s):
      ends = tile.load(first, pallas.ds(s, columns), slice(None)) + tile.load(
        last, pallas.ds(s, columns), slice(None)
      )
      out[image, i, pallas.ds(s, columns), block_] = (column_sum(s + 1) + ends).astype(out.dtype)

    walk(width - 1, tile, clear)
    pallas.barrier()
    walk(width, tile, total)

  return (
    pallas.kernel(
      body,
      name='border_pad_transposed',
      out_type=jax.ShapeDtypeStruct((batch, height, width, channels), cotangent.dtype),
      grid=(batch, height, channels // tile.channels),
      grid_names=('image', 'row', 'channels'),
      scratch_types=[pallas.smem((width, tile.channels), F32)] * 2,
    )(cotangent),
  )


OP = Linear(border_pad, border_pad_transposed)
