"""Weight bits x virtual pooling x memory technology x capacity: one table, one Pareto front.

    python -m experiments.codesign --config configs/codesign.py --workdir runs/codesign
    python -m experiments.codesign --config configs/codesign_vgg8.py --workdir runs/codesign_vgg8

Accuracies come from finished runs: `results` names their results.csv files, with columns
`test_accuracy` and any of `model`, `bits`, `plan` and `width_multiplier`; rows that differ by seed
are averaged. A bitwidth then stands for the networks of that bitwidth in those files, at their
widths; `plans=()` takes the plans from there too. Energy, delay and EDP are the memory system's,
last-level cache and DRAM, for one inference of `batch` images; what arithmetic costs is not in
them. Weights are stored in their bits and widened in the kernels; activations have 32. Writes
`results.csv`, `report.md` and `codesign.png`.
"""

import collections
import csv
import math
import pathlib
import statistics
from typing import Any, NamedTuple

import numpy as np
from matplotlib import figure
from ml_collections import config_dict

from cnnopt_jax import models, report, traffic, vip
from cnnopt_jax.nvm import system
from cnnopt_jax.nvm.search.tuning import non_dominated
from cnnopt_jax.workload import with_virtual_maps
from experiments import nvm_eval
from experiments.common import fields, launch, reports, run_folder

