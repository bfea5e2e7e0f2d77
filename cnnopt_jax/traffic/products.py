"""Blocked matrix products: how they are cut, what they read and write, and in which order."""

import math
from typing import NamedTuple

from cnnopt_jax.traffic.gpus import Gpu
from cnnopt_jax.traffic.kernels import Access, Array, Kernel, Ranges, sweep, within

# Accumulators and operands of a tile, registers for each of its elements.
_REGISTERS = 2
_MOST_BLOCKS = 16  # Of a multiprocessor: none of these kernels runs more.
# Thread blocks of a multiprocessor that a split reduction is to give work to.
_SPLIT_BLOCKS = 2
# A larger tile is taken while it leaves the GPU no more idle than this.
_IDLE = 1 / 20
# Waves are looked at together up to this share of L2: within it nothing is lost.
_STEP = 1 / 16

# Shares of a wave: all of a tile is summed before any of it is written.
LOADING, STORING = (0.0, 0.9), (0.93, 1.0)


class Tiling(NamedTuple):
  """How a matrix product is cut into thread blocks.

  Attributes:
    rows, columns: of a tile.
    row_tiles, column_tiles: how many, of one product.
    splits: parts of the reduction, each computed by blocks of its own and added up in L2.
    slots: thread blocks that run at once.
  """

  rows: int
  columns: int
  row_tiles: int
  column_tiles: int
  splits: int
  slots: int


def tile_slots(gpu: Gpu, tile: tuple[int, int]) -> int:
  """Thread blocks with one tile each that the registers of a GPU hold."""
  blocks = gpu.registers // (_REGISTERS * math.prod(tile))
  return gpu.sms * max(1, min(_MOST_BLOCKS, blocks))


