"""Which networks are evaluated on which caches, and the rows that come of it."""

from typing import Any, NamedTuple

from cnnopt_jax import codesign, models, nvm, traffic
from cnnopt_jax.nvm import validation
from experiments.common import caches, fields, gpu_traffic, profiles

TECHNOLOGIES, MIB = caches.TECHNOLOGIES, caches.MIB
ANALYSES = ('iso_capacity', 'iso_area', 'scaling', 'batch')
_BATCHES = fields.tuple_of(fields.integer(1, 4096), min_length=0)
SPEC = {
  'analysis': fields.one_of(*ANALYSES),
  'workloads': fields.tuple_of(fields.one_of(*models.MODELS)),
  'inference_batches': _BATCHES,
  'training_batches': _BATCHES,
  **gpu_traffic.SPEC,
  'dram': fields.one_of('gddr5x', 'hbm'),
  'baseline_mib': fields.integer(1, 64),
  'capacities_mib': fields.tuple_of(fields.integer(1, 1024)),
  'profile': profiles.FILES,
  **profiles.SPEC,
  **caches.SPEC,
}
FIGURES = (
  'area_mm2',
  'dynamic_energy_j',
  'leakage_energy_j',
  'dram_energy_j',
  'total_energy_j',
  'delay_s',
  'edp_js',
)
REDUCTIONS = {name: name.rpartition('_')[0] + '_reduction' for name in FIGURES}
COLUMNS = (
  'source',
  'technology',
  'capacity_mib',
  'workload',
  'mode',
  'batch',
  'with_dram',
  *FIGURES,
  *REDUCTIONS.values(),
)


class Case(NamedTuple):
  """A workload: a network, what it does, and on how many images."""

  workload: str
  mode: str
  batch: int


class Cache(NamedTuple):
  """A cache to evaluate, and the capacity of the SRAM cache that it is compared with."""

  source: str
  cache: nvm.LastLevelCache
  sram_mib: int

  @property
  def technology(self) -> str:
    return self.cache.name

  @property
  def capacity_mib(self) -> int:
    return self.cache.capacity_bytes // MIB


def all_caches(config) -> list[Cache]:
  """The caches of both sources that the analysis compares."""
  recalled = {
    (name, mib): nvm.LastLevelCache(name, mib * MIB, figures)
    for (name, mib), figures in validation.RECALLED_CACHES.items()
  }
  base = config.baseline_mib
  if config.analysis == 'iso_area':
    chosen = [('published', recalled[key], 3) for key in (('sram', 3), ('stt', 7), ('sot', 10))]
    return [Cache(*c) for c in chosen + [('model', c, base) for c in equal_area(config, base)]]
  capacities = config.capacities_mib if config.analysis == 'scaling' else (base,)
  sources = {'published': recalled, 'model': caches.tuned(config, TECHNOLOGIES, capacities)}
  return [
    Cache(source, found[name, mib], mib)
    for source, found in sources.items()
    for mib in capacities
    for name in TECHNOLOGIES
    # The published table has SRAM at 3 MB only.
    if (name, mib) in found and ('sram', mib) in found
  ]


def equal_area(config, sram_mib: int) -> list[nvm.LastLevelCache]:
  """Our SRAM cache, and the largest STT and SOT caches in its area, of at least its capacity."""
  sram = caches.tuned(config, ['sram'], [sram_mib])['sram', sram_mib]
  found = [sram]
  for name in ('stt', 'sot'):
    winner = nvm.largest_within_area(
      caches.cell_of(config, name),
      caches.technology_of(config),
      sram.figures.area_mm2,
      least_mib=sram_mib,
      name=name,
      **caches.options_of(config),
    )
    if winner is None:  # Larger than SRAM: compared at equal capacity.
      found.append(caches.tuned(config, [name], [sram_mib])[name, sram_mib])
    else:
      found.append(nvm.LastLevelCache.of(name, winner.capacity_bytes, winner.totals))
  return found


def _modes(config) -> dict[str, tuple[int, ...]]:
  return {'inference': config.inference_batches, 'training': config.training_batches}


def measured(config) -> dict[Case, traffic.ProfileDemand]:
  """Demands of the profiles that the config names, each of a case that is evaluated."""
  cases = [
    Case(name, mode, batch)
    for name in config.workloads
    for mode, batches in _modes(config).items()
    for batch in batches
  ]
  found = {Case(*case): demand for case, demand in profiles.demands(config, 'profile').items()}
  for case in found:
    if case not in cases:
      raise profiles.unknown_case('profile', case, cases)
  return found


def algorithms(config) -> dict[str, dict[tuple[str, str], str]]:
  """`{workload: {(path, kind): algorithm}}` that the config asks for, checked on all workloads."""
  if not config.algorithms:
    return {name: {} for name in config.workloads}
  tables = {
    name: models.layer_table(
      models.create(name, num_classes=1000), models.default_image_shape(name), train=True
    )
    for name in config.workloads
  }
  paths = {name: [layer.path for layer in table.layers] for name, table in tables.items()}
  asked = gpu_traffic.algorithms_of(config, paths)
  training = bool(config.training_batches)
  for name, table in tables.items():
    gpu_traffic.check(config, name, table, asked[name], training=training)
  return asked


def evaluate(
  config,
  compared: list[Cache],
  demands: dict[Case, traffic.ProfileDemand],
  asked: dict[str, dict[tuple[str, str], str]],
) -> dict[tuple[str, str], codesign.CodesignReport]:
  """Reports `[cache, batch, without and with DRAM]` of every workload and mode."""
  return {
    (name, mode): codesign.evaluate(
      name,
      cache=[c.cache for c in compared],
      gpu=gpu_traffic.gpu_of(config),
      library=gpu_traffic.library_of(config),
      algorithms=asked[name],
      batch=list(batches),
      training=mode == 'training',
      dram=[None, config.dram],
      measured={c.batch: d for c, d in demands.items() if (c.workload, c.mode) == (name, mode)},
    )
    for name in config.workloads
    for mode, batches in _modes(config).items()
    if batches
  }


def all_traffic(found: dict[tuple[str, str], codesign.CodesignReport]) -> dict[Case, Any]:
  """Traffic of every workload, mode and batch."""
  return {
    Case(name, mode, batch): report.traffic[0, i, 0]
    for (name, mode), report in found.items()
    for i, batch in enumerate(report.labels['batch'])
  }


def as_rows(
  compared: list[Cache], found: dict[tuple[str, str], codesign.CodesignReport]
) -> list[dict[str, Any]]:
  """The rows of results.csv."""
  sram = {(c.source, c.capacity_mib): j for j, c in enumerate(compared) if c.technology == 'sram'}
  rows = []
  for j, cache in enumerate(compared):
    base = sram[cache.source, cache.sram_mib]
    for (name, mode), report in found.items():
      for i, batch in enumerate(report.labels['batch']):
        for k, with_dram in enumerate((False, True)):
          values, reference = (
            {figure: report.figure(figure)[at, i, k].item() for figure in FIGURES}
            for at in (j, base)
          )
          rows.append(
            {
              'source': cache.source,
              'technology': cache.technology,
              'capacity_mib': cache.capacity_mib,
              'workload': name,
              'mode': mode,
              'batch': batch,
              'with_dram': with_dram,
              **values,
              **{
                column: reference[figure] / values[figure] if values[figure] else None
                for figure, column in REDUCTIONS.items()
              },
            }
          )
  return rows
