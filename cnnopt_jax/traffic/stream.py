"""The order in which kernels touch memory, block by block of a few KB, tile by tile.

A kernel's thread blocks run in waves, as many at once as the GPU holds, target pixels first, then
columns. All blocks of a wave walk the reduction in step, channel by channel, and what several of
them touch in the same step is one access. Tensors lie one after the other in the order of their
first use, each in a buffer of its own.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from cnnopt_jax.traffic import implicit_gemm
from cnnopt_jax.traffic.gpus import Gpu
from cnnopt_jax.workload import LayerTable, Schedule, Step

_ALIGNMENT = 256  # Bytes, as cudaMalloc aligns.


class Ranges(NamedTuple):
  """Accesses to byte ranges of one tensor.

  Attributes:
    time: `[N]`, within the kernel.
    tensor: index.
    start, end: `[N]` bytes.
    write: whether they are written.
  """

  time: np.ndarray
  tensor: int
  start: np.ndarray
  end: np.ndarray
  write: bool


class Stream(NamedTuple):
  """Accesses in order of time.

  Attributes:
    blocks: `[N]` int32, block addresses.
    writes: `[N]` bool.
    steps: `[N]` int32, index of the schedule's step.
    block_bytes: of a block.
  """

  blocks: np.ndarray
  writes: np.ndarray
  steps: np.ndarray
  block_bytes: int


def access_stream(
  table: LayerTable,
  schedule: Schedule,
  gpu: Gpu,
  tensor_bytes: np.ndarray,
  batch: int,
  block_bytes: int,
) -> Stream:
  """Lists the block accesses of one inference or training step.

  Args:
    table: of the network.
    schedule: of the table.
    gpu: the GPU.
    tensor_bytes: `[tensors]`, of the schedule.
    batch: calls of the traced size at once.
    block_bytes: of a block.

  Returns:
    The stream.
  """
  sizes = np.append(tensor_bytes, 0)  # The last tensor is the workspace of split reductions.
  kernels = []
  for step in schedule.steps:
    ranges = [r for r in _step_ranges(table, step, gpu, sizes, batch, block_bytes) if len(r.time)]
    kernels.append(ranges)
    sizes[-1] = max([sizes[-1], *(int(r.end.max()) for r in ranges if r.tensor == len(sizes) - 1)])
  order = dict.fromkeys(r.tensor for ranges in kernels for r in ranges)
  bases, used = np.zeros(len(sizes), np.int64), 0
  for tensor in order:
    bases[tensor] = used
    used += -(-int(sizes[tensor]) // _ALIGNMENT) * _ALIGNMENT
  parts = [_blocks(ranges, bases, block_bytes) for ranges in kernels]
  return Stream(
    np.concatenate([blocks for blocks, _ in parts]).astype(np.int32),
    np.concatenate([writes for _, writes in parts]),
    np.repeat(np.arange(len(parts), dtype=np.int32), [len(blocks) for blocks, _ in parts]),
    block_bytes,
  )


def _blocks(ranges: list[Ranges], bases: np.ndarray, block_bytes: int):
  """One kernel's accesses, in order, without repeats one after the other."""
  if not ranges:
    return np.zeros(0, np.int64), np.zeros(0, bool)
  flat = lambda pick: np.concatenate([np.broadcast_to(pick(r), r.time.shape) for r in ranges])
  order = np.argsort(flat(lambda r: r.time), kind='stable')
  base = flat(lambda r: bases[r.tensor])[order]
  first = (base + flat(lambda r: r.start)[order]) // block_bytes
  last = (base + flat(lambda r: r.end)[order] - 1) // block_bytes
  counts = last - first + 1
  offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
  blocks = np.repeat(first, counts) + offsets
  writes = np.repeat(flat(lambda r: np.asarray(r.write))[order], counts)
  new = np.ones(len(blocks), bool)
  new[1:] = (blocks[1:] != blocks[:-1]) | (writes[1:] != writes[:-1])
  return blocks[new], writes[new]


