"""How the kernels walk over a row: tiles of columns x channels, staged in shared memory.

Mosaic moves blocks whose number of elements is a multiple of 128, and a row of `w` samples of `C`
channels need not be one. So a row is covered by tiles of `columns` positions of which the last
overlaps the one before it: it ends where the row ends, and what both cover is written twice by the
same program, with the same values. Neighbours across tiles, and what stands before the first and
after the last sample, come from a copy of the row in shared memory with a position more at either
end: the ends are written first, in tiles that spill inwards, then the row over them.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from cnnopt_jax.kernels import pallas

LANES = 128
DTYPES = ('float32', 'bfloat16')
CHANNELS_MULTIPLE = 16


@dataclasses.dataclass(frozen=True)
class Tile:
  """What a program works on at a time.

  Attributes:
    columns: positions of a row; `columns * channels` is a multiple of 128.
    channels: of the program; divides the map's.
    vector: neighbouring elements that a lane takes at a time; `128 * vector` divides the tile.
  """
  columns: int
  channels: int
  vector: int

  def load(self, ref: Any, *index: Any) -> jax.Array:
    """`[columns, channels]` of `ref`."""
    return pallas.load(ref, index, shape=(self.columns, self.channels), vector=self.vector)


def least_columns(channels: int) -> int:
  """The least number of columns of that many channels that Mosaic moves."""
  return LANES // math.gcd(channels, LANES)


def candidates(width: int, channels: int, dtype, buffers: int = 2) -> tuple[Tile, ...]:
  """Tiles that a search may try, by channels and columns, from large to small.

  Args:
    width: samples of a row.
    channels: of the map.
    dtype: of the map.
    buffers: rows that are kept in shared memory.

  Returns:
    Those that fit a row and 200 KiB of shared memory; at most 16 registers a lane and operand.
  """
  row_bytes = 200 * 1024 // (buffers * (width + 2) * max(4, jnp.dtype(dtype).itemsize))
  found = []
  for block in range(channels, 0, -CHANNELS_MULTIPLE):
    if channels % block or block > row_bytes:
      continue
    columns, tiles = least_columns(block), []
    while columns < width and columns * block <= 16 * LANES:
      # Up to the 16 bytes of one access; powers of two, as everything here.
      vector = math.gcd(columns * block // LANES, 16 // jnp.dtype(dtype).itemsize)
      tiles.append(Tile(columns, block, vector))
      columns *= 2
    found += reversed(tiles)
  return tuple(found)


def heuristic(width: int, channels: int, dtype, buffers: int = 2) -> Tile | None:
  """The tile used where none was measured; no GPU has confirmed it.

  Shared memory of 32 KiB a program leaves room for six programs a multiprocessor, whose loads
  overlap; 64 channels or more make whole 128-byte lines; a tile is one access of 16 bytes a lane.

  Returns:
    A tile, or None where the row is shorter than any.
  """
  fits = candidates(width, channels, dtype, buffers)
  if not fits:
    return None
  wanted = 16 * LANES // jnp.dtype(dtype).itemsize
  small = [tile for tile in fits
           if buffers * (width + 2) * tile.channels * 4 <= 32 * 1024 and tile.channels >= 64]
  block = max((tile.channels for tile in small), default=min(tile.channels for tile in fits))
  tiles = [tile for tile in fits if tile.channels == block]
  return next((tile for tile in tiles if tile.columns * block <= wanted), tiles[-1])


def starts(count: int, columns: int) -> list[int]:
  """Where the tiles of `count` positions start; the last is moved back to end with them."""
  return sorted({min(start, count - columns) for start in range(0, count, columns)})
