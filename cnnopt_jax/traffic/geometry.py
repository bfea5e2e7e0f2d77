"""Convolutions and matrix products as products between maps."""

import math
from typing import NamedTuple

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

  @property
  def target_elements(self) -> int:
    return self.pixels * self.target_channels * self.groups

  @property
  def source_elements(self) -> int:
    return self.images * self.source_plane * self.source_channels * self.groups

  @property
  def reached(self) -> float:
    """Share of the target pixels that any tap reaches: of a strided convolution's gradient."""
    return min(1.0, self.height.taps) * min(1.0, self.width.taps)

  @property
  def macs(self) -> float:
    """Multiply-accumulates."""
    return self.target_elements * self.source_channels * self.taps

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
