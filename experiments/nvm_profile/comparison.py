"""A profile beside the part of the model that it covers: totals, and layer by layer."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from cnnopt_jax import models, traffic, workload
from experiments.common import fields, gpu_traffic, profiles

COLUMNS = ('workload', 'mode', 'batch', 'counter', 'measured', 'predicted', 'error', 'verdict')
LAYER_COLUMNS = (
  *('workload', 'mode', 'batch', 'layer', 'algorithms', 'counter'),
  *('measured', 'predicted', 'error'),
)
SECONDS = 'seconds'
OF_PROFILE = 'profile'  # Algorithms as in the profile that is compared.
MISSING, WITHIN, BEYOND = 'missing', 'within the bound', 'beyond the bound'


def measured_of(profile: profiles.Profile) -> dict[str, float | None]:
  """Sums of the four counters and of the seconds; None of one that some launch lacks.

  Raises:
    ConfigError: for a profile without a counter: nothing would be compared.
  """
  measured = {name: traffic.total_of(profile.launches, name) for name in traffic.PROFILE_COUNTERS}
  if all(value is None for value in measured.values()):
    raise fields.ConfigError(
      f'config.profiles: {str(profile.path)!r} has none of the counters of every launch; allowed: '
      f'at least one of {", ".join(measured)}'
    )
  measured[SECONDS] = traffic.total_of(profile.launches, SECONDS)
  return measured


def disagrees(row: dict[str, Any]) -> bool:
  """Whether a row is no agreement: beyond the bound, or a counter that is missing.

  A profile without times is whole: nvprof measures none beside its metrics.
  """
  return row['verdict'] == BEYOND or row['verdict'] == MISSING and row['counter'] != SECONDS


class Prepared(NamedTuple):
  """A profile with all that is checked before anything is predicted.

  Attributes:
    profile: as it was read.
    table: of its network, for training as it trains.
    measured: sums of the counters and seconds.
    algorithms: that the model is asked for, `{(path, kind): algorithm}`.
  """

  profile: profiles.Profile
  table: workload.LayerTable
  measured: dict[str, float | None]
  algorithms: dict[tuple[str, str], str]

  @property
  def training(self) -> bool:
    return self.profile.mode != 'inference'


def prepare(config, found: list[profiles.Profile]) -> list[Prepared]:
  """Checks all profiles and the algorithms that the config asks for.

  Raises:
    ConfigError: as `measured_of` and `gpu_traffic.algorithms_of`.
  """
  sums = [measured_of(profile) for profile in found]
  tables = [
    models.layer_table(
      models.create(profile.workload, num_classes=1000),
      models.default_image_shape(profile.workload),
      train=profile.mode != 'inference',
    )
    for profile in found
  ]
  paths = [[layer.path for layer in table.layers] for table in tables]
  own = config.algorithms == OF_PROFILE
  if own and not config.layers:
    raise fields.ConfigError(
      f"config.algorithms={OF_PROFILE!r} with config.layers=''; allowed: layers that say which "
      'launches are of which layer'
    )
  layers = {profile.workload: names for profile, names in zip(found, paths)}
  asked = {} if own else gpu_traffic.algorithms_of(config, layers)
  prepared = []
  for profile, table, measured, names in zip(found, tables, sums, paths):
    chosen = gpu_traffic.of_profile(config, profile, names) if own else asked[profile.workload]
    one = Prepared(profile, table, measured, chosen)
    gpu_traffic.check(config, profile.workload, table, chosen, training=one.training)
    prepared.append(one)
  return prepared


def modelled(config, one: Prepared) -> traffic.Traffic:
  """The model's traffic of the step of which a profile covers a part."""
  return traffic.predict_traffic(
    one.table,
    gpu_traffic.gpu_of(config),
    one.profile.batch,
    training=one.training,
    library=gpu_traffic.library_of(config),
    chosen=dict(one.algorithms),
  )


def compare(config, one: Prepared, found: traffic.Traffic) -> list[dict[str, Any]]:
  """Measured and predicted counters and seconds, for the part that the profile covers."""
  name, mode, batch = one.profile.case
  part = traffic.part_of(found, mode)
  rows = []
  for counter, value in one.measured.items():
    predicted = float(sum(getattr(row, counter) for row in part))
    rows.append(
      {
        'workload': name,
        'mode': mode,
        'batch': batch,
        'counter': counter,
        'measured': value,
        'predicted': predicted,
        'error': predicted / value - 1 if value else None,
        'verdict': verdict(value, predicted, config.bound),
      }
    )
  return rows


def verdict(measured: float | None, predicted: float, bound: float) -> str:
  """Whether a prediction is within a factor of a measurement, or there is none."""
  if measured is None:
    return MISSING
  low, high = sorted((measured, predicted))
  return WITHIN if high <= bound * low else BEYOND


def compare_layers(config, one: Prepared, found: traffic.Traffic) -> list[dict[str, Any]]:
  """Rows of layers.csv of a profile."""
  name, mode, batch = one.profile.case
  grouped = profiles.grouped(config, one.profile, [layer.path for layer in one.table.layers])
  part = traffic.part_of(found, mode)
  by_kind = config.layers != 'nvtx'  # NVTX ranges hold what lies between the layers too.
  return [
    {
      'workload': name,
      'mode': mode,
      'batch': batch,
      'layer': row.path,
      'algorithms': algorithms_of(row.path, part, found.algorithms),
      'counter': row.counter,
      'measured': row.measured,
      'predicted': row.predicted,
      'error': row.error,
    }
    for row in traffic.compare_layers(grouped, part, products=by_kind)
  ]


def algorithms_of(
  path: str,
  part: tuple[traffic.KernelTraffic, ...],
  algorithms: Mapping[tuple[str, str], str],
) -> str:
  """The algorithms of a layer of a profile, one name, or where kinds of kernels differ one of each.

  Args:
    path: of the layer, perhaps with a kind.
    part: the rows that the profile covers: what it does not cover was computed by none.
    algorithms: `{(path, kind): algorithm}` of all layers.
  """
  path, kind = traffic.split_kind(path)
  covered = {(row.launch.path, row.launch.kind) for row in part}
  names = traffic.match_layer(path, {where: None for where, _ in algorithms})
  found: dict[str, list[str]] = {}
  for (where, what), name in algorithms.items():
    if where in names and (where, what) in covered and kind in ('', what):
      found.setdefault(what, []).append(name)
  shown = {what: '+'.join(dict.fromkeys(each)) for what, each in found.items()}
  if len(set(shown.values())) == 1:
    return next(iter(shown.values()))
  return ', '.join(f'{what} {name}' for what, name in shown.items())
