"""Networks on last-level caches of SRAM, STT and SOT: energy, delay, EDP and area.

    python -m experiments.nvm_eval --config configs/nvm_iso_capacity.py --workdir runs/iso_capacity
    python -m experiments.nvm_eval --config configs/nvm_iso_area.py --workdir runs/iso_area
    python -m experiments.nvm_eval --config configs/nvm_scaling.py --workdir runs/scaling
    python -m experiments.nvm_eval --config configs/nvm_batch.py --workdir runs/batch

Every figure comes twice: from DeepNVM++'s caches as recalled, unverified (source `published`), and
from this library's own cache model (source `model`). L2 and DRAM accesses are this library's
traffic model in both. Writes `results.csv`, `report.md`, plots and `config.json`.
"""

import pathlib
from typing import Any, NamedTuple

import numpy as np
from ml_collections import config_dict

from cnnopt_jax import models, nvm, report, traffic
from cnnopt_jax.nvm import system
from cnnopt_jax.nvm.validation import published
from experiments import nvm_eval_report
from experiments.common import fields, launch, run_folder

TECHNOLOGIES = ('sram', 'stt', 'sot')
ANALYSES = ('iso_capacity', 'iso_area', 'scaling', 'batch')
DRAMS = {'gddr5x': system.GDDR5X, 'hbm': system.HBM}
IMAGE_SIZES = {'alexnet': 227}  # 224 otherwise.
MIB = 1 << 20

