"""`with_virtual_maps`: the table of a network some of whose convolutions are virtual."""

import dataclasses
import math
from collections.abc import Collection

from cnnopt_jax.workload.dataflow import Dataflow
from cnnopt_jax.workload.table import Layer, LayerTable


def with_virtual_maps(table: LayerTable, paths: Collection[str]) -> LayerTable:
  """The table of a network some of whose convolutions run at twice their stride.

  ViP (arXiv 1906.07912) computes every second row and column of such a layer's map, and
  interpolates the others. What comes between, a norm and ReLU, works on the samples; the kernel
  that reads the layer's output writes the interpolated map in full. A layer without such a kernel
  has readers that read the samples.

  Args:
    table: of the network as it is.
    paths: of its virtual convolutions, as `Layer.path` names them.

  Returns:
    The table; strides, output shapes, MACs and tensor sizes are those of the virtual layers.

  Raises:
    KeyError: if a path is that of no layer.
    ValueError: if a path is that of a layer that is not a convolution.
  """
  chosen = table.join(dict.fromkeys(paths, True), False, on='path')
  layers = tuple(
    _halved(layer) if virtual else layer for layer, virtual in zip(table.layers, chosen)
  )
  flow = table.dataflow
  if flow is not None:
    flow = _resized(flow, layers, chosen)._replace(
      unfused=flow.unfused and _resized(flow.unfused, layers, chosen)
    )
  return dataclasses.replace(table, layers=layers, dataflow=flow)


def _resized(flow: Dataflow, layers: tuple[Layer, ...], chosen: Collection[bool]) -> Dataflow:
  """What a chosen layer writes is as large as it says, and nothing else takes its place."""
  virtual = dict(enumerate(chosen))
  sizes = {
    k.writes[0]: layers[k.layer].output_elements
    for k in flow.kernels
    if k.layer >= 0 and virtual[k.layer]
  }
  tensors = tuple(
    t._replace(elements=sizes.get(i, t.elements), alias=-1 if t.alias in sizes else t.alias)
    for i, t in enumerate(flow.tensors)
  )
  return flow._replace(tensors=tensors)


def _halved(layer: Layer) -> Layer:
  if layer.kind != 'conv' or layer.dimension_numbers is None:
    raise ValueError(f'layer {layer.path!r} is of kind {layer.kind!r}; allowed: conv')
  spatial = layer.dimension_numbers.out_spec[2:]
  shape = tuple(
    -(-size // 2) if axis in spatial else size for axis, size in enumerate(layer.output_shape)
  )
  return dataclasses.replace(
    layer,
    strides=tuple(2 * stride for stride in layer.strides),
    output_shape=shape,
    macs=math.prod(shape) * layer.fan_in * layer.count,
  )