def tiling(
  gpu: Gpu,
  rows: int,
  columns: int,
  depth: int,
  batches: int,
  splittable: bool,
  tiles: tuple[tuple[int, int], ...] | None = None,
) -> Tiling:
  """The largest tile that leaves little of the GPU idle.

  Args:
    gpu: its tiles and its size.
    rows, columns, depth: of one product.
    batches: independent products.
    splittable: whether the reduction may be cut where tiles are too few for the GPU.
    tiles: to choose from, in the order of preference; the GPU's by default.

  Returns:
    The first tiling whose waves times tile size is within a twentieth of the least.
  """
  found: list[tuple[float, Tiling]] = []
  for tile in tiles or gpu.tiles:
    row_tiles, column_tiles = -(-rows // tile[0]), -(-columns // tile[1])
    blocks, slots = row_tiles * column_tiles * batches, tile_slots(gpu, tile)
    splits = 1
    if splittable:
      # A part shorter than eight steps costs more to sum than it saves.
      splits = max(1, min(_SPLIT_BLOCKS * gpu.sms // blocks, depth // (8 * gpu.tile_depth)))
    # What an SM computes: its blocks share its rate.
    work = math.ceil(blocks * splits / gpu.sms) * math.prod(tile) / splits
    found.append((work, Tiling(*tile, row_tiles, column_tiles, splits, slots)))
  least = min(work for work, _ in found)
  return next(cut for work, cut in found if work <= (1 + _IDLE) * least)


def panel_misses(gpu: Gpu, cut: Tiling, panel_bytes: float, own_bytes: float) -> float:
  """Share of reads of a column's operand that L1 does not serve.

  Blocks that follow one another on a multiprocessor mostly belong to the same column of tiles and
  read the same panel. Between two visits to a part of it, L1 has taken one panel and one block's
  own rows, and with random replacement holds the part with probability exp(-those / L1).
  """
  same = max(0.0, 1 - gpu.sms / cut.row_tiles)
  return 1 - same * math.exp(-(panel_bytes + own_bytes) / gpu.l1_bytes)


def matrix_product(
  gpu: Gpu,
  name: str,
  cut: Tiling,
  left: Array,
  right: Array,
  target: Array,
  *,
  macs: float,
  batches: int = 1,
  added: bool = False,
) -> Kernel:
  """A batch of products, rows of tiles first.

  Every block reads its rows of the left operand and its columns of the right one.

  Args:
    gpu: the GPU.
    name: of the kernel.
    cut: into blocks.
    left, right, target: matrices [rows, depth], [depth, columns] and [rows, columns] of all
      products.
    macs: multiply-accumulates of all.
    batches: products.
    added: whether the target is added to, and so read.

  Returns:
    The kernel.
  """
  panel = right.bytes / (batches * cut.column_tiles)
  own = left.bytes / (batches * cut.row_tiles)
  missed = panel_misses(gpu, cut, panel / cut.splits, own / cut.splits)
  left_bytes = left.bytes * cut.column_tiles
  right_bytes = right.bytes * (1 + (cut.row_tiles - 1) * missed)
  waves = _waves(gpu, cut, batches, left.bytes + right.bytes)

  def left_pattern(block_bytes) -> list[Ranges]:
    parts = []
    for time, (first, last), (low, high), _ in waves():
      rows = low / cut.row_tiles, high / cut.row_tiles
      for batch in range(first, last):
        extent = left.share((batch + rows[0]) / batches, (batch + rows[1]) / batches)
        parts.append(sweep(extent, within(time, LOADING), block_bytes))
    return parts

  def right_pattern(block_bytes) -> list[Ranges]:
    parts = []
    for time, (first, last), _, (low, high) in waves():
      columns = low / cut.column_tiles, high / cut.column_tiles
      for batch in range(first, last):
        extent = right.share((batch + columns[0]) / batches, (batch + columns[1]) / batches)
        parts.append(sweep(extent, within(time, LOADING), block_bytes))
    return parts

  def target_pattern(block_bytes) -> list[Ranges]:
    parts = []
    for time, (first, last), (low, high), (left_column, right_column) in waves():
      # Columns of tiles lie one after the other.
      columns, per_column = right_column - left_column, 1 / cut.column_tiles / batches
      for batch in range(first, last):
        begin = batch / batches + per_column * (left_column + low / cut.row_tiles)
        share = per_column * ((columns - 1) + (high - low) / cut.row_tiles)
        extent = target.share(begin, min(1.0, begin + share))
        parts.append(sweep(extent, within(time, STORING), block_bytes))
    return parts

  sector = gpu.sector_bytes
  written = target.bytes * cut.splits
  accesses = [
    Access(left.tensor, False, left_bytes / sector, left.bytes, left_pattern),
    Access(right.tensor, False, right_bytes / sector, right.bytes, right_pattern),
    Access(target.tensor, True, written / sector, target.bytes, target_pattern),
  ]
  if added:
    accesses.append(
      Access(target.tensor, False, target.bytes / sector, target.bytes, target_pattern)
    )
  # Blocks that run at once share rows and columns.
  per_split = cut.row_tiles * cut.column_tiles
  together = max(1, min(cut.slots // cut.splits, per_split * batches))
  rows = min(cut.row_tiles, together)
  columns = max(1.0, min(cut.column_tiles, together / cut.row_tiles))
  products = max(1.0, together / per_split) / batches
  shared = (
    (left.bytes * (columns - 1) / sector, left.bytes * products * rows / cut.row_tiles),
    (
      right.bytes * (rows - 1) * missed / sector,
      right.bytes * products * columns / cut.column_tiles,
    ),
  )
  return Kernel(name, tuple(accesses), macs, shared)


def _waves(gpu: Gpu, cut: Tiling, batches: int, operand_bytes: float):
  """Times, and the batches, row tiles and columns of tiles that run at each."""
  blocks = cut.row_tiles * cut.column_tiles * cut.splits

  def generate():
    if blocks <= cut.slots:  # Several products at once.
      at_once = max(1, cut.slots // blocks)
      for time, first in enumerate(range(0, batches, at_once)):
        yield (
          time,
          (first, min(batches, first + at_once)),
          (0, cut.row_tiles),
          (0, cut.column_tiles),
        )
      return
    time = 0
    slots = max(1, cut.slots // cut.splits)
    if slots >= cut.row_tiles:  # Several columns at once.
      columns = slots // cut.row_tiles
      for batch in range(batches):
        for low in range(0, cut.column_tiles, columns):
          high = min(cut.column_tiles, low + columns)
          yield time, (batch, batch + 1), (0, cut.row_tiles), (low, high)
          time += 1
      return
    per_row = operand_bytes / (batches * cut.row_tiles)
    rows = max(slots, int(_STEP * gpu.l2_bytes / max(1.0, per_row)))
    for batch in range(batches):
      for column in range(cut.column_tiles):
        for low in range(0, cut.row_tiles, rows):
          high = min(cut.row_tiles, low + rows)
          yield time, (batch, batch + 1), (low, high), (column, column + 1)
          time += 1

  return generate
