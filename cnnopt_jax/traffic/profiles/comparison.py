"""`compare_layers`: a profile grouped into layers beside the model's rows of the same layers."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cnnopt_jax.traffic.profiles.layers import LayerProfile
from cnnopt_jax.traffic.profiles.metrics import COUNTERS
from cnnopt_jax.traffic.transactions import KernelTraffic

_KINDS = ('forward', 'data_gradient', 'weight_gradient')


class LayerError(NamedTuple):
  """A counter of a layer, measured and modelled.

  Attributes:
    path: of the layer as the profile has it.
    counter: its name.
    measured: sectors; None where some launch lacks the counter.
    predicted: sectors; None where the model has no such layer.
  """

  path: str
  counter: str
  measured: float | None
  predicted: float | None

  @property
  def error(self) -> float | None:
    """Of the prediction, relative to the measurement; None where there is none of either."""
    if not self.measured or self.predicted is None:
      return None
    return self.predicted / self.measured - 1


def compare_layers(
  measured: Mapping[str, LayerProfile], rows: Sequence[KernelTraffic], *, products: bool
) -> tuple[LayerError, ...]:
  """Lays the layers of a profile beside the model's.

  A path such as 'step/conv1_1' stands for the model's modules at or under 'step/conv1_1', or if
  there is none 'conv1_1'. A kind behind a colon, as in 'conv1_1:weight_gradient', takes these rows
  alone.

  Args:
    measured: of `group_by_layer`; '' is left out.
    rows: of the model, the part that the profile covers, as `part_of` returns.
    products: whether only rows of convolutions and products count, as where the profile's layers
      hold no other kernels.

  Returns:
    For each layer the four counters.
  """
  kept = [row for row in rows if not products or row.launch.kind in _KINDS]
  found = []
  for path, layer in measured.items():
    if not path:
      continue
    mine = _rows_of(path, kept)
    for counter in COUNTERS:
      predicted = float(sum(getattr(row, counter) for row in mine)) if mine else None
      found.append(LayerError(path, counter, getattr(layer, counter), predicted))
  return tuple(found)


def _rows_of(path: str, rows: Sequence[KernelTraffic]) -> list[KernelTraffic]:
  path, _, kind = path.rpartition(':') if path.endswith(_KINDS) and ':' in path else (path, '', '')
  chosen = [row for row in rows if not kind or row.launch.kind == kind]
  parts = path.split('/')
  for i in range(len(parts)):
    name = '/'.join(parts[i:])
    if mine := [r for r in chosen if r.launch.path == name or r.launch.path.startswith(name + '/')]:
      return mine
  return []
