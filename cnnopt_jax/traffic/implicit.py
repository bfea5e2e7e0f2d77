"""Convolutions as implicit matrix products: a window's taps are gathered as they are needed."""

from typing import NamedTuple

import numpy as np

from cnnopt_jax.traffic.geometry import Geometry, SpatialAxis
from cnnopt_jax.traffic.gpus import Gpu
from cnnopt_jax.traffic.kernels import Access, Array, Kernel, Ranges, sweep, within
from cnnopt_jax.traffic.products import LOADING, STORING, Tiling, panel_misses, tiling


def map_tiling(gpu: Gpu, g: Geometry) -> Tiling:
  """Of a product that writes a map. That of a dense layer may split its reduction."""
  splittable = g.source_plane == g.target_plane == 1
  rows = max(1, round(g.pixels * g.reached))
  return tiling(gpu, rows, g.target_channels, _depth(g), g.groups, splittable)


def _depth(g: Geometry) -> int:
  """Products summed for a target element that any tap reaches."""
  return max(1, round(g.depth / g.reached))


def weight_tiling(gpu: Gpu, g: Geometry) -> Tiling:
  """Of a weight gradient: rows are target channels, columns source channels times taps."""
  return tiling(gpu, g.target_channels, round(g.source_channels * g.taps), g.pixels, g.groups, True)


def map_product(gpu: Gpu, g: Geometry, source: Array, weight: Array, target: Array) -> Kernel:
  """A product that writes a map: the forward pass or a data gradient.

  Of a strided convolution's gradient only the pixels that a tap reaches are computed; the others
  are filled with zeros.

  Args:
    gpu: the GPU.
    g: of the product.
    source, weight, target: its arrays.

  Returns:
    The kernel, at the product's `map_tiling`.
  """
  cut = map_tiling(gpu, g)
  blocks = cut.row_tiles * cut.column_tiles * g.groups
  pixels = g.pixels / cut.row_tiles
  panel = weight.bytes / (g.groups * cut.column_tiles)
  per_block = source_sectors(gpu, g, pixels, source.element_bytes, cut.slots / gpu.sms)
  per_block *= g.source_channels
  missed = panel_misses(gpu, cut, panel, per_block * gpu.sector_bytes)
  weights = weight.bytes * (1 + (cut.row_tiles - 1) * missed) / gpu.sector_bytes
  written = target.bytes * cut.splits / gpu.sector_bytes
  # A stride passes over what no tap reads.
  used = g.height.span(g.height.target) / g.height.source
  waves = _map_waves(gpu, g, cut)

  def sources(block_bytes):
    for time, channels, _, images, rows, _ in waves():
      read = _source_rows(g.height, rows)
      yield _rows_of_channels(
        _source_map(g, source), channels, images, read, time, LOADING, block_bytes
      )

  def weights_read(block_bytes):
    for time, _, _, _, _, (low, high) in waves():
      yield sweep(weight.share(low, high), within(time, LOADING), block_bytes)

  def targets(block_bytes):
    for time, _, channels, images, rows, _ in waves():
      yield _rows_of_channels(
        _target_map(g, target), channels, images, rows, time, STORING, block_bytes
      )

  accesses = (
    Access(source.tensor, False, blocks * per_block, source.bytes * used, sources),
    Access(weight.tensor, False, weights, weight.bytes, weights_read),
    Access(target.tensor, True, written, target.bytes, targets),
  )
  return Kernel('implicit_gemm', accesses, g.macs)


