"""The interpolation and its transpose as Mosaic GPU kernels; `rows.py` says how they walk.

A program makes the two rows of the map that a row of samples stands for, or in the transpose one
row of samples from the three rows of the map that read it: no atomics. The map is seen as
`[positions / 2, 2, C]`, so that every second position of a row is a block with a stride; where all
of N, H and W are odd, that view needs one position more, and costs a copy.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from cnnopt_jax.kernels import pallas, taps
from cnnopt_jax.kernels.linear import Linear
from cnnopt_jax.kernels.rows import Tile, walk

F32 = jnp.float32

# Shared memory for each channel of a row's samples: two rows in float32 at most.
POSITION_BYTES = 8


def pairs_type(batch: int, size: tuple[int, int], channels: int, dtype) -> jax.ShapeDtypeStruct:
  """The map seen as pairs of positions."""
  return jax.ShapeDtypeStruct((-(-batch * size[0] * size[1] // 2), 2, channels), dtype)


def to_pairs(x: jax.Array) -> jax.Array:
  """`[N, H, W, C]` as pairs of positions."""
  flat = x.reshape(-1, x.shape[-1])
  if flat.shape[0] % 2:
    flat = jnp.pad(flat, ((0, 1), (0, 0)))
  return flat.reshape(-1, 2, x.shape[-1])


def from_pairs(pairs: jax.Array, batch: int, size: tuple[int, int]) -> jax.Array:
  """Pairs of positions as `[N, H, W, C]`."""
  flat = pairs.reshape(-1, pairs.shape[-1])
  return flat[: batch * size[0] * size[1]].reshape(batch, *size, pairs.shape[-1])


def every_second(size: tuple[int, int], image, row, column: int, tile: Tile, channels):
  """Index into pairs of every second position of a row, starting from `column`."""
  position = (image * size[0] + row) * size[1] + column
  return pallas.ds(position // 2, tile.columns), position % 2, channels


def block(tile: Tile, channels: int):
  """The program's channels; the whole axis where there is one block, so that rows stay dense."""
  if tile.channels == channels:
    return slice(None)
  return pallas.ds(lax.axis_index('channels') * tile.channels, tile.channels)


