"""`schedule`: which kernels a network's inference or training step launches."""

from cnnopt_jax.workload.dataflow import Tensor
from cnnopt_jax.workload.launches import KernelLaunch, Schedule
from cnnopt_jax.workload.table import LayerTable
from cnnopt_jax.workload.unfused import unfused_launches


def schedule(
  table: LayerTable,
  *,
  training: bool = False,
  fused: bool = True,
  accumulate: bool = True,
  in_place: bool = True,
) -> Schedule:
  """Lists the launches of inference, or of a training step with stochastic gradient descent.

  A training step runs the forward pass, then in reverse order: for each layer the gradient of its
  weight, and that of its input unless it is the data; for each other kernel the gradient of its
  inputs, which reads the gradients of its outputs and the inputs it had. Where an array has several
  readers, each gradient after the first is added to the sum of those before. Last, the optimizer
  reads every parameter, its gradient and its momentum, and writes the first and the last.

  Unfused, every operation is a kernel or two of its own, as `unfused.py` says.

  Args:
    table: traced, with its dataflow; for a training step preferably of the network as it trains.
    training: whether to train.
    fused: kernels as a compiler makes them, or each operation by itself.
    accumulate: whether an unfused step adds each weight's gradient to one that is there.
    in_place: whether unfused biases, activations and sums overwrite what nobody else reads.

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
  if not fused:
    tensors, launches = unfused_launches(table, training=training, accumulate=accumulate)
    launches += _update(table, tensors) if training else []
    if not in_place:
      tensors = [t._replace(alias=-1) if t.role == 'activation' else t for t in tensors]
    return Schedule(tuple(tensors), tuple(launches))
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
          'elementwise_gradient',
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
