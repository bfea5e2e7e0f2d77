"""Convolutions by Winograd's minimal filtering (Lavin and Gray, CVPR 2016; arXiv 1509.09308).

F(m x m, r x r) computes m x m outputs of an r x r window from (m + r - 1)^2 products of
transformed inputs and weights. Fused, one kernel does it all with the tiles in registers; not
fused, transforms write to a workspace, a batch of (m + r - 1)^2 matrix products reads it, and a
last kernel transforms the sums back.
"""

import math

from cnnopt_jax.traffic.geometry import Geometry, SpatialAxis
from cnnopt_jax.traffic.gpus import Gpu
from cnnopt_jax.traffic.kernels import (
  Access,
  Array,
  Kernel,
  Ranges,
  once,
  one_pass,
  run_sectors,
  sweep,
)
from cnnopt_jax.traffic.products import matrix_product, tiling

# Outputs of a tile on one axis: cuDNN's F(2x2, 3x3) in the fused kernel, F(4x4) in the other.
_FUSED, _NONFUSED = 2, 4
# What a thread block of the fused kernel computes: rows, columns and channels of the map written.
_FUSED_BLOCK = (8, 16, 32)
# Tiles of the batched products, from the names of cuDNN's kernels: of maps, rows of pixels first,
# and of weights.
_MAP_TILES, _WEIGHT_TILES = ((32, 128),), ((64, 64),)
_WARP = 32


