"""`compare_layers`: a profile grouped into layers beside the model's rows of the same layers."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from cnnopt_jax.traffic.algorithms import KINDS
from cnnopt_jax.traffic.profiles.algorithms import split_kind
from cnnopt_jax.traffic.profiles.layers import LayerProfile
from cnnopt_jax.traffic.profiles.metrics import COUNTERS, SECONDS
from cnnopt_jax.traffic.transactions import KernelTraffic


class LayerError(NamedTuple):
  """A counter or the time of a layer, measured and modelled.

  Attributes:
    path: of the layer as the profile has it.
    counter: its name, or 'seconds'.
    measured: sectors or s; None where some launch lacks the counter.
    predicted: sectors or s; None where the model has no such layer.
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
    For each layer the four counters, then the seconds.
  """
  kept = [row for row in rows if not products or row.launch.kind in KINDS]
  found = []
  for path, layer in measured.items():
    if not path:
      continue
    mine = _rows_of(path, kept)
    for counter in (*COUNTERS, SECONDS):
      predicted = float(sum(getattr(row, counter) for row in mine)) if mine else None
      found.append(LayerError(path, counter, getattr(layer, counter), predicted))
  return tuple(found)


def match_layer(path: str, names: Collection[str]) -> list[str]:
  """The modules that a profile or a person means by a path.

  Args:
    path: such as 'step/conv1_1'.
    names: of modules.

  Returns:
    Those at or under 'step/conv1_1', or if there is none those at or under 'conv1_1', in order.
  """
  parts = path.split('/')
  for i in range(len(parts)):
    wanted = '/'.join(parts[i:])
    if found := [name for name in names if name == wanted or name.startswith(wanted + '/')]:
      return found
  return []


def _rows_of(path: str, rows: Sequence[KernelTraffic]) -> list[KernelTraffic]:
  path, kind = split_kind(path)
  chosen = [row for row in rows if not kind or row.launch.kind == kind]
  names = set(match_layer(path, {row.launch.path for row in chosen}))
  return [row for row in chosen if row.launch.path in names]
