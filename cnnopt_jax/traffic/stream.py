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
from cnnopt_jax.workload import KernelLaunch, LayerTable, Schedule

_ALIGNMENT = 256  # Bytes, as cudaMalloc aligns.

# Shares of a wave: all of a tile is summed before any of it is written. What lies between orders
# the parts of a split reduction, which are written, read again and summed.
_LOADING = (0.0, 0.9)
_WRITING_PARTS = (0.9, 0.93)
_READING_PARTS = (0.93, 0.96)
_STORING_MAP = (0.95, 0.99)
_STORING_SUM = (0.96, 0.99)


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
    launches: `[N]` int32, index of the schedule's launch.
    block_bytes: of a block.
  """

  blocks: np.ndarray
  writes: np.ndarray
  launches: np.ndarray
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
  for launch in schedule.launches:
    found = _launch_ranges(table, launch, gpu, sizes, batch, block_bytes)
    ranges = [r for r in found if len(r.time)]
    kernels.append(ranges)
    # The workspace is as large as the largest that a kernel takes.
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


def _blocks(
  ranges: list[Ranges], bases: np.ndarray, block_bytes: int
) -> tuple[np.ndarray, np.ndarray]:
  """One kernel's accesses, in order, without repeats one after the other."""
  if not ranges:
    return np.zeros(0, np.int64), np.zeros(0, bool)
  order = np.argsort(np.concatenate([r.time for r in ranges]), kind='stable')

  def in_order(parts):
    spread = [np.broadcast_to(part, r.time.shape) for part, r in zip(parts, ranges)]
    return np.concatenate(spread)[order]

  base = in_order([bases[r.tensor] for r in ranges])
  first = (base + in_order([r.start for r in ranges])) // block_bytes
  last = (base + in_order([r.end for r in ranges]) - 1) // block_bytes
  counts = last - first + 1
  offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
  blocks = np.repeat(first, counts) + offsets
  writes = np.repeat(in_order([r.write for r in ranges]), counts)
  new = np.ones(len(blocks), bool)
  new[1:] = (blocks[1:] != blocks[:-1]) | (writes[1:] != writes[:-1])
  return blocks[new], writes[new]


def _launch_ranges(
  table: LayerTable, launch: KernelLaunch, gpu: Gpu, sizes: np.ndarray, batch: int, block_bytes: int
) -> Iterator[Ranges]:
  """What one kernel touches; the last of `sizes` is the workspace."""
  whole = (0.0, 1.0)
  if launch.layer < 0:
    for tensor, write in [(t, False) for t in launch.reads] + [(t, True) for t in launch.writes]:
      yield _sweep(tensor, (0, int(sizes[tensor])), whole, write, block_bytes)
    return
  geometry = implicit_gemm.forward_geometry(table.layers[launch.layer], batch)
  maker = _weight_gradient if launch.kind == 'weight_gradient' else _map_product
  if launch.kind == 'data_gradient':
    geometry = geometry.transposed()
  yield from maker(launch, gpu, geometry, sizes, block_bytes)
  for tensor in launch.reads[2:]:  # Added to.
    yield _sweep(tensor, (0, int(sizes[tensor])), whole, False, block_bytes)


def _sweep(
  tensor: int, extent: tuple[int, int], times: tuple[float, float], write: bool, block_bytes: int
) -> Ranges:
  """One pass over a byte range, from its first to one past its last, between two times."""
  begin, finish = times
  edges = np.append(np.arange(*extent, block_bytes), extent[1])
  time = begin + (finish - begin) * (np.arange(len(edges) - 1) + 0.5) / max(1, len(edges) - 1)
  return Ranges(time, tensor, edges[:-1], edges[1:], write)


class _Map(NamedTuple):
  """A feature map in memory, [images, channels, height, width].

  Attributes:
    tensor: index.
    element_bytes: a fraction where elements have few bits.
    channels: of all groups.
    plane: elements of a channel of an image.
    width: elements of a row.
  """

  tensor: int
  element_bytes: float
  channels: int
  plane: int
  width: int