def tiles_of(axis: SpatialAxis) -> int:
  """Winograd tiles along an axis."""
  return -(-axis.target // _NONFUSED)


def _points(g: Geometry) -> int:
  return round((_NONFUSED + g.height.taps - 1) * (_NONFUSED + g.width.taps - 1))


def _overlap(g: Geometry) -> float:
  """Times that an input is read: tiles overlap, but within a warp each sector is read once."""
  if tiles_of(g.height) * tiles_of(g.width) <= _WARP:
    return 1.0

  def on(axis):
    size, tiles = round(_NONFUSED + axis.taps - 1), tiles_of(axis)
    before = round(axis.taps) // 2
    starts = [_NONFUSED * i - before for i in range(tiles)]
    return sum(min(axis.source, s + size) - max(0, s) for s in starts) / axis.source

  return on(g.height) * on(g.width)


def nonfused(
  gpu: Gpu, g: Geometry, source: Array, weight: Array, target: Array, workspace: int
) -> tuple[Kernel, ...]:
  """A convolution or data gradient of stride 1: transforms, products, inverse.

  Args:
    gpu: the GPU.
    g: of the product, one group.
    source, weight, target: its arrays.
    workspace: index of the workspace's tensor.

  Returns:
    Four kernels.
  """
  points, tiles = _points(g), g.images * tiles_of(g.height) * tiles_of(g.width)
  data, kernel, sums = _workspace(
    workspace,
    points * tiles * g.source_channels,
    points * g.source_channels * g.target_channels,
    points * tiles * g.target_channels,
  )
  cut = tiling(gpu, tiles, g.target_channels, g.source_channels, points, False, _MAP_TILES)
  return (
    one_pass('winograd_data_transform', [source], [data], gpu.sector_bytes, overlap=_overlap(g)),
    one_pass('winograd_filter_transform', [weight], [kernel], gpu.sector_bytes),
    matrix_product(
      gpu,
      'winograd_product',
      cut,
      data,
      kernel,
      sums,
      macs=points * tiles * g.source_channels * g.target_channels,
      batches=points,
    ),
    one_pass('winograd_output_transform', [sums], [target], gpu.sector_bytes),
  )


def nonfused_weight_gradient(
  gpu: Gpu, g: Geometry, source: Array, gradient: Array, target: Array, workspace: int
) -> tuple[Kernel, ...]:
  """A weight gradient: the gradient of the map written takes the weights' place.

  Args:
    gpu: the GPU.
    g: of the forward product, one group.
    source, gradient, target: the map read, the gradient of the map written, that of the weight.
    workspace: index of the workspace's tensor.

  Returns:
    Four kernels.
  """
  points, tiles = _points(g), g.images * tiles_of(g.height) * tiles_of(g.width)
  data, deltas, sums = _workspace(
    workspace,
    points * tiles * g.source_channels,
    points * tiles * g.target_channels,
    points * g.source_channels * g.target_channels,
  )
  cut = tiling(gpu, g.target_channels, g.source_channels, tiles, points, False, _WEIGHT_TILES)
  return (
    one_pass('winograd_data_transform', [source], [data], gpu.sector_bytes, overlap=_overlap(g)),
    one_pass('winograd_delta_transform', [gradient], [deltas], gpu.sector_bytes),
    matrix_product(
      gpu,
      'winograd_product',
      cut,
      deltas,
      data,
      sums,
      macs=points * tiles * g.source_channels * g.target_channels,
      batches=points,
    ),
    one_pass('winograd_output_transform', [sums], [target], gpu.sector_bytes),
  )


def _workspace(tensor: int, *elements: int) -> list[Array]:
  """Arrays of float32 one after the other in the workspace."""
  arrays, start = [], 0
  for count in elements:
    arrays.append(Array(tensor, 4 * count, 4.0, start))
    start += 4 * count
  return arrays


def fused(
  gpu: Gpu, g: Geometry, source: Array, weight: Array, target: Array, workspace: int
) -> tuple[Kernel, ...]:
  """A convolution or data gradient of stride 1 in one kernel, after a transform of its weights.

  Blocks of all images and features run before those beside them in the map, so what two
  neighbouring blocks share is read from DRAM twice, in fetches of two sectors.

  Args:
    gpu: the GPU.
    g: of the product, one group.
    source, weight, target: its arrays.
    workspace: index of the workspace's tensor.

  Returns:
    Two kernels.
  """
  rows, columns, channels = _FUSED_BLOCK
  points = round((_FUSED + g.height.taps - 1) * (_FUSED + g.width.taps - 1))
  (kernel,) = _workspace(workspace, points * g.source_channels * g.target_channels)
  strips, features = -(-g.width.target // columns), -(-g.target_channels // channels)
  blocks = g.images * -(-g.height.target // rows) * strips * features
  sector = gpu.sector_bytes
  width = columns + round(g.width.taps) - 1
  per_row = run_sectors(width, columns, g.width.source, source.element_bytes, sector)
  height = min(g.height.source, rows + round(g.height.taps) - 1)
  reads = blocks * height * per_row * g.source_channels
  weights = blocks * kernel.bytes / features / sector
  fetched = run_sectors(width, columns, g.width.source, source.element_bytes, gpu.fetch_bytes)
  per_strip = g.images * g.source_channels * height * -(-g.height.target // rows)
  again = max(0.0, per_strip * strips * fetched * gpu.fetch_bytes / source.bytes - 1)

  def sources(block_bytes) -> list[Ranges]:
    parts = [sweep(source.share(0, 1), (0.0, 1.0), block_bytes)]
    for strip in range(1, strips):
      part = sweep(source.share(0, 1), (strip, strip + 1.0), block_bytes)
      parts.append(part._replace(weight=again / (strips - 1)))
    return parts

  def weights_read(block_bytes) -> list[Ranges]:
    return [
      sweep(kernel.share(0, 1), (strip, strip + 0.01), block_bytes) for strip in range(strips)
    ]

  accesses = (
    Access(source.tensor, False, reads, source.bytes, sources),
    Access(kernel.tensor, False, weights, kernel.bytes, weights_read),
    once(target, True, sector_bytes=sector, times=(0.0, float(strips))),
  )
  macs = math.ceil(g.height.target / _FUSED) * math.ceil(g.width.target / _FUSED) * g.images
  macs *= points * g.source_channels * g.target_channels
  return (
    one_pass('winograd_filter_transform', [weight], [kernel], gpu.sector_bytes),
    Kernel('winograd_fused', accesses, macs),
  )