SPEC = {
  'model': fields.one_of(*models.MODELS),
  'image_shape': fields.tuple_of(fields.integer(1, 4096), min_length=3, unique=False),
  'num_classes': fields.integer(1, 100_000),
  'batch': fields.integer(1, 4096),
  'bits': fields.tuple_of(fields.one_of(*range(1, 9), 32)),
  'plans': fields.tuple_of(
    fields.text('"none", "all", a named plan, or names of units with + between'), min_length=0
  ),
  'technologies': fields.tuple_of(fields.one_of(*nvm_eval.TECHNOLOGIES)),
  'capacities_mib': fields.tuple_of(fields.integer(1, 1024)),
  'results': fields.text('paths of results.csv files, with commas between'),
  'gpu': fields.one_of(*traffic.GPUS),
  'dram': fields.one_of(*nvm_eval.DRAMS),
  **nvm_eval.CACHE_SPEC,
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
_SHOWN = 30  # Rows of the front in the report.
_COLORS = {'sram': '0.4', 'stt': 'C0', 'sot': 'C1'}


class Network(NamedTuple):
  """A network: bits of its weights, plan, width, and its accuracy where it is known."""

  bits: int
  plan: str
  width_multiplier: float
  test_accuracy: float | None
  seeds: int


def run(config: config_dict.ConfigDict, workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Evaluates all combinations, writes the files and returns the rows of results.csv."""
  if len(config.image_shape) != 3:
    raise fields.ConfigError(f'config.image_shape={config.image_shape}; allowed: (H, W, C)')
  networks = all_networks(config)
  traced = {n: demands(config, n) for n in networks}
  caches = nvm_eval.tuned(config, config.technologies, config.capacities_mib)
  rows = [
    row(config, network, *traced[network], key, cache)
    for network in networks
    for key, cache in caches.items()
  ]
  mark_pareto(rows)
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
  run_folder.write_atomically(workdir / 'results.csv', report.to_csv(rows, COLUMNS))
  reports.write(workdir, as_report(config, rows, base))
  run_folder.record(workdir, config)
  plot(config, rows, workdir / 'codesign.png')
  print((workdir / 'report.md').read_text())
  return rows


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
  key = lambda plan, *where: frozenset(units_of(model, plan, *where))
  accuracies = collections.defaultdict(list)
  for (bits, plan, width, accuracy), repeats in found.items():
    accuracies[bits, key(plan, 'config.results'), width] += [accuracy] * len(repeats)
  names = models.unit_names(model)
  spelled = lambda units: (
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
  problem = lambda what: fields.ConfigError(
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


def demands(config, network: Network) -> tuple[float, int, system.Demand]:
  """Bytes of weights, MACs of one image, and accesses, with DRAM's for every capacity."""
  model = models.create(
    config.model, num_classes=config.num_classes, width_multiplier=network.width_multiplier
  )
  table = models.layer_table(model, tuple(config.image_shape))
  units = units_of(model, network.plan)
  table = with_virtual_maps(table, [f'{unit}/conv' for unit in units])
  bits = {p.path: network.bits for p in table.parameters if p.role == 'weight'}
  found = traffic.predict_traffic(table, traffic.GPUS[config.gpu], config.batch, weight_bits=bits)
  capacities = np.array(config.capacities_mib) * nvm_eval.MIB
  dram = dict(zip(config.capacities_mib, sum(found.dram(capacities))))
  return (
    table.weights * network.bits / 8,
    table.macs,
    system.Demand(found.l2_reads, found.l2_writes, dram),
  )


def row(
  config,
  network: Network,
  weight_bytes: float,
  macs: int,
  demand: system.Demand,
  key: tuple[str, int],
  cache: system.CacheFigures,
) -> dict[str, Any]:
  """One combination."""
  technology, mib = key
  here = demand._replace(dram_accesses=float(demand.dram_accesses[mib]))
  totals = system.system_totals(here, cache, nvm_eval.DRAMS[config.dram])
  return {
    'model': config.model,
    **network._asdict(),
    'technology': technology,
    'capacity_mib': mib,
    'weight_kib': weight_bytes / 1024,
    'macs': macs,
    **here._asdict(),
    **{name: float(value) for name, value in totals._asdict().items()},
  }


def mark_pareto(rows: list[dict[str, Any]]) -> None:
  """Marks the rows that no other one beats.

  By EDP, area and accuracy among rows whose accuracy is known. Where it is known of none, more
  bits and more multiply-accumulates count as no less accurate.
  """
  known = [r for r in rows if r['test_accuracy'] is not None]
  chosen = known or rows
  quality = (lambda r: [-r['test_accuracy']]) if known else (lambda r: [-r['bits'], -r['macs']])
  front = non_dominated(np.array([[r['edp_js'], r['area_mm2'], *quality(r)] for r in chosen]))
  best = {id(chosen[i]) for i in front}
  for r in rows:
    r['pareto'] = id(r) in best


def as_report(config, rows, base) -> list[str]:
  known = any(r['test_accuracy'] is not None for r in rows)
  front = sorted((r for r in rows if r['pareto']), key=lambda r: r['edp_js'])
  head = [
    'bits',
    'plan',
    'width',
    'technology',
    'MiB',
    'accuracy',
    'weights, KiB',
    'MMAC',
    'area, mm2',
    'energy, mJ',
    'delay, ms',
    'EDP, mJ s',
    'EDP gain',
  ]
  cells = lambda r: [
    r['bits'],
    r['plan'],
    f'{r["width_multiplier"]:.3g}',
    r['technology'],
    r['capacity_mib'],
    '-' if r['test_accuracy'] is None else f'{r["test_accuracy"]:.4f}',
    f'{r["weight_kib"]:,.0f}',
    f'{r["macs"] / 1e6:,.1f}',
    f'{r["area_mm2"]:.3g}',
    f'{1e3 * r["total_energy_j"]:.4g}',
    f'{1e3 * r["delay_s"]:.4g}',
    f'{1e3 * r["edp_js"]:.4g}',
    f'{r["edp_reduction"]:.3g}',
  ]
  criteria = (
    'by EDP, area and accuracy'
    if known
    else 'by EDP and area, where more bits and more '
    'MACs count as no less accurate: **no accuracy is known here** (`results` names runs '
    'that measured it)'
  )
  return [
    f'# {config.model}: bits, virtual maps, memory technology and capacity together',
    '',
    f'{len(rows)} combinations, inference of {config.batch} images of '
    f'{"x".join(map(str, config.image_shape))} on a {config.gpu} with another last-level cache. '
    'Energy and delay are those of the cache and of DRAM, by models that have not been validated '
    'on hardware. EDP gain: over '
    f'{base["bits"]} bits, plan {base["plan"]}, {base["capacity_mib"]} MiB of '
    f'{base["technology"].upper()}.',
    '',
    f'## The {len(front)} combinations that no other beats',
    '',
    f'{criteria[0].upper()}'
    f'{criteria[1:]}.'
    + (f' The first {_SHOWN} by EDP; results.csv has all.' if len(front) > _SHOWN else ''),
    '',
    report.to_markdown([cells(r) for r in front[:_SHOWN]], head),
    '## What each choice alone does to EDP',
    '',
    'Geometric mean over all else of the EDP of the first option over that of this one.',
    '',
    report.to_markdown(main_effects(rows), ['choice', 'option', 'EDP gain']),
    '',
    '![accuracy or bits against EDP](codesign.png)',
    '',
  ]


def main_effects(rows) -> list[list]:
  lines = []
  for column in ('bits', 'plan', 'technology', 'capacity_mib'):
    options = dict.fromkeys(r[column] for r in rows)
    logs = {o: np.mean([math.log(r['edp_js']) for r in rows if r[column] == o]) for o in options}
    first = 32 if column == 'bits' and 32 in logs else next(iter(options))
    lines += [[column, o, f'{math.exp(logs[first] - logs[o]):.2f}'] for o in options]
  return lines


def _plan_title(plan: str) -> str:
  units = plan.split('+')
  return f'plan {plan}' if len(units) == 1 else f'{len(units)} virtual units'


def plot(config, rows, path: pathlib.Path) -> None:
  """A panel a plan: accuracy, or bits where it is unknown, against EDP; the front is filled."""
  known = any(r['test_accuracy'] is not None for r in rows)
  plans = dict.fromkeys(r['plan'] for r in rows)
  drawing = figure.Figure(figsize=(3.1 * len(plans) + 1, 3.6), layout='constrained')
  panels = drawing.subplots(1, len(plans), sharex=True, sharey=True, squeeze=False)[0]
  markers = dict(zip(config.capacities_mib, 'os^vD<>pP*Xh' * 100))
  for axes, plan in zip(panels, plans):
    for technology in config.technologies:
      for mib in config.capacities_mib:
        points = [
          r
          for r in rows
          if (r['plan'], r['technology'], r['capacity_mib']) == (plan, technology, mib)
          and (not known or r['test_accuracy'] is not None)
        ]
        y = [r['test_accuracy'] if known else r['bits'] for r in points]
        axes.scatter(
          [r['edp_js'] for r in points],
          y,
          s=22,
          marker=markers[mib],
          facecolors=[_COLORS[technology] if r['pareto'] else 'none' for r in points],
          edgecolors=_COLORS[technology],
          linewidths=0.8,
          label=f'{technology} {mib} MiB',
        )
    axes.set(xscale='log', xlabel='EDP of cache and DRAM, J s', title=_plan_title(plan))
    if not known:
      axes.set_yscale('log', base=2)
      ticks = [bits for bits in config.bits if bits & (bits - 1) == 0]
      axes.set_yticks(ticks, list(map(str, ticks)))
    low, high = (pick(r['edp_js'] for r in rows) for pick in (min, max))
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [m * 10.0**e for e in decades for m in (1, 2, 5) if low <= m * 10.0**e <= high]
    axes.set_xticks(ticks, [f'{tick:g}' for tick in ticks], fontsize=7)
    axes.xaxis.minorticks_off()
    axes.grid(alpha=0.3)
  panels[0].set_ylabel('test accuracy' if known else 'bits of a weight')
  panels[-1].legend(fontsize=6, frameon=False, loc='center left', bbox_to_anchor=(1, 0.5))
  drawing.savefig(path, dpi=150)


if __name__ == '__main__':
  launch.main(run, SPEC, 'configs/codesign.py', 'runs/codesign')
