"""Which kernels a network's inference or training step launches, and which arrays they touch."""

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from cnnopt_jax.workload.dataflow import Dataflow, Tensor
from cnnopt_jax.workload.table import Layer, LayerTable

KINDS = ('forward', 'data_gradient', 'weight_gradient', 'elementwise', 'update')


class KernelLaunch(NamedTuple):
  """A kernel as inference or a training step runs it.

  Attributes:
    kind: one of `KINDS`; 'elementwise' are all but those of layers and the optimizer.
    path: its module.
    layer: index into the table's layers; -1 for none.
    reads, writes: indices of tensors. Of a layer's forward the input, then the weight; of its data
      gradient the gradient of the output, then the weight; of its weight gradient the gradient of
      the output, then the input.
    macs: multiply-accumulates of the traced call.
  """

  kind: str
  path: str
  layer: int
  reads: tuple[int, ...]
  writes: tuple[int, ...]
  macs: int


class Schedule(NamedTuple):
  """Launches in order, and the arrays they share.

  Attributes:
    tensors: those of the dataflow; in training also gradients and momenta.
    launches: in order of execution.
  """

  tensors: tuple[Tensor, ...]
  launches: tuple[KernelLaunch, ...]

  @property
  def macs(self) -> int:
    """Multiply-accumulates of all launches."""
    return sum(launch.macs for launch in self.launches)

  @property
  def activations(self) -> int:
    """Elements of all activations of the traced call, inputs included."""
    return sum(t.elements for t in self.tensors if t.role in ('input', 'activation'))

  def tensor_bytes(
    self,
    *,
    batch: int = 1,
    weight_bits: Mapping[str, float] | float = 32,
    activation_bits: float = 32,
  ) -> np.ndarray:
    """Bytes of every tensor, as stored without gaps.

    Args:
      batch: calls of the traced size at once: images, if one image was traced.
      weight_bits: of all parameters that are maps, or of each leaf by path (others have 32).
      activation_bits: of inputs, activations and their gradients.

    Returns:
      `[len(tensors)]` int64.

    Raises:
      KeyError: if a path is that of no parameter that a kernel reads.
    """
    if isinstance(weight_bits, Mapping):
      unknown = sorted(set(weight_bits) - {t.path for t in self.tensors if t.path})
      if unknown:
        raise KeyError(f'{unknown[0]!r} is the path of no parameter that a kernel reads')

    def size(tensor):
      if tensor.batched:
        return batch * tensor.elements * activation_bits
      if tensor.role != 'parameter':
        return 32 * tensor.elements
      bits = weight_bits.get(tensor.path, 32) if isinstance(weight_bits, Mapping) else weight_bits
      return tensor.elements * bits

    return np.array([math.ceil(size(tensor) / 8) for tensor in self.tensors], np.int64)


def schedule(table: LayerTable, *, training: bool = False) -> Schedule:
  """Lists the launches of inference, or of a training step with stochastic gradient descent.

  A training step runs the forward pass, then in reverse order: for each layer the gradient of its
  weight, and that of its input unless it is the data; for each other kernel the gradient of its
  inputs, which reads the gradients of its outputs and the inputs it had. Where an array has several
  readers, each gradient after the first is added to the sum of those before. Last, the optimizer
  reads every parameter, its gradient and its momentum, and writes the first and the last.

  Args:
    table: traced, with its dataflow; for a training step preferably of the network as it trains.
    training: whether to train.

  Returns:
    The schedule.

  Raises:
    ValueError: if the table has no dataflow.
  """
  if table.dataflow is None:
    raise ValueError(
      'the table has no dataflow; allowed: tables of trace_layers, of a program '
      'without loops and branches'
    )
  tensors = list(table.dataflow.tensors)
  launches = [
    KernelLaunch(
      'elementwise' if k.layer < 0 else 'forward',
      k.path if k.layer < 0 else table.layers[k.layer].path,
      k.layer,
      k.reads,
      k.writes,
      0 if k.layer < 0 else table.layers[k.layer].macs,
    )
    for k in table.dataflow.kernels
  ]
  if training:
    launches += _backward(table, launches, tensors) + _update(table, tensors)
  return Schedule(tuple(tensors), tuple(launches))


def _backward(
  table: LayerTable, forward: list[KernelLaunch], tensors: list[Tensor]
) -> list[KernelLaunch]:
  gradient_of: dict[int, int] = {}
  # Nothing flows back to what only the data, or what a constant, has decided.
  needed = {i for i, t in enumerate(tensors) if t.role == 'parameter' and t.path}
  for launch in forward:
    if launch.kind == 'forward' or needed.intersection(launch.reads):
      needed.update(launch.writes)

  def gradient(i):
    """The tensor of a gradient, and those that an addition to it has to read."""
    known = gradient_of.get(i)
    if known is None:
      role = 'parameter_gradient' if tensors[i].role == 'parameter' else 'gradient'
      gradient_of[i] = len(tensors)
      tensors.append(tensors[i]._replace(role=role))
    return gradient_of[i], () if known is None else (known,)

  launches = []
  for launch in reversed(forward):
    sources = tuple(gradient_of[i] for i in launch.writes if i in gradient_of)
    if not sources and launch.writes:
      # The end of the network: the loss writes the first gradient.
      sources = tuple(gradient(i)[0] for i in launch.writes)
    if launch.layer >= 0:
      data, weight = launch.reads[:2]
      for kind, target, other in (
        ('weight_gradient', weight, data),
        ('data_gradient', data, weight),
      ):
        if target in needed:
          written, added = gradient(target)
          launches.append(
            KernelLaunch(
              kind, launch.path, launch.layer, (*sources, other, *added), (written,), launch.macs
            )
          )
      continue
    targets = [gradient(i) for i in launch.reads if i in needed]
    if targets:
      added = [i for _, more in targets for i in more]
      launches.append(
        KernelLaunch(
          'elementwise',
          launch.path,
          -1,
          (*sources, *launch.reads, *added),
          tuple(written for written, _ in targets),
          0,
        )
      )
  return launches


def _update(table: LayerTable, tensors: list[Tensor]) -> list[KernelLaunch]:
  """One launch for each parameter; those that no kernel reads as a map get their arrays here."""
  index = {t.path: i for i, t in enumerate(tensors) if t.role == 'parameter' and t.path}
  gradients = {t.path: i for i, t in enumerate(tensors) if t.role == 'parameter_gradient'}
  launches = []

  def added(role, parameter):
    tensors.append(Tensor(parameter.size, role, parameter.path))
    return len(tensors) - 1

  for parameter in table.parameters:
    path = parameter.path
    value = index[path] if path in index else added('parameter', parameter)
    gradient = gradients[path] if path in gradients else added('parameter_gradient', parameter)
    momentum = added('momentum', parameter)
    launches.append(
      KernelLaunch('update', path, -1, (value, gradient, momentum), (value, momentum), 0)
    )
  return launches


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
    sizes = {
      k.writes[0]: layers[k.layer].output_elements
      for k in flow.kernels
      if k.layer >= 0 and chosen[k.layer]
    }
    flow = Dataflow(
      tuple(t._replace(elements=sizes.get(i, t.elements)) for i, t in enumerate(flow.tensors)),
      flow.kernels,
    )
  return dataclasses.replace(table, layers=layers, dataflow=flow)


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