def _maps(
  g: implicit_gemm.Geometry, sizes: np.ndarray, source: int, target: int
) -> tuple[_Map, _Map]:
  """The tensors `source` and `target` as the maps that a product reads and writes."""

  def as_map(tensor, channels, plane, width):
    return _Map(tensor, sizes[tensor] / (g.images * channels * plane), channels, plane, width)

  return (
    as_map(source, g.groups * g.source_channels, g.source_plane, g.width.source),
    as_map(target, g.groups * g.target_channels, g.target_plane, g.width.target),
  )


def _rows_of_channels(
  m: _Map,
  channels: tuple[int, int],
  images: tuple[int, int],
  rows: np.ndarray,
  times: tuple[float, float],
  write: bool,
  block_bytes: int,
) -> Ranges:
  """Rows of some channels of some images, channel by channel, between two times.

  `rows` are [images, 2], the first and one past the last row of each. Channels whose planes are
  smaller than a block are taken several at a time, and whole.
  """
  together = max(1, round(block_bytes / (m.plane * m.element_bytes)))
  first = np.arange(*channels, together)
  last = np.minimum(first + together, channels[1])
  image = np.arange(*images)[None, :]
  start = (image * m.channels + first[:, None]) * m.plane
  if together > 1:
    end = (image * m.channels + last[:, None]) * m.plane
  else:
    start, end = start + rows[None, :, 0] * m.width, start + rows[None, :, 1] * m.width
  begin, finish = times
  time = begin + (finish - begin) * np.arange(len(first)) / len(first)
  keep = (end > start).ravel()
  start, end = (np.asarray(x * m.element_bytes, np.int64).ravel()[keep] for x in (start, end))
  return Ranges(
    np.broadcast_to(time[:, None], keep.reshape(len(first), -1).shape).ravel()[keep],
    m.tensor,
    start,
    np.maximum(end, start + 1),
    write,
  )