def _step_ranges(
  table: LayerTable, step: Step, gpu: Gpu, sizes: np.ndarray, batch: int, block_bytes: int
) -> Iterator[Ranges]:
  if step.layer < 0:
    for tensor, write in [(t, False) for t in step.reads] + [(t, True) for t in step.writes]:
      yield _sweep(tensor, 0, int(sizes[tensor]), 0.0, 1.0, write, block_bytes)
    return
  geometry = implicit_gemm.forward_geometry(table.layers[step.layer], batch)
  maker = _weight_gradient if step.kind == 'weight_gradient' else _map_product
  if step.kind == 'data_gradient':
    geometry = geometry.transposed()
  yield from maker(step, gpu, geometry, sizes, block_bytes)
  for tensor in step.reads[2:]:  # Added to.
    yield _sweep(tensor, 0, int(sizes[tensor]), 0.0, 1.0, False, block_bytes)


def _sweep(
  tensor, start: int, end: int, begin: float, finish: float, write: bool, block_bytes: int
) -> Ranges:
  """One pass over a byte range between two times."""
  edges = np.append(np.arange(start, end, block_bytes), end)
  time = begin + (finish - begin) * (np.arange(len(edges) - 1) + 0.5) / max(1, len(edges) - 1)
  return Ranges(time, tensor, edges[:-1], edges[1:], write)


def _planes(
  tensor,
  element: float,
  channels: tuple[int, int],
  all_channels: int,
  plane: int,
  images: tuple[int, int],
  rows: np.ndarray,
  width: int,
  begin: float,
  finish: float,
  write: bool,
  block_bytes: int,
) -> Ranges:
  """Rows of some channels of some images, channel by channel, between two times.

  `rows` are [images, 2], the first and one past the last row of each. Channels whose planes are
  smaller than a block are taken several at a time, and whole.
  """
  together = max(1, round(block_bytes / (plane * element)))
  first = np.arange(*channels, together)
  last = np.minimum(first + together, channels[1])
  image = np.arange(*images)[None, :]
  if together > 1:
    start = (image * all_channels + first[:, None]) * plane
    end = (image * all_channels + last[:, None]) * plane
  else:
    start = (image * all_channels + first[:, None]) * plane + rows[None, :, 0] * width
    end = (image * all_channels + first[:, None]) * plane + rows[None, :, 1] * width
  time = begin + (finish - begin) * np.arange(len(first)) / len(first)
  keep = (end > start).ravel()
  to_bytes = lambda x: np.asarray(x * element, np.int64).ravel()[keep]
  return Ranges(
    np.broadcast_to(time[:, None], start.shape).ravel()[keep],
    tensor,
    to_bytes(start),
    np.maximum(to_bytes(end), to_bytes(start) + 1),
    write,
  )


