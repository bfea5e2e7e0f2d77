"""Kernels in the order in which they run, and the arrays that they touch."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from cnnopt_jax.workload.dataflow import Tensor

KINDS = (
  *('forward', 'elementwise'),
  *('data_gradient', 'weight_gradient', 'elementwise_gradient'),
  'update',
)


class KernelLaunch(NamedTuple):
  """A kernel as inference or a training step runs it.

  Attributes:
    kind: one of `KINDS`; 'elementwise' are all of the forward pass but those of layers,
      'elementwise_gradient' those of the backward pass.
    path: its module.
    layer: index into the table's layers; -1 for none.
    reads, writes: indices of tensors. Of a layer's forward the input, then the weight; of its data
      gradient the gradient of the output, then the weight; of its weight gradient the gradient of
      the output, then the input.
    macs: multiply-accumulates of the traced call.
    operation: of an unfused schedule's kernel between layers, what it does.
  """

  kind: str
  path: str
  layer: int
  reads: tuple[int, ...]
  writes: tuple[int, ...]
  macs: int
  operation: str = ''


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