def _map_waves(gpu: Gpu, g: Geometry, cut: Tiling):
  """Time, source and target channels, images, their target rows, and the share of the weights."""
  columns = cut.column_tiles * g.groups
  slots = max(1, cut.slots // cut.splits)
  row_waves = -(-cut.row_tiles // slots)
  # Where one column of tiles leaves slots free, the next columns run beside it.
  at_once = max(1, slots // cut.row_tiles) if row_waves == 1 else 1
  pixels = slots * cut.rows / g.reached

  def generate():
    time = 0
    for column in range(0, columns, at_once):
      until = min(columns, column + at_once)
      channels = _column_channels(g, cut, column, until)
      for wave in range(row_waves):
        low, high = int(wave * pixels), int(min(g.pixels, (wave + 1) * pixels))
        images, rows = _rows_of_pixels(g, low, g.pixels if wave == row_waves - 1 else high)
        yield time, *channels, images, rows, (column / columns, until / columns)
        time += 1

  return generate


def weight_product(gpu: Gpu, g: Geometry, source: Array, gradient: Array, target: Array) -> Kernel:
  """A weight gradient: all images in every wave, those of one part of the reduction apart.

  Args:
    gpu: the GPU.
    g: of the forward product.
    source, gradient, target: the map read, the gradient of the map written, and that of the weight.

  Returns:
    The kernel, at the product's `weight_tiling`.
  """
  cut, taps = weight_tiling(gpu, g), round(g.taps)
  sector = gpu.sector_bytes
  # A tile of columns reads each channel that one of its columns belongs to, tap by tap: along the
  # reduction, which are pixels, what the taps have in common lies further apart than a step.
  channels = float(g.source_channels)
  if cut.columns < taps or cut.columns % taps:
    channels += (cut.column_tiles - 1) / max(1, taps)
  per_sector = sector / source.element_bytes
  run = min(gpu.tile_depth, g.width.target)
  steps = g.images * g.height.target * g.width.target / run
  halo = -(-max(0.0, g.width.taps - g.width.stride) // (2 * per_sector))
  width = run * min(g.width.stride, per_sector) / per_sector
  data = steps * g.height.taps * (width + 2 * halo)
  data *= cut.row_tiles * g.groups * channels
  gradients = cut.column_tiles * gradient.bytes / sector
  written = target.bytes * cut.splits / sector
  tiles = cut.row_tiles * cut.column_tiles * g.groups
  at_once = max(1, cut.slots // cut.splits)
  images = np.arange(g.images)
  # Every part of the reduction starts at once, each with its own first image.
  part = -(-g.images // cut.splits)
  when = (images % part) / part

  def waves():
    for wave, tile in enumerate(range(0, tiles, at_once)):
      yield wave, tile, min(tiles, tile + at_once)

  def maps(of_target):
    m = _target_map(g, gradient) if of_target else _source_map(g, source)

    def pattern(block_bytes):
      del block_bytes
      for wave, tile, until in waves():
        channels = _gradient_channels(g, cut, tile, until)[of_target]
        start, end = (
          ((images * m.channels + channel) * m.plane * m.element_bytes).astype(np.int64)
          for channel in channels
        )
        yield Ranges(
          wave + LOADING[1] * when, m.start + start, m.start + np.maximum(end, start + 1)
        )

    return pattern

  def targets(block_bytes):
    for wave, tile, until in waves():
      extent = target.share(tile / tiles, until / tiles)
      yield sweep(extent, within(wave, STORING), block_bytes)

  used = g.height.span(g.height.target) / g.height.source
  accesses = (
    Access(gradient.tensor, False, gradients, gradient.bytes, maps(True)),
    Access(source.tensor, False, data, source.bytes * used, maps(False)),
    Access(target.tensor, True, written, target.bytes, targets),
  )
  together = min(tiles, at_once) / g.groups
  rows = min(cut.row_tiles, together)
  columns = max(1.0, together / cut.row_tiles)
  shared = (
    (max(0.0, gradient.bytes * (columns - 1)) / sector, gradient.bytes),
    (max(0.0, source.bytes * used * (rows - 1)) / sector, source.bytes),
  )
  return Kernel('implicit_gemm', accesses, g.macs, shared)


def source_sectors(
  gpu: Gpu, g: Geometry, pixels: float, element_bytes: float, blocks: float
) -> float:
  """Sectors of one source channel that a tile of consecutive target pixels reads."""
  element = element_bytes / gpu.sector_bytes
  if pixels >= g.target_plane:  # Whole planes, one after the other in memory.
    touched = pixels / g.target_plane * g.height.span(g.height.target) * g.width.source
    return touched * element
  columns: float
  if pixels >= g.width.target:
    rows, columns = g.height.span(pixels / g.width.target), g.width.source
    runs = 1.0 if g.height.taps >= g.height.stride else rows
  else:
    # Columns between taps lie in the sectors read anyway.
    rows = min(g.height.source, g.height.taps)
    columns = min(g.width.source, pixels * g.width.stride + max(g.width.taps - g.width.stride, 0))
    runs = rows
  # A run starts anywhere in a sector, but where tiles and planes are whole numbers of them.
  aligned = (
    g.taps == g.width.stride == 1 and (g.source_plane * element_bytes) % gpu.sector_bytes == 0
  )
  sectors = rows * columns * element + (0 if aligned else runs * (1 - element))
  channels = max(1.0, gpu.tile_depth / g.taps)  # Loaded at a time.
  if rows * columns * channels * element_bytes > gpu.l1_bytes / blocks:
    # What one tap has loaded is gone before the next one needs it.
    sectors *= max(1.0, pixels * g.taps / (rows * columns))
  return sectors


class _Map(NamedTuple):
  """A feature map in memory, [images, channels, height, width].

  Attributes:
    start: bytes before it.
    element_bytes: a fraction where elements have few bits.
    channels: of all groups.
    plane: elements of a channel of an image.
    width: elements of a row.
  """

  start: int
  element_bytes: float
  channels: int
  plane: int
  width: int


def _source_map(g: Geometry, array: Array) -> _Map:
  channels = g.groups * g.source_channels
  size = array.bytes / (g.images * channels * g.source_plane)
  return _Map(array.start, size, channels, g.source_plane, g.width.source)


def _target_map(g: Geometry, array: Array) -> _Map:
  channels = g.groups * g.target_channels
  size = array.bytes / (g.images * channels * g.target_plane)
  return _Map(array.start, size, channels, g.target_plane, g.width.target)


def _rows_of_channels(
  m: _Map,
  channels: tuple[int, int],
  images: tuple[int, int],
  rows: np.ndarray,
  wave: float,
  shares: tuple[float, float],
  block_bytes: int,
) -> Ranges:
  """Rows of some channels of some images, channel by channel, in a share of a wave.

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
  begin, finish = within(wave, shares)
  time = begin + (finish - begin) * np.arange(len(first)) / len(first)
  keep = (end > start).ravel()
  start, end = (np.asarray(x * m.element_bytes, np.int64).ravel()[keep] for x in (start, end))
  return Ranges(
    np.broadcast_to(time[:, None], keep.reshape(len(first), -1).shape).ravel()[keep],
    m.start + start,
    m.start + np.maximum(end, start + 1),
  )


def _column_channels(
  g: Geometry, cut: Tiling, column: int, until: int
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


def _rows_of_pixels(g: Geometry, low: int, high: int) -> tuple[tuple[int, int], np.ndarray]:
  """Images that the target pixels from `low` to `high` lie in, and their rows, [images, 2]."""
  images = low // g.target_plane, -(-high // g.target_plane)
  # First and one past the last target row of every image.
  offset = np.arange(*images) * g.target_plane
  first = np.maximum(low - offset, 0) // g.width.target
  last = -(-np.minimum(high - offset, g.target_plane) // g.width.target)
  return images, np.stack([first, last], -1)


def _source_rows(axis: SpatialAxis, rows: np.ndarray) -> np.ndarray:
  """Source rows that target rows read; a window of taps is centred on its target."""
  before = np.floor(rows[:, :1] * axis.stride - (axis.taps - 1) / 2)
  after = np.ceil((rows[:, 1:] - 1) * axis.stride + (axis.taps + 1) / 2)
  return np.clip(np.concatenate([before, after], -1), 0, axis.source).astype(np.int64)


def _gradient_channels(
  g: Geometry, cut: Tiling, tile: int, until: int
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