def interpolate(rows, emit, *, height: int, size: tuple[int, int], tile: Tile, read) -> None:
  """Body of a program that makes rows 2i and 2i + 1 of the map.

  Args:
    rows: shared memory `[2, w + 1, channels]`.
    emit: `(row, column, values)` writes float32 `[columns, channels]` to every second position.
    height: samples of a column.
    size: of the map.
    tile: how a row is walked.
    read: `(row, column) -> [columns, channels]` of the samples.
  """
  i, width, columns = lax.axis_index('row'), rows.shape[1] - 1, tile.columns
  sources = (i, jnp.minimum(i + 1, height - 1))
  for r, row in enumerate(sources):  # The last sample again, for the repeated edge.
    rows[r, pallas.ds(width + 1 - columns, columns)] = read(row, width - columns)
  pallas.barrier()

  def stage(s):
    for r, row in enumerate(sources):
      rows[r, pallas.ds(s, columns)] = read(row, s)

  walk(width, tile, stage)
  pallas.barrier()

  def at(r, s):
    return tile.load(rows, r, pallas.ds(s, columns), slice(None)).astype(F32)

  def even(s):
    here, below = at(0, s), at(1, s)
    emit(2 * i, 2 * s, here)
    pallas.when(2 * i + 1 < size[0])(
      functools.partial(emit, 2 * i + 1, 2 * s, (here + below) * 0.5)
    )

  def odd(s):
    here, below = at(0, s) + at(0, s + 1), at(1, s) + at(1, s + 1)
    emit(2 * i, 2 * s + 1, here * 0.5)
    pallas.when(2 * i + 1 < size[0])(
      functools.partial(emit, 2 * i + 1, 2 * s + 1, (here + below) * 0.25)
    )

  walk(width, tile, even)
  walk(size[1] // 2, tile, odd)


def gather_back(odd, write, *, height: int, size: tuple[int, int], tile: Tile, read) -> None:
  """Body of a program that makes row i of the samples' cotangent.

  Args:
    odd: shared memory, float32 `[w + 1, channels]`.
    write: `(column, values)` writes float32 `[columns, channels]` to the samples' cotangent.
    height: samples of a column.
    size: of the map.
    tile: how a row is walked.
    read: `(row, column) -> float32 [columns, channels]` of every second position of the map's
      cotangent.
  """
  i, width, columns = lax.axis_index('row'), odd.shape[0] - 1, tile.columns
  # The map's rows that read this one; a row out of the map is its neighbour with weight zero, and
  # the last row takes all of a repeated edge.
  last = jnp.where(i == height - 1, 1.0, 0.5)
  weighted = (
    (2 * i, 1.0),
    (jnp.maximum(2 * i - 1, 0), jnp.where(i > 0, 0.5, 0.0)),
    (jnp.minimum(2 * i + 1, size[0] - 1), jnp.where(2 * i + 1 < size[0], last, 0.0)),
  )

  def column_sum(column):
    return sum(read(row, column) * jnp.asarray(weight, F32) for row, weight in weighted)

  # odd[j] and odd[j + 1] are what the odd positions before and after position 2j give: nothing
  # before the first, and twice the last where it repeats the last sample.
  nothing = tile.zeros()
  odd[pallas.ds(0, columns)] = nothing
  last = 2 * column_sum(2 * (width - columns) + 1) if size[1] % 2 == 0 else nothing
  odd[pallas.ds(width + 1 - columns, columns)] = last
  pallas.barrier()

  def stage(s):
    odd[pallas.ds(s + 1, columns)] = column_sum(2 * s + 1)

  def total(s):
    before, after = (tile.load(odd, pallas.ds(j, columns), slice(None)) for j in (s, s + 1))
    write(s, column_sum(2 * s) + (before + after) * 0.5)

  walk(width - 1, tile, stage)
  pallas.barrier()
  walk(width, tile, total)


def interp2x(samples: jax.Array, *, size: tuple[int, int], tile: Tile) -> tuple[jax.Array]:
  """Samples `[N, h, w, C]` to the map `[N, H, W, C]`."""
  batch, height, width, channels = samples.shape

  def body(x, out, rows):
    image, block_ = lax.axis_index('image'), block(tile, channels)

    def emit(row, column, values):
      out[every_second(size, image, row, column, tile, block_)] = values.astype(out.dtype)

    interpolate(
      rows,
      emit,
      height=height,
      size=size,
      tile=tile,
      read=lambda row, s: tile.load(x, image, row, pallas.ds(s, tile.columns), block_),
    )

  out = pallas.kernel(
    body,
    name='interp2x',
    out_type=pairs_type(batch, size, channels, samples.dtype),
    grid=(batch, height, channels // tile.channels),
    grid_names=('image', 'row', 'channels'),
    scratch_types=[pallas.smem((2, width + 1, tile.channels), samples.dtype)],
  )(samples)
  return (from_pairs(out, batch, size),)


def interp2x_transposed(
  cotangent: jax.Array, *, size: tuple[int, int], tile: Tile
) -> tuple[jax.Array]:
  """Cotangent of the map `[N, H, W, C]` to that of the samples `[N, h, w, C]`."""
  batch, channels = cotangent.shape[0], cotangent.shape[3]
  height, width = map(taps.samples_of, size)

  def body(g, out, odd):
    image, block_ = lax.axis_index('image'), block(tile, channels)

    def write(s, values):
      out[image, lax.axis_index('row'), pallas.ds(s, tile.columns), block_] = values.astype(
        out.dtype
      )

    gather_back(
      odd,
      write,
      height=height,
      size=size,
      tile=tile,
      read=lambda row, s: tile.load(g, *every_second(size, image, row, s, tile, block_)).astype(
        F32
      ),
    )

  out = pallas.kernel(
    body,
    name='interp2x_transposed',
    out_type=jax.ShapeDtypeStruct((batch, height, width, channels), cotangent.dtype),
    grid=(batch, height, channels // tile.channels),
    grid_names=('image', 'row', 'channels'),
    scratch_types=[pallas.smem((width + 1, tile.channels), F32)],
  )(to_pairs(cotangent))
  return (out,)


OP = Linear(interp2x, interp2x_transposed)
