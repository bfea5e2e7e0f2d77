"""Which networks are evaluated on which caches, and the rows that come of it."""

import collections
import csv
import math
import pathlib
import statistics
from typing import Any, NamedTuple

import numpy as np

from cnnopt_jax import codesign, models, pareto, traffic, vip
from experiments.common import caches, fields, gpu_traffic, profiles

SPEC = {
  'model': fields.one_of(*models.MODELS),
  'image_shape': fields.tuple_of(fields.integer(1, 4096), min_length=3, unique=False),
  'num_classes': fields.integer(1, 100_000),
  'batch': fields.integer(1, 4096),
  'bits': fields.tuple_of(fields.one_of(*range(1, 9), 32)),
  'plans': fields.tuple_of(
    fields.text('"none", "all", a named plan, or names of units with + between'), min_length=0
  ),
  'technologies': fields.tuple_of(fields.one_of(*caches.TECHNOLOGIES)),
  'capacities_mib': fields.tuple_of(fields.integer(1, 1024)),
  'results': fields.text('paths of results.csv files, with commas between'),
  **gpu_traffic.SPEC,
  'dram': fields.one_of('gddr5x', 'hbm'),
  'profile': profiles.FILES,
  **profiles.SPEC,
  **caches.SPEC,
}
COLUMNS = (
  'model',
  'width_multiplier',
  'bits',
  'plan',
  'technology',
  'capacity_mib',
  'test_accuracy',
  'seeds',
  'weight_kib',
  'macs',
  'area_mm2',
  'l2_reads',
  'l2_writes',
  'dram_accesses',
  'dynamic_energy_j',
  'leakage_energy_j',
  'dram_energy_j',
  'total_energy_j',
  'delay_s',
  'edp_js',
  'edp_reduction',
  'pareto',
)
FIGURES = COLUMNS[COLUMNS.index('macs') : COLUMNS.index('edp_reduction')]


class Network(NamedTuple):
  """A network: bits of its weights, plan, width, and its accuracy where it is known."""

  bits: int
  plan: str
  width_multiplier: float
  test_accuracy: float | None
  seeds: int


def units_of(model, plan: str, where: str = 'config.plans') -> tuple[str, ...]:
  """The units of a plan that `where` names."""
  named = plan in ('none', 'all', *vip.PLANS)
  try:
    return vip.resolve_plan(plan if named else plan.split('+'), models.unit_names(model))
  except ValueError as error:
    raise fields.ConfigError(f'{where}: {plan!r}: {error}') from None


def all_networks(config) -> list[Network]:
  """Every bitwidth at every width that the results have, or at width 1, with every plan."""
  found = collections.defaultdict(list)
  for path in filter(None, config.results.split(',')):
    for r in read_results(pathlib.Path(path), config.model):
      found[r].append(r)
  model = models.create(config.model, num_classes=config.num_classes)
  # Units in any order are one plan.

  def key(plan, *where):
    return frozenset(units_of(model, plan, *where))

  accuracies = collections.defaultdict(list)
  for (bits, plan, width, accuracy), repeats in found.items():
    accuracies[bits, key(plan, 'config.results'), width] += [accuracy] * len(repeats)
  names = models.unit_names(model)

  def spelled(units):
    return (
      'all'
      if len(units) == len(names)
      else '+'.join(name for name in names if name in units) or 'none'
    )

  plans = {key(plan): plan for plan in config.plans} or {
    units: spelled(units)
    for units in sorted(
      {units for _, units, _ in accuracies}, key=lambda units: (len(units), spelled(units))
    )
  }
  if not plans:
    raise fields.ConfigError(
      'config.plans=(); allowed: at least one plan where config.results names no file'
    )
  networks = []
  for bits in config.bits:
    widths = sorted({width for b, _, width in accuracies if b == bits}) or [1.0]
    for width in widths:
      for units, plan in plans.items():
        known = accuracies.get((bits, units, width), [])
        networks.append(
          Network(bits, plan, width, statistics.fmean(known) if known else None, len(known))
        )
  if found and not any(network.seeds for network in networks):
    keys = ', '.join(sorted({f'({bits} bits, plan {plan})' for bits, plan, *_ in found}))
    raise fields.ConfigError(
      f'config.results={config.results!r}: no accuracy of a network in '
      f'config.bits and config.plans; it has {keys}'
    )
  return networks


