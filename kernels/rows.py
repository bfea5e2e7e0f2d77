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
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

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

  def zeros(self) -> jax.Array:
    """float32 `[columns, channels]`."""
    return pallas.zeros((self.columns, self.channels), self.vector)


def least_columns(channels: int) -> int:
  """The least number of columns of that many channels that Mosaic moves."""
  return LANES // math.gcd(channels, LANES)


def candidates(width: int, channels: int, dtype, position_bytes: int) -> tuple[Tile, ...]:
  """Tiles that a search may try, by channels and columns, from large to small.

  Args:
    width: samples of a row.
    channels: of the map.
    dtype: of the map.
    position_bytes: shared memory that a program needs for each channel of each sample of a row.

  Returns:
    Those that fit a row and 200 KiB of shared memory, with at most 16 elements a lane.
  """
  found: list[Tile] = []
  for block in range(channels, 0, -CHANNELS_MULTIPLE):
    if channels % block or _shared_bytes(width, block, position_bytes) > 200 * 1024:
      continue
    columns, tiles = least_columns(block), []
    while columns < width and columns * block <= 16 * LANES:
      # Up to the 16 bytes of one access; powers of two, as everything here.
      vector = math.gcd(columns * block // LANES, 16 // jnp.dtype(dtype).itemsize)
      tiles.append(Tile(columns, block, vector))
      columns *= 2
    found += reversed(tiles)
  return tuple(found)


def _shared_bytes(width: int, channels: int, position_bytes: int) -> int:
  return (width + 2) * channels * position_bytes


def heuristic(width: int, channels: int, dtype, position_bytes: int) -> Tile | None:
  """The tile used where none was measured; no GPU has confirmed it.

  As many channels as leave room for four programs a multiprocessor, whose loads overlap, but at
  least 64 bytes of them, two sectors of a cache line; two accesses of 16 bytes a lane and tile.

  Returns:
    A tile, or None where the row is shorter than any.
  """
  fits = candidates(width, channels, dtype, position_bytes)
  if not fits:
    return None
  itemsize = jnp.dtype(dtype).itemsize
  dense = [tile.channels for tile in fits if tile.channels * itemsize >= 64]
  small = [block for block in dense if _shared_bytes(width, block, position_bytes) <= 56 * 1024]
  block = max(small) if small else min(dense, default=fits[0].channels)
  tiles = [tile for tile in fits if tile.channels == block]
  wanted = 32 * LANES // itemsize
  return next((tile for tile in tiles if tile.columns * block <= wanted), tiles[-1])


def walk(count: int, tile: Tile, body: Callable[[Any], None]) -> None:
  """Runs `body(start)` for tiles that cover `count` positions; the last ends with them."""
  tiles = -(-count // tile.columns)
  if tiles > 1:  # A loop, for what Mosaic infers of a body grows faster than its length.
    lax.fori_loop(0, tiles - 1, lambda t, _: body(t * tile.columns), None)
  body(count - tile.columns)