def _map_product(
  step: Step, gpu: Gpu, g: implicit_gemm.Geometry, sizes: np.ndarray, block_bytes: int
) -> Iterator[Ranges]:
  """Forward pass or data gradient: pixels first, then columns, wave by wave."""
  source, weight = step.reads[:2]
  target = step.writes[0]
  element = lambda tensor, elements: sizes[tensor] / elements
  source_element = element(source, g.images * g.groups * g.source_channels * g.source_plane)
  target_element = element(target, g.images * g.groups * g.target_channels * g.target_plane)
  cut = implicit_gemm.map_tiling(gpu, g)
  columns = cut.column_tiles * g.groups
  row_waves = -(-cut.row_tiles // gpu.slots)
  columns_at_once = max(1, gpu.slots // (cut.row_tiles * cut.splits)) if row_waves == 1 else 1
  pixels_at_once = gpu.slots * cut.rows
  wave = 0
  for column in range(0, columns, columns_at_once):
    until = min(columns, column + columns_at_once)
    groups = column // cut.column_tiles, -(-until // cut.column_tiles)
    sources = groups[0] * g.source_channels, groups[1] * g.source_channels
    targets = tuple(
      min(
        (c // cut.column_tiles) * g.target_channels
        + min(c % cut.column_tiles * cut.columns, g.target_channels),
        g.groups * g.target_channels,
      )
      for c in (column, until)
    )
    for row_wave in range(row_waves):
      low = row_wave * pixels_at_once
      high = min(g.pixels, low + pixels_at_once)
      images = low // g.target_plane, -(-high // g.target_plane)
      # First and one past the last target row of every image.
      offset = np.arange(*images) * g.target_plane
      rows = np.stack(
        [
          np.maximum(low - offset, 0) // g.width.target,
          -(-np.minimum(high - offset, g.target_plane) // g.width.target),
        ],
        -1,
      )
      taps, axis = g.height.taps, g.height
      before = np.floor(rows[:, :1] * axis.step - (taps - 1) / 2)
      after = np.ceil((rows[:, 1:] - 1) * axis.step + (taps + 1) / 2)
      source_rows = np.clip(np.concatenate([before, after], -1), 0, axis.source).astype(np.int64)
      yield _planes(
        source,
        source_element,
        sources,
        g.groups * g.source_channels,
        g.source_plane,
        images,
        source_rows,
        g.width.source,
        wave,
        wave + 0.9,
        False,
        block_bytes,
      )
      bounds = [int(sizes[weight] * c / columns) for c in (column, until)]
      yield _sweep(weight, *bounds, wave, wave + 0.9, False, block_bytes)
      yield _planes(
        target,
        target_element,
        targets,
        g.groups * g.target_channels,
        g.target_plane,
        images,
        rows,
        g.width.target,
        wave + 0.95,
        wave + 0.99,
        True,
        block_bytes,
      )
      wave += 1


def _weight_gradient(
  step: Step, gpu: Gpu, g: implicit_gemm.Geometry, sizes: np.ndarray, block_bytes: int
) -> Iterator[Ranges]:
  """All images in every wave, those of one part of the reduction apart from one another."""
  gradient, data = step.reads[:2]
  target, workspace = step.writes[0], len(sizes) - 1
  cut = implicit_gemm.weight_tiling(gpu, g)
  tiles = cut.row_tiles * cut.column_tiles * g.groups
  at_once = max(1, gpu.slots // cut.splits)
  images = np.arange(g.images)
  part = -(-g.images // cut.splits)
  when = (images % part) / part
  taps = round(g.taps)
  for wave, tile in enumerate(range(0, tiles, at_once)):
    until = min(tiles, tile + at_once)
    # Rows of tiles first, then columns, then groups.
    column, last = tile // cut.row_tiles, -(-until // cut.row_tiles)
    whole = last - column > 1
    rows = (
      (0, g.target_channels)
      if whole
      else tuple(
        min(t * cut.rows, g.target_channels)
        for t in (tile % cut.row_tiles, (until - 1) % cut.row_tiles + 1)
      )
    )
    groups = column // cut.column_tiles, -(-last // cut.column_tiles)
    one_group = groups[1] - groups[0] == 1
    columns = (
      (
        column % cut.column_tiles * cut.columns // taps,
        -(-((last - 1) % cut.column_tiles + 1) * cut.columns // taps),
      )
      if one_group
      else (0, g.source_channels)
    )
    columns = columns[0], min(columns[1], g.source_channels)
    for tensor, own, plane, bounds in (
      (gradient, g.target_channels, g.target_plane, rows),
      (data, g.source_channels, g.source_plane, columns),
    ):
      every = own * g.groups
      element = sizes[tensor] / (g.images * every * plane)
      low, high = groups[0] * own + bounds[0], (groups[1] - 1) * own + bounds[1]
      start, end = (
        ((images * every + channel) * plane * element).astype(np.int64) for channel in (low, high)
      )
      yield Ranges(wave + 0.9 * when, tensor, start, np.maximum(end, start + 1), False)
    start, end = (int(sizes[target] * t / tiles) for t in (tile, until))
    if cut.splits > 1:
      for write, begin in ((True, 0.9), (False, 0.93)):
        yield _sweep(
          workspace,
          cut.splits * start,
          cut.splits * end,
          wave + begin,
          wave + begin + 0.03,
          write,
          block_bytes,
        )
    yield _sweep(target, start, end, wave + 0.96, wave + 0.99, True, block_bytes)
