"""Convolutions and matrix products as blocked matrix products: geometry, tiles, L2 sectors."""

import math
from typing import NamedTuple

from cnnopt_jax.traffic.gpus import Gpu
from cnnopt_jax.workload import Layer


class SpatialAxis(NamedTuple):
  """One spatial axis of a product that writes one map and reads another.

  Attributes:
    target, source: sizes of the map written and of the map read.
    taps: elements of the source summed for one of the target (of a strided convolution's data
      gradient the mean number, a fraction).
    stride: elements of the source from one target element to the next.
  """

  target: int
  source: int
  taps: float
  stride: float

  def span(self, targets: float) -> float:
    """Source elements that neighbouring targets touch, gaps left out."""
    return min(self.source, targets * min(self.stride, self.taps) + max(self.taps - self.stride, 0))

  def transposed(self) -> 'SpatialAxis':
    """The axis of the product that writes the map read here."""
    return SpatialAxis(self.source, self.target, self.taps / self.stride, 1 / self.stride)


class Geometry(NamedTuple):
  """A product between maps stored as [images, channels, height, width].

  Attributes:
    images: of the batch.
    groups: independent parts of the channels.
    target_channels, source_channels: of one group.
    height, width: the axes.
    weights: elements of the kernel, all groups.
  """

  images: int
  groups: int
  target_channels: int
  source_channels: int
  height: SpatialAxis
  width: SpatialAxis
  weights: int

  @property
  def target_plane(self) -> int:
    return self.height.target * self.width.target

  @property
  def source_plane(self) -> int:
    return self.height.source * self.width.source

  @property
  def taps(self) -> float:
    return self.height.taps * self.width.taps

  @property
  def pixels(self) -> int:
    """Rows of the matrix product: target pixels of all images."""
    return self.images * self.target_plane

  @property
  def depth(self) -> int:
    """Products summed for a target element."""
    return max(1, round(self.source_channels * self.taps))

  def transposed(self) -> 'Geometry':
    """The data gradient of a forward product: it writes the map that was read."""
    return self._replace(
      target_channels=self.source_channels,
      source_channels=self.target_channels,
      height=self.height.transposed(),
      width=self.width.transposed(),
    )


def forward_geometry(layer: Layer, batch: int) -> Geometry:
  """The forward product of a layer, `batch` times the traced call."""
  if layer.dimension_numbers is not None:  # Of a convolution.
    lhs, rhs, out = layer.dimension_numbers
    axes = [
      SpatialAxis(
        layer.output_shape[o], layer.input_shape[i], layer.kernel_shape[k], stride / dilation
      )
      for o, i, k, stride, dilation in zip(
        out[2:], lhs[2:], rhs[2:], layer.strides, layer.lhs_dilation
      )
    ]
    axes = [SpatialAxis(1, 1, 1, 1)] * (2 - len(axes)) + axes
    # Further axes are folded into the height; none of the networks here has them.
    while len(axes) > 2:
      a, b = axes[0], axes.pop(1)
      axes[0] = SpatialAxis(
        a.target * b.target, a.source * b.source, a.taps * b.taps, a.stride * b.stride
      )
    return Geometry(
      images=batch * layer.input_shape[lhs[0]],
      groups=layer.groups,
      target_channels=layer.output_shape[out[1]] // layer.groups,
      source_channels=layer.input_shape[lhs[1]] // layer.groups,
      height=axes[0],
      width=axes[1],
      weights=math.prod(layer.kernel_shape),
    )
  kernel = math.prod(layer.kernel_shape)
  columns = kernel // (layer.fan_in * layer.groups)
  rows = layer.output_elements // (columns * layer.groups)
  unit = SpatialAxis(1, 1, 1, 1)
  if layer.kind == 'matmul':  # Of two activations: more images are more products.
    return Geometry(rows, layer.groups * batch, columns, layer.fan_in, unit, unit, kernel * batch)
  return Geometry(rows * batch, layer.groups, columns, layer.fan_in, unit, unit, kernel)


class Tiling(NamedTuple):
  """How a matrix product is cut into thread blocks.

  Attributes:
    rows, columns: of a tile.
    row_tiles, column_tiles: how many, of one group.
    splits: parts of the reduction, each computed by blocks of its own and then summed.
  """

  rows: int
  columns: int
  row_tiles: int
  column_tiles: int
  splits: int


