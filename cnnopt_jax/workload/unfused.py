"""Kernels of a framework that runs each operation when it is called, as PyTorch does in eager mode.

Forward, a bias, an activation, a sum and a concatenation are one pass each, a norm in training two:
one for the statistics, one that uses them. A max-pool also writes where its maxima stood, a 64-bit
index for each. Backward, in reverse:

- A bias hands its output's gradient on as it is, and sums it over all pixels in a pass of its own.
- A sum, and a concatenation, hand their gradient on without a kernel.
- An activation reads its output and that output's gradient, and writes a new array.
- A norm reads its input and the gradient twice.
- Dropout, which wrote a mask of a byte an element, reads it and the gradient.
- A max-pool fills its gradient with zeros, then adds to it where the indices say.
- A layer's data gradient comes before its weight's, which is then added to the parameter's own.
- Where an array has several readers, each gradient after the first is added by a kernel.

These are the kernels that the profile of a VGG-16 training step in PyTorch shows (V100;
docs/results/traffic_counters); norms and sums of maps, which it lacks, are as recalled.
"""

import math

from cnnopt_jax.workload.dataflow import FusedKernel, Tensor
from cnnopt_jax.workload.launches import KernelLaunch
from cnnopt_jax.workload.table import LayerTable

# Of 32 bits for each element: of a max-pool's indices, and of a mask.
_INDEX_WORDS, _MASK_WORDS = 2, 1 / 4


def unfused_launches(
  table: LayerTable, *, training: bool, accumulate: bool
) -> tuple[list[Tensor], list[KernelLaunch]]:
  """Lists a network's unfused kernels.

  Args:
    table: traced, with its dataflow.
    training: whether gradients follow; the optimizer is left out.
    accumulate: whether a weight's gradient is added to one that is there.

  Returns:
    The tensors, gradients and a max-pool's indices among them, and the launches.
  """
  assert table.dataflow is not None and table.dataflow.unfused is not None
  step = _Step(table, list(table.dataflow.unfused.tensors), accumulate)
  for kernel in table.dataflow.unfused.kernels:
    step.forward(kernel, training)
  if training:
    for kernel in reversed(table.dataflow.unfused.kernels):
      step.backward(kernel)
  return step.tensors, step.launches


class _Step:
  """The launches so far, and which tensor holds the gradient of which."""

  def __init__(self, table: LayerTable, tensors: list[Tensor], accumulate: bool) -> None:
    self.table, self.tensors, self.accumulate = table, tensors, accumulate
    self.launches: list[KernelLaunch] = []
    self._gradients: dict[int, int] = {}
    self._kept: dict[int, int] = {}  # Indices and masks, by the tensor written beside them.
    # Nothing flows back to what only the data have decided.
    self._needed = {i for i, t in enumerate(tensors) if t.role == 'parameter' and t.path}

  def forward(self, kernel: FusedKernel, training: bool) -> None:
    if kernel.layer >= 0 or self._needed.intersection(kernel.reads):
      self._needed.update(kernel.writes)
    writes = kernel.writes
    if kernel.operation == 'norm' and training and writes:
      self._launch(kernel, kernel.reads, (), 'statistics', 'elementwise')
    words = {'max_pool': _INDEX_WORDS, 'dropout': _MASK_WORDS}.get(kernel.operation)
    if words is not None:
      kept = self._added(math.ceil(words * self.tensors[writes[0]].elements), 'activation')
      self._kept[writes[0]] = kept
      writes = (*writes, kept)
    self._launch(kernel, kernel.reads, writes, kernel.operation, 'elementwise')

  def backward(self, kernel: FusedKernel) -> None:
    if not kernel.writes:
      return
    for written in kernel.writes:
      if written not in self._gradients and written in self._needed:
        # The end of the network: the loss writes the first gradient.
        self._gradients[written] = self._added(self.tensors[written].elements, 'gradient')
    sources = tuple(self._gradients[i] for i in kernel.writes if i in self._gradients)
    targets = [i for i in kernel.reads if i in self._needed]
    if not sources:
      return
    match kernel.operation:
      case 'layer':
        self._layer(kernel, sources[0])
      case 'bias':
        self._launch(kernel, sources, (), 'bias_gradient')
        self._hand_on(targets, sources[0])
      case 'sum':
        self._hand_on(targets, sources[0])
      case 'concatenation':
        for target in targets:
          part = self._added(self.tensors[target].elements, 'gradient', alias=sources[0])
          self._hand_on([target], part)
      case operation:
        reads = self._read_again(kernel, sources)
        own = [self._added(self.tensors[i].elements, 'gradient') for i in targets]
        if not own:
          return
        if operation == 'norm':
          self._launch(kernel, reads, (), 'statistics_gradient')
        if operation == 'max_pool':
          self._launch(kernel, (), own, 'fill')
        self._launch(kernel, reads, own, f'{operation}_gradient')
        for target, gradient in zip(targets, own):
          self._hand_on([target], gradient)

  def _read_again(self, kernel: FusedKernel, sources: tuple[int, ...]) -> tuple[int, ...]:
    """What a gradient is computed from."""
    match kernel.operation:
      case 'activation':
        return (*sources, *kernel.writes)
      case 'max_pool' | 'dropout':
        return (*sources, self._kept[kernel.writes[0]])
      case 'mean_pool' | 'reduction':
        return sources
      case _:
        return (*sources, *kernel.reads)

  def _layer(self, kernel: FusedKernel, source: int) -> None:
    data, weight = kernel.reads[:2]
    path, macs = self.table.layers[kernel.layer].path, self.table.layers[kernel.layer].macs
    for kind, target, other in (
      ('data_gradient', data, weight),
      ('weight_gradient', weight, data),
    ):
      if target not in self._needed:
        continue
      role = 'parameter_gradient' if self.tensors[target].role == 'parameter' else 'gradient'
      written = self._added(self.tensors[target].elements, role, self.tensors[target].path)
      self.launches.append(
        KernelLaunch(kind, path, kernel.layer, (source, other), (written,), macs)
      )
      if role == 'gradient':
        self._hand_on([target], written)
      elif self.accumulate:
        if target not in self._gradients:
          path = self.tensors[target].path
          self._gradients[target] = self._added(self.tensors[target].elements, role, path)
        own = self._gradients[target]
        self._launch(kernel, (own, written), (own,), 'accumulation')
      else:
        self._hand_on([target], written)

  def _hand_on(self, targets: list[int], gradient: int) -> None:
    """Makes a gradient that of some tensors, added to what they have."""
    for target in targets:
      if target in self._gradients:
        known, self._gradients[target] = (
          self._gradients[target],
          self._added(self.tensors[target].elements, self.tensors[gradient].role),
        )
        self.launches.append(
          KernelLaunch(
            'elementwise_gradient',
            '',
            -1,
            (known, gradient),
            (self._gradients[target],),
            0,
            'accumulation',
          )
        )
      else:
        self._gradients[target] = gradient

  def _added(self, elements: int, role: str, path: str = '', alias: int = -1) -> int:
    self.tensors.append(Tensor(elements, role, path, alias))
    return len(self.tensors) - 1

  def _launch(
    self, kernel, reads, writes, operation: str, kind: str = 'elementwise_gradient'
  ) -> None:
    if kernel.layer >= 0 and kind == 'elementwise':
      layer = self.table.layers[kernel.layer]
      self.launches.append(
        KernelLaunch('forward', layer.path, kernel.layer, kernel.reads, writes, layer.macs)
      )
    elif reads or writes:
      self.launches.append(
        KernelLaunch(kind, kernel.path, -1, tuple(reads), tuple(writes), 0, operation)
      )
