"""A profile beside the part of the model that it covers: totals, and layer by layer."""

from typing import Any

from cnnopt_jax import models, traffic, workload
from experiments.common import fields, profiles

COLUMNS = ('workload', 'mode', 'batch', 'counter', 'measured', 'predicted', 'error', 'verdict')
LAYER_COLUMNS = ('workload', 'mode', 'batch', 'layer', 'counter', 'measured', 'predicted', 'error')
MISSING, WITHIN, BEYOND = 'missing', 'within the bound', 'beyond the bound'


def measured_of(profile: profiles.Profile) -> dict[str, float | None]:
  """Sums of the four counters; None of one that some launch lacks.

  Raises:
    ConfigError: for a profile with none of them: nothing would be compared.
  """
  measured = {name: traffic.total_of(profile.launches, name) for name in traffic.PROFILE_COUNTERS}
  if all(value is None for value in measured.values()):
    raise fields.ConfigError(
      f'config.profiles: {str(profile.path)!r} has none of the counters of every launch; allowed: '
      f'at least one of {", ".join(measured)}'
    )
  return measured


def modelled(
  config, profile: profiles.Profile
) -> tuple[workload.LayerTable, tuple[traffic.KernelTraffic, ...]]:
  """The network's table, and the model's rows of the part that a profile covers."""
  name, mode, batch = profile.case
  training, shape = mode != 'inference', models.default_image_shape(name)
  table = models.layer_table(models.create(name, num_classes=1000), shape, train=training)
  found = traffic.predict_traffic(table, traffic.GPUS[config.gpu], batch, training=training)
  return table, traffic.part_of(found, mode)


def compare(
  config,
  profile: profiles.Profile,
  measured: dict[str, float | None],
  part: tuple[traffic.KernelTraffic, ...],
) -> list[dict[str, Any]]:
  """Measured and predicted sums of the four counters, for the part that the profile covers."""
  name, mode, batch = profile.case
  rows = []
  for counter, value in measured.items():
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


def compare_layers(
  config,
  profile: profiles.Profile,
  table: workload.LayerTable,
  part: tuple[traffic.KernelTraffic, ...],
) -> list[dict[str, Any]]:
  """Rows of layers.csv of a profile."""
  name, mode, batch = profile.case
  by = config.layers if config.layers in ('nvtx', 'order') else 'ranges'
  options: dict[str, Any] = {}
  try:
    if by == 'ranges':
      options['ranges'] = traffic.read_layer_ranges(config.layers)
    elif by == 'order':
      if mode not in ('inference', 'forward'):
        raise ValueError(f'order is that of a forward pass, but the profile is of {mode}')
      options['layers'] = [layer.path for layer in table.layers]
    grouped = traffic.group_by_layer(profile.launches, by, **options)
  except (OSError, ValueError) as error:
    raise fields.ConfigError(
      f'config.layers={config.layers!r}, {str(profile.path)!r}: {error}'
    ) from None
  return [
    {
      'workload': name,
      'mode': mode,
      'batch': batch,
      'layer': one.path,
      'counter': one.counter,
      'measured': one.measured,
      'predicted': one.predicted,
      'error': one.error,
    }
    for one in traffic.compare_layers(grouped, part, products=by != 'nvtx')
  ]