def tiling(gpu: Gpu, rows: int, columns: int, depth: int, groups: int, splittable: bool) -> Tiling:
  """The tile that leaves the least of the GPU idle; of equals the largest.

  Args:
    gpu: its tiles and its size.
    rows, columns, depth: of one group's product.
    groups: independent products.
    splittable: whether the reduction may be cut where tiles are too few for the GPU.

  Returns:
    The tiling of least waves times tile size.
  """
  found: list[tuple[float, Tiling]] = []
  for height, width in gpu.tiles:
    row_tiles, column_tiles = -(-rows // height), -(-columns // width)
    blocks = row_tiles * column_tiles * groups
    splits = 1
    if splittable:
      # A part shorter than eight steps costs more to sum than it saves.
      splits = max(1, min(gpu.slots // blocks, depth // (8 * gpu.tile_depth)))
    work = -(-blocks * splits // gpu.slots) * height * width / splits
    found.append((work, Tiling(height, width, row_tiles, column_tiles, splits)))
  return min(found, key=lambda entry: entry[0])[1]


def map_tiling(gpu: Gpu, g: Geometry) -> Tiling:
  """Of a product that writes a map. That of a dense layer may split its reduction."""
  splittable = g.source_plane == g.target_plane == 1
  return tiling(gpu, g.pixels, g.target_channels, g.depth, g.groups, splittable)


def weight_tiling(gpu: Gpu, g: Geometry) -> Tiling:
  """Of a weight gradient: rows are target channels, columns source channels times taps."""
  return tiling(gpu, g.target_channels, round(g.source_channels * g.taps), g.pixels, g.groups, True)


class Sectors(NamedTuple):
  """L2 transactions of a kernel.

  Attributes:
    reads, writes: sectors.
  """

  reads: float
  writes: float


def map_product(gpu: Gpu, geometry: Geometry, element_bytes: tuple[float, float, float]) -> Sectors:
  """Sectors of a product that writes a map: the forward pass or a data gradient.

  Args:
    gpu: the GPU.
    geometry: of the product.
    element_bytes: of source, weights, target.

  Returns:
    The sectors, at the product's `map_tiling`.
  """
  _, weight, target = (size / gpu.sector_bytes for size in element_bytes)
  g, cut = geometry, map_tiling(gpu, geometry)
  blocks = cut.row_tiles * cut.column_tiles * g.groups
  pixels = g.pixels / cut.row_tiles
  # Every row of tiles reads all weights, every tile the source under its pixels.
  reads = cut.row_tiles * g.weights * weight
  reads += blocks * _source_sectors(gpu, g, pixels, element_bytes[0]) * g.source_channels
  written = g.pixels * g.target_channels * g.groups * target
  partial = written * cut.splits if cut.splits > 1 else 0.0
  return Sectors(reads + partial, written + partial)


def _source_sectors(gpu: Gpu, g: Geometry, pixels: float, element_bytes: float) -> float:
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
  if rows * columns * channels * element_bytes > gpu.l1_bytes / gpu.blocks_per_sm:
    # What one tap has loaded is gone before the next one needs it.
    sectors *= max(1.0, pixels * g.taps / (rows * columns))
  return sectors


def weight_product(
  gpu: Gpu, geometry: Geometry, element_bytes: tuple[float, float, float]
) -> Sectors:
  """Sectors of a weight gradient.

  Args:
    gpu: the GPU.
    geometry: of the forward product.
    element_bytes: of source, weights, target.

  Returns:
    The sectors, at the product's `weight_tiling`.
  """
  source, weight, target = (size / gpu.sector_bytes for size in element_bytes)
  g, cut = geometry, weight_tiling(gpu, geometry)
  taps = round(g.taps)
  gradient = cut.column_tiles * g.groups * g.pixels * g.target_channels * target
  # A tile of columns reads each channel that one of its columns belongs to.
  if cut.columns >= taps:
    channels = g.source_channels + (cut.column_tiles - 1 if cut.columns % taps else 0)
  else:
    channels = g.source_channels * -(-taps // cut.columns)
  touched = g.height.span(g.height.target) * g.width.span(g.width.target)
  data = cut.row_tiles * g.groups * g.images * touched * channels * source
  written = g.weights * weight
  partial = written * cut.splits if cut.splits > 1 else 0.0
  return Sectors(gradient + data + partial, written + partial)