def read_results(path: pathlib.Path, model: str) -> list[tuple[int, str, float, float]]:
  """(bits, plan, width, accuracy) of every trained network of a results.csv."""

  def problem(what):
    return fields.ConfigError(
      f'config.results={str(path)!r}: {what}; allowed: results.csv of a finished run'
    )

  try:
    with open(path, newline='') as file:
      table = list(csv.DictReader(file))
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise problem(error) from None
  if not table or 'test_accuracy' not in table[0]:
    raise problem("no column 'test_accuracy'")
  rows = []
  for line, r in enumerate(table, 2):
    if r.get('model', model) != model or not r['test_accuracy']:
      continue  # Another network, or one that diverged.
    try:
      rows.append(
        (
          int(float(r.get('bits') or 32)),
          r.get('plan') or 'none',
          float(r.get('width_multiplier') or 1),
          float(r['test_accuracy']),
        )
      )
    except ValueError as error:
      raise problem(f'line {line}: {error}') from None
    if not all(map(math.isfinite, rows[-1][2:])):
      raise problem(f'line {line}: a number that is not finite')
  if not rows:
    raise problem(f'no accuracy of model {model!r}')
  return rows


def measured(config) -> dict[int, traffic.ProfileDemand]:
  """The demand of the profile that the config names, by its batch: of this model's inference."""
  case = config.model, 'inference', config.batch
  found = profiles.demands(config, 'profile')
  for other in found:
    if other != case:
      raise profiles.unknown_case('profile', other, [case])
  return {batch: demand for (_, _, batch), demand in found.items()}


def algorithms(config) -> dict[tuple[str, str], str]:
  """`{(path, kind): algorithm}` that the config asks for, checked on the model."""
  if not config.algorithms:
    return {}
  model = models.create(config.model, num_classes=config.num_classes)
  table = models.layer_table(model, tuple(config.image_shape))
  paths = [layer.path for layer in table.layers]
  asked = gpu_traffic.algorithms_of(config, {config.model: paths})[config.model]
  gpu_traffic.check(config, config.model, table, asked, training=False)
  return asked


def evaluate(
  config, networks: list[Network], demands: dict[int, traffic.ProfileDemand]
) -> tuple[list[dict[str, Any]], list[Any]]:
  """One row for each network and cache, and what was predicted; one width is one grid."""
  library, asked = gpu_traffic.library_of(config), algorithms(config)
  wide = next((n for n in networks if n.width_multiplier != 1), None)
  if demands and wide is not None:
    raise fields.ConfigError(
      f'config.profile={config.profile!r}: of a network of width 1, but config.results has '
      f'{wide.width_multiplier:g}; allowed: one of them'
    )
  tuned = caches.tuned(config, config.technologies, config.capacities_mib)
  model = models.create(config.model, num_classes=config.num_classes)
  reports = {}
  for width in dict.fromkeys(network.width_multiplier for network in networks):
    here = [network for network in networks if network.width_multiplier == width]
    bits = list(dict.fromkeys(network.bits for network in here))
    plans = list(dict.fromkeys(network.plan for network in here))
    grid = codesign.evaluate(
      config.model,
      bits=bits,
      plan=[units_of(model, plan) for plan in plans],
      cache=list(tuned.values()),
      gpu=gpu_traffic.gpu_of(config),
      library=library,
      algorithms=asked,
      batch=config.batch,
      dram=config.dram,
      accounting='weights',
      image_shape=tuple(config.image_shape),
      num_classes=config.num_classes,
      width_multiplier=width,
      measured=demands,
    )
    reports[width] = grid, bits, plans
  # Of every bitwidth and plan; caches do not change it.
  streams = [found for grid, _, _ in reports.values() for found in grid.traffic[:, :, 0].flat]
  rows = []
  for network in networks:
    grid, bits, plans = reports[network.width_multiplier]
    i, j = bits.index(network.bits), plans.index(network.plan)
    for k, (technology, mib) in enumerate(tuned):
      rows.append(
        {
          'model': config.model,
          **network._asdict(),
          'technology': technology,
          'capacity_mib': mib,
          'weight_kib': int(grid.size.weights[i, j, k]) / 8 / 1024,
          **{name: grid.figure(name)[i, j, k].item() for name in FIGURES},
        }
      )
  return rows, streams


def mark_pareto(rows: list[dict[str, Any]]) -> None:
  """Marks the rows that no other one beats.

  By EDP, area and accuracy among rows whose accuracy is known. Where it is known of none, more
  bits and more multiply-accumulates count as no less accurate.
  """
  known = [r for r in rows if r['test_accuracy'] is not None]
  chosen = known or rows
  quality = (lambda r: [-r['test_accuracy']]) if known else (lambda r: [-r['bits'], -r['macs']])
  values = np.array([[r['edp_js'], r['area_mm2'], *quality(r)] for r in chosen])
  best = {id(chosen[i]) for i in pareto.non_dominated(values)}
  for r in rows:
    r['pareto'] = id(r) in best


def mark_reductions(rows: list[dict[str, Any]]) -> dict[str, Any]:
  """Sets how much EDP falls below that of the most expensive baseline, and returns that row."""
  base = max(
    rows,
    key=lambda r: (
      r['technology'] == 'sram',
      r['bits'],
      r['plan'] == 'none',
      -r['capacity_mib'],
      r['width_multiplier'],
    ),
  )
  for r in rows:
    r['edp_reduction'] = base['edp_js'] / r['edp_js']
  return base
