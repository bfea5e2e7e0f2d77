"""Convolutions through a workspace: explicit matrix products, and Fourier transforms."""

import math

from cnnopt_jax.traffic.geometry import Geometry
from cnnopt_jax.traffic.gpus import Gpu
from cnnopt_jax.traffic.kernels import Array, Kernel, one_pass
from cnnopt_jax.traffic.products import matrix_product, tiling

_FFT_TILE = 32  # Pixels on a side, of which a window's own less one are the neighbours'.
_FFT_POINTS = _FFT_TILE * (_FFT_TILE // 2 + 1)  # Of a real map; each a complex number.
_COMPLEX_MACS = 4


def explicit(
  gpu: Gpu, g: Geometry, source: Array, weight: Array, target: Array, workspace: int
) -> tuple[Kernel, ...]:
  """A convolution: windows laid out as a matrix, then one product."""
  rows, depth = g.pixels, g.depth
  windows = Array(workspace, int(rows * depth * g.groups * source.element_bytes))
  cut = tiling(gpu, rows, g.target_channels, depth, g.groups, False)
  return (
    one_pass('im2col', [source], [windows], gpu.sector_bytes),
    matrix_product(gpu, 'gemm', cut, windows, weight, target, macs=g.macs, batches=g.groups),
  )


def explicit_data_gradient(
  gpu: Gpu, g: Geometry, gradient: Array, weight: Array, target: Array, workspace: int
) -> tuple[Kernel, ...]:
  """A data gradient of the forward product `g`: one product, then windows added up."""
  rows, columns = g.pixels, g.depth
  windows = Array(workspace, int(rows * columns * g.groups * target.element_bytes))
  cut = tiling(gpu, rows, columns, g.target_channels, g.groups, False)
  return (
    matrix_product(gpu, 'gemm', cut, gradient, weight, windows, macs=g.macs, batches=g.groups),
    one_pass('col2im', [windows], [target], gpu.sector_bytes),
  )


def explicit_weight_gradient(
  gpu: Gpu, g: Geometry, source: Array, gradient: Array, target: Array, workspace: int
) -> tuple[Kernel, ...]:
  """A weight gradient of the forward product `g`: windows as a matrix, then one product."""
  windows = Array(workspace, int(g.pixels * g.depth * g.groups * source.element_bytes))
  cut = tiling(gpu, g.target_channels, g.depth, g.pixels, g.groups, True)
  return (
    one_pass('im2col', [source], [windows], gpu.sector_bytes),
    matrix_product(gpu, 'gemm', cut, gradient, windows, target, macs=g.macs, batches=g.groups),
  )


def fft(
  gpu: Gpu, g: Geometry, source: Array, weight: Array, target: Array, workspace: int, kind: str
) -> tuple[Kernel, ...]:
  """A convolution of stride 1 by tiles of 32 x 32 in Fourier space.

  Args:
    gpu: the GPU.
    g: of the product, one group; of a weight gradient that of the forward product.
    source, weight, target: its arrays; of a weight gradient `weight` is the gradient of the map.
    workspace: index of the workspace's tensor.
    kind: 'forward', 'data_gradient' or 'weight_gradient'.

  Returns:
    Four kernels.
  """
  tiles = g.images * fft_tiles(g)
  shapes = {
    'data': (tiles, g.source_channels),
    'weights': (g.source_channels, g.target_channels),
    'map': (tiles, g.target_channels),
  }
  order = ('data', 'map', 'weights') if kind == 'weight_gradient' else ('data', 'weights', 'map')
  arrays, start = [], 0
  for name in order:
    size = 8 * _FFT_POINTS * math.prod(shapes[name])
    arrays.append(Array(workspace, size, 8.0, start))
    start += size
  left, right, sums = arrays
  if kind == 'weight_gradient':
    shape = (g.target_channels, g.source_channels, tiles)
    left, right = right, left
  else:
    shape = (tiles, g.target_channels, g.source_channels)
  cut = tiling(gpu, *shape, _FFT_POINTS, False)
  macs = _COMPLEX_MACS * _FFT_POINTS * math.prod(shape)
  return (
    one_pass('fft_data', [source], [arrays[0]], gpu.sector_bytes),
    one_pass('fft_filter', [weight], [arrays[1]], gpu.sector_bytes),
    matrix_product(gpu, 'fft_product', cut, left, right, sums, macs=macs, batches=_FFT_POINTS),
    one_pass('fft_inverse', [sums], [target], gpu.sector_bytes),
  )


def fft_tiles(g: Geometry) -> int:
  """Tiles of a plane."""
  return math.prod(
    -(-axis.target // (_FFT_TILE - round(axis.taps) + 1)) for axis in (g.height, g.width)
  )


def direct(gpu: Gpu, g: Geometry, reads: tuple[Array, ...], target: Array) -> tuple[Kernel, ...]:
  """A depth-wise convolution or a gradient of one: neighbours' taps lie in L1."""
  return (one_pass('depthwise', reads, [target], gpu.sector_bytes, macs=g.macs),)
