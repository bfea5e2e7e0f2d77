"""Max-pooling through the interpolation as Mosaic GPU kernels; `rows.py` says how they walk.

A program makes one row. The transpose finds the winners of the two rows of windows that a row of
samples stands in again, from the samples: less is moved than if the forward pass had stored them.
"""

import jax
import jax.numpy as jnp
from jax import lax

from cnnopt_jax.kernels import pallas
from cnnopt_jax.kernels.interp2x.mosaic import F32, block
from cnnopt_jax.kernels.interp2x_max_pool import reference
from cnnopt_jax.kernels.linear import Linear
from cnnopt_jax.kernels.rows import Tile, walk

# Shared memory for each channel of a row's samples: five rows in float32 at most.
POSITION_BYTES = 20


def _stage(rows, x, sources, tile: Tile, channels) -> None:
  """Rows of the samples to shared memory, each with its last sample again after it."""
  image, columns, width = lax.axis_index('image'), tile.columns, x.shape[2]

  def read(row, s):
    return tile.load(x, image, row, pallas.ds(s, columns), channels)

  for r, row in enumerate(sources):
    rows[r, pallas.ds(width + 1 - columns, columns)] = read(row, width - columns)
  pallas.barrier()

  def stage(s):
    for r, row in enumerate(sources):
      rows[r, pallas.ds(s, columns)] = read(row, s)

  walk(width, tile, stage)
  pallas.barrier()


def _window(rows, above: int, s: int, tile: Tile) -> tuple[jax.Array, ...]:
  """The four values of the windows between staged rows `above` and `above + 1`, from column s."""

  def at(r, s):
    return tile.load(rows, r, pallas.ds(s, tile.columns), slice(None)).astype(F32)

  return reference.values(at(above, s), at(above, s + 1), at(above + 1, s), at(above + 1, s + 1))


def max_pool(samples: jax.Array, *, size: tuple[int, int], tile: Tile) -> tuple[jax.Array]:
  """Samples `[N, h, w, C]` to the pooled map `[N, H // 2, W // 2, C]`."""
  batch, height, width, channels = samples.shape
  windows = (size[0] // 2, size[1] // 2)

  def body(x, out, rows):
    image, i, block_ = lax.axis_index('image'), lax.axis_index('row'), block(tile, channels)
    _stage(rows, x, (i, jnp.minimum(i + 1, height - 1)), tile, block_)

    def pool(s):
      a, b, c, d = _window(rows, 0, s, tile)
      best = jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))
      out[image, i, pallas.ds(s, tile.columns), block_] = best.astype(out.dtype)

    walk(windows[1], tile, pool)

  return (
    pallas.kernel(
      body,
      name='interp2x_max_pool',
      out_type=jax.ShapeDtypeStruct((batch, *windows, channels), samples.dtype),
      grid=(batch, windows[0], channels // tile.channels),
      grid_names=('image', 'row', 'channels'),
      scratch_types=[pallas.smem((2, width + 1, tile.channels), samples.dtype)],
    )(samples),
  )


def tangent(
  dx: jax.Array, samples: jax.Array, *, size: tuple[int, int], tile: Tile
) -> tuple[jax.Array]:
  """Forward mode is XLA's: nothing trains with it, and it is one fusion."""
  del tile
  return reference.tangent(dx, samples, size=size)


def transposed(
  cotangent: jax.Array, samples: jax.Array, *, size: tuple[int, int], tile: Tile
) -> tuple[jax.Array]:
  """Cotangent of the pooled map to that of the samples `[N, h, w, C]`."""
  batch, height, width, channels = samples.shape
  windows, columns = (size[0] // 2, size[1] // 2), tile.columns

  def body(g, x, out, rows, own, before):
    image, i, block_ = lax.axis_index('image'), lax.axis_index('row'), block(tile, channels)
    nothing = tile.zeros()
    # `before[j]` is what window j - 1 gives to sample j, `own[j]` what window j does, if there is.
    before[pallas.ds(0, columns)] = nothing
    if windows[1] < width:
      own[pallas.ds(width - columns, columns)] = nothing
    _stage(rows, x, (jnp.maximum(i - 1, 0), i, jnp.minimum(i + 1, height - 1)), tile, block_)

    # Rows of windows: staged row above, row, shares if the winner is in its upper, lower half.
    exists = jnp.where(i < windows[0], 1.0, 0.0)
    row_windows = (
      (1, jnp.minimum(i, windows[0] - 1), exists, 0.5 * exists),
      (0, jnp.maximum(i - 1, 0), 0.0, jnp.where(i > 0, 0.5, 0.0)),
    )

    def give(s):
      mine = after = nothing
      for above, row, upper, lower in row_windows:
        low, odd = reference.winner(_window(rows, above, s, tile))[1:]
        given = tile.load(g, image, row, pallas.ds(s, columns), block_).astype(F32)
        given = jnp.where(low > 0, given * jnp.asarray(lower, F32), given * jnp.asarray(upper, F32))
        half = given * 0.5
        mine = mine + jnp.where(odd > 0, half, given)
        after = after + jnp.where(odd > 0, half, nothing)
      own[pallas.ds(s, columns)] = mine
      before[pallas.ds(s + 1, columns)] = after

    def take(s):
      total = tile.load(own, pallas.ds(s, columns), slice(None)) + tile.load(
        before, pallas.ds(s, columns), slice(None)
      )
      out[image, i, pallas.ds(s, columns), block_] = total.astype(out.dtype)

    walk(windows[1], tile, give)
    pallas.barrier()
    walk(width, tile, take)

  return (
    pallas.kernel(
      body,
      name='interp2x_max_pool_transposed',
      out_type=jax.ShapeDtypeStruct(samples.shape, cotangent.dtype),
      grid=(batch, height, channels // tile.channels),
      grid_names=('image', 'row', 'channels'),
      scratch_types=[
        pallas.smem((3, width + 1, tile.channels), samples.dtype),
        pallas.smem((width, tile.channels), F32),
        pallas.smem((width + 1, tile.channels), F32),
      ],
    )(cotangent, samples),
  )


OP = Linear(tangent, transposed)