def _map_product(
  launch: KernelLaunch, gpu: Gpu, g: implicit_gemm.Geometry, sizes: np.ndarray, block_bytes: int
) -> Iterator[Ranges]:
  """Forward pass or data gradient: pixels first, then columns, wave by wave."""
  weight = launch.reads[1]
  source, target = _maps(g, sizes, launch.reads[0], launch.writes[0])
  cut = implicit_gemm.map_tiling(gpu, g)
  columns = cut.column_tiles * g.groups
  row_waves = -(-cut.row_tiles // gpu.slots)
  # Where one column of tiles leaves slots free, the next columns run beside it.
  columns_at_once = max(1, gpu.slots // (cut.row_tiles * cut.splits)) if row_waves == 1 else 1
  pixels_at_once = gpu.slots * cut.rows
  wave = 0
  for column in range(0, columns, columns_at_once):
    until = min(columns, column + columns_at_once)
    source_channels, target_channels = _column_channels(g, cut, column, until)
    for row_wave in range(row_waves):
      low = row_wave * pixels_at_once
      images, rows = _rows_of_pixels(g, low, min(g.pixels, low + pixels_at_once))
      loading, storing = _within(wave, _LOADING), _within(wave, _STORING_MAP)
      read = _source_rows(g.height, rows)
      yield _rows_of_channels(source, source_channels, images, read, loading, False, block_bytes)
      extent = int(sizes[weight] * column / columns), int(sizes[weight] * until / columns)
      yield _sweep(weight, extent, loading, False, block_bytes)
      yield _rows_of_channels(target, target_channels, images, rows, storing, True, block_bytes)
      wave += 1


def _within(wave: int, shares: tuple[float, float]) -> tuple[float, float]:
  """Two times of a wave."""
  return wave + shares[0], wave + shares[1]


def _column_channels(
  g: implicit_gemm.Geometry, cut: implicit_gemm.Tiling, column: int, until: int
) -> tuple[tuple[int, int], tuple[int, int]]:
  """Channels, from the first to one past the last, that columns of tiles read and write."""
  first, last = column // cut.column_tiles, -(-until // cut.column_tiles)

  def target_channel(c):
    group, tile = divmod(c, cut.column_tiles)
    # A group's last tile ends where the group does.
    channel = group * g.target_channels + min(tile * cut.columns, g.target_channels)
    return min(channel, g.groups * g.target_channels)

  return (
    (first * g.source_channels, last * g.source_channels),
    (target_channel(column), target_channel(until)),
  )


def _rows_of_pixels(
  g: implicit_gemm.Geometry, low: int, high: int
) -> tuple[tuple[int, int], np.ndarray]:
  """Images that the target pixels from `low` to `high` lie in, and their rows, [images, 2]."""
  images = low // g.target_plane, -(-high // g.target_plane)
  # First and one past the last target row of every image.
  offset = np.arange(*images) * g.target_plane
  first = np.maximum(low - offset, 0) // g.width.target
  last = -(-np.minimum(high - offset, g.target_plane) // g.width.target)
  return images, np.stack([first, last], -1)


def _source_rows(axis: implicit_gemm.SpatialAxis, rows: np.ndarray) -> np.ndarray:
  """Source rows that target rows read; a window of taps is centred on its target."""
  before = np.floor(rows[:, :1] * axis.stride - (axis.taps - 1) / 2)
  after = np.ceil((rows[:, 1:] - 1) * axis.stride + (axis.taps + 1) / 2)
  return np.clip(np.concatenate([before, after], -1), 0, axis.source).astype(np.int64)


def _weight_gradient(
  launch: KernelLaunch, gpu: Gpu, g: implicit_gemm.Geometry, sizes: np.ndarray, block_bytes: int
) -> Iterator[Ranges]:
  """All images in every wave, those of one part of the reduction apart from one another."""
  gradient, data = launch.reads[:2]
  written, workspace = launch.writes[0], len(sizes) - 1
  source, target = _maps(g, sizes, data, gradient)
  cut = implicit_gemm.weight_tiling(gpu, g)
  tiles = cut.row_tiles * cut.column_tiles * g.groups
  at_once = max(1, gpu.slots // cut.splits)
  images = np.arange(g.images)
  # Every part of the reduction starts at once, each with its own first image.
  part = -(-g.images // cut.splits)
  when = (images % part) / part
  for wave, tile in enumerate(range(0, tiles, at_once)):
    until = min(tiles, tile + at_once)
    source_channels, target_channels = _gradient_channels(g, cut, tile, until)
    for m, channels in ((target, target_channels), (source, source_channels)):
      start, end = (
        ((images * m.channels + channel) * m.plane * m.element_bytes).astype(np.int64)
        for channel in channels
      )
      time = wave + _LOADING[1] * when
      yield Ranges(time, m.tensor, start, np.maximum(end, start + 1), False)
    low, high = int(sizes[written] * tile / tiles), int(sizes[written] * until / tiles)
    if cut.splits > 1:
      parts = cut.splits * low, cut.splits * high
      yield _sweep(workspace, parts, _within(wave, _WRITING_PARTS), True, block_bytes)
      yield _sweep(workspace, parts, _within(wave, _READING_PARTS), False, block_bytes)
    yield _sweep(written, (low, high), _within(wave, _STORING_SUM), True, block_bytes)


def _gradient_channels(
  g: implicit_gemm.Geometry, cut: implicit_gemm.Tiling, tile: int, until: int
) -> tuple[tuple[int, int], tuple[int, int]]:
  """Source and target channels, from the first to one past the last, that tiles read.

  Tiles are counted along the rows first, which are target channels, then along the columns, source
  channels times taps, then over the groups. Where tiles span several columns or groups, they read
  all of what they span.
  """
  column, last_column = tile // cut.row_tiles, -(-until // cut.row_tiles)
  group, last_group = column // cut.column_tiles, -(-last_column // cut.column_tiles)
  if last_column - column > 1:
    rows = 0, g.target_channels
  else:
    row, last_row = tile % cut.row_tiles, (until - 1) % cut.row_tiles + 1
    rows = (
      min(row * cut.rows, g.target_channels),
      min(last_row * cut.rows, g.target_channels),
    )
  if last_group - group > 1:
    columns = 0, g.source_channels
  else:
    taps = round(g.taps)
    last_of_group = (last_column - 1) % cut.column_tiles + 1
    columns = (
      column % cut.column_tiles * cut.columns // taps,
      min(-(-last_of_group * cut.columns // taps), g.source_channels),
    )
  before, after = group, last_group - 1
  return (
    (before * g.source_channels + columns[0], after * g.source_channels + columns[1]),
    (before * g.target_channels + rows[0], after * g.target_channels + rows[1]),
  )