# Fields of a config that say what caches are made of.
CACHE_SPEC = {
  'stt_cell': fields.one_of(*nvm.CELLS),
  'sot_cell': fields.one_of(*nvm.CELLS),
  'tag_cell': fields.one_of('same', *nvm.CELLS),
  'node_nm': fields.integer(16, 120),
  'roadmap': fields.one_of('HP', 'LSTP', 'LOP'),
  'temperature_k': fields.integer(300, 400),
}
_BATCHES = fields.tuple_of(fields.integer(1, 4096), min_length=0)
SPEC = {
  'analysis': fields.one_of(*ANALYSES),
  'workloads': fields.tuple_of(fields.one_of(*models.MODELS)),
  'inference_batches': _BATCHES,
  'training_batches': _BATCHES,
  'gpu': fields.one_of(*traffic.GPUS),
  'dram': fields.one_of(*DRAMS),
  'baseline_mib': fields.integer(1, 64),
  'capacities_mib': fields.tuple_of(fields.integer(1, 1024)),
  **CACHE_SPEC,
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
  technology: str
  capacity_mib: int
  sram_mib: int


def run(config: config_dict.ConfigDict, workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Evaluates, writes the files and returns the rows of results.csv."""
  if not config.inference_batches and not config.training_batches:
    raise fields.ConfigError(
      'config.inference_batches=(): and config.training_batches=(): '
      'allowed: at least one batch size in one of them'
    )
  caches, figures = all_caches(config)
  demands = all_traffic(config)
  rows = evaluate(config, caches, figures, demands)
  run_folder.write_atomically(workdir / 'results.csv', report.to_csv(rows, COLUMNS))
  nvm_eval_report.write(config, workdir, rows, figures, demands)
  run_folder.record(workdir, config)
  print((workdir / 'report.md').read_text())
  return rows


def tuned(config, technologies, capacities_mib) -> dict[tuple[str, int], system.CacheFigures]:
  """`{(technology, MiB): figures}` of our own model's EDAP-tuned caches."""
  try:
    tech = nvm.technology_node(config.node_nm, config.roadmap, config.temperature_k)
  except ValueError as error:
    raise fields.ConfigError(f'config.{error}') from None
  names = {'sram': 'sram', 'stt': config.stt_cell, 'sot': config.sot_cell}
  found = nvm.edap_tuned(
    {name: nvm.CELLS[names[name]] for name in technologies},
    tech,
    [mib * MIB for mib in capacities_mib],
    tag_cell=None if config.tag_cell == 'same' else nvm.CELLS[config.tag_cell],
  )
  return {
    (name, capacity // MIB): system.CacheFigures(*map(float, system.CacheFigures.of(winner.totals)))
    for (name, capacity), winner in found.items()
  }


def all_caches(config) -> tuple[list[Cache], dict[tuple[str, str, int], system.CacheFigures]]:
  """What to evaluate, and `{(source, technology, MiB): figures}` of every cache."""
  figures = {('published', *key): value for key, value in published.RECALLED_CACHES.items()}

  def tuned_and_kept(technologies, capacities_mib):
    found = tuned(config, technologies, capacities_mib)
    figures.update({('model', *key): value for key, value in found.items()})
    return found

  base = config.baseline_mib
  if config.analysis == 'iso_area':
    tuned_and_kept(['sram'], [base])
    sizes = {'sram': base}
    area = figures['model', 'sram', base].area_mm2
    for name in ('stt', 'sot'):
      sizes[name] = largest_within(
        area,
        base,
        lambda mibs, name=name: {
          mib: value.area_mm2 for (_, mib), value in tuned_and_kept([name], mibs).items()
        },
      )
    sizes_of = {'model': sizes, 'published': {'sram': 3, 'stt': 7, 'sot': 10}}
    caches = [
      Cache(source, name, mib, sizes_of[source]['sram'])
      for source in ('published', 'model')
      for name, mib in sizes_of[source].items()
    ]
  else:
    capacities = config.capacities_mib if config.analysis == 'scaling' else (base,)
    tuned_and_kept(TECHNOLOGIES, capacities)
    caches = [
      Cache(source, name, mib, mib)
      for source in ('published', 'model')
      for mib in capacities
      for name in TECHNOLOGIES
      if (source, name, mib) in figures
    ]
  # The published table has SRAM at 3 MB only.
  caches = [c for c in caches if (c.source, 'sram', c.sram_mib) in figures]
  used = {(c.source, c.technology, c.capacity_mib) for c in caches}
  return caches, {key: value for key, value in figures.items() if key in used}


def largest_within(area_mm2: float, start_mib: int, areas_of) -> int:
  """The largest whole number of MiB whose cache fits an area, and at least `start_mib`.

  A tuned cache's area is not quite monotonic in its capacity, so sizes are looked at four at a
  time, until none of the four fits.
  """
  best, mib = start_mib, start_mib
  while True:
    fitting = [size for size, area in areas_of(range(mib, mib + 4)).items() if area <= area_mm2]
    if not fitting:
      return best
    best, mib = max(fitting), mib + 4


def all_traffic(config) -> dict[Case, traffic.Traffic]:
  """Traffic of every workload, mode and batch."""
  gpu, demands = traffic.GPUS[config.gpu], {}
  modes = {'inference': config.inference_batches, 'training': config.training_batches}
  for name in config.workloads:
    model, side = models.create(name, num_classes=1000), IMAGE_SIZES.get(name, 224)
    for mode, batches in modes.items():
      training = mode == 'training'
      table = models.layer_table(model, (side, side, 3), train=training) if batches else None
      for batch in batches:
        demands[Case(name, mode, batch)] = traffic.predict_traffic(
          table, gpu, batch, training=training
        )
  return demands


def evaluate(
  config, caches: list[Cache], figures, demands: dict[Case, traffic.Traffic]
) -> list[dict[str, Any]]:
  """The rows of results.csv: all workloads on all caches in one vmapped evaluation."""
  stacked = system.CacheFigures(
    *(
      np.array(column)
      for column in zip(*(figures[c.source, c.technology, c.capacity_mib] for c in caches))
    )
  )
  capacities = np.array([c.capacity_mib * MIB for c in caches])
  dram = DRAMS[config.dram]
  with nvm.float64():
    totals = system.system_totals_grid(
      system.Demand(
        np.array([t.l2_reads for t in demands.values()]),
        np.array([t.l2_writes for t in demands.values()]),
        np.stack([sum(t.dram(capacities)) for t in demands.values()]),
      ),
      stacked,
      system.Dram(*(np.array([0.0, value]) for value in dram)),
    )
    totals = {
      name: np.broadcast_to(value, totals.edp_js.shape) for name, value in totals._asdict().items()
    }
  reference = {
    (c.source, c.capacity_mib): j for j, c in enumerate(caches) if c.technology == 'sram'
  }
  rows = []
  for j, cache in enumerate(caches):
    for i, case in enumerate(demands):
      for k, with_dram in enumerate((False, True)):
        values = {name: float(totals[name][i, j, k]) for name in FIGURES}
        base = reference[cache.source, cache.sram_mib]
        rows.append(
          {
            'source': cache.source,
            'technology': cache.technology,
            'capacity_mib': cache.capacity_mib,
            **case._asdict(),
            'with_dram': with_dram,
            **values,
            **{
              column: float(totals[name][i, base, k]) / values[name] if values[name] else None
              for name, column in REDUCTIONS.items()
            },
          }
        )
  return rows


if __name__ == '__main__':
  launch.main(run, SPEC, 'configs/nvm_iso_capacity.py', 'runs/nvm_eval')
