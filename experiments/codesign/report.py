"""The table, the plot and the words of `experiments.codesign`."""

import math
import pathlib
from typing import Any

import numpy as np
from matplotlib import figure

from cnnopt_jax import traffic
from cnnopt_jax.report import to_markdown
from experiments.common import gpu_traffic, reports

_SHOWN = 30  # Rows of the front in the report.
_COLORS = {'sram': '0.4', 'stt': 'C0', 'sot': 'C1'}


def write(
  config,
  workdir: pathlib.Path,
  rows: list[dict[str, Any]],
  base: dict[str, Any],
  measured: dict[int, traffic.ProfileDemand],
  streams: list[Any],
) -> None:
  """Writes report.md and codesign.png; `base` is the row that gains are over."""
  reports.write(workdir, as_report(config, rows, base, measured, streams))
  plot(config, rows, workdir / 'codesign.png')


_HEAD = [
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


def _cells(row: dict[str, Any]) -> list:
  """One row of the table under `_HEAD`."""
  return [
    row['bits'],
    row['plan'],
    f'{row["width_multiplier"]:.3g}',
    row['technology'],
    row['capacity_mib'],
    '-' if row['test_accuracy'] is None else f'{row["test_accuracy"]:.4f}',
    f'{row["weight_kib"]:,.0f}',
    f'{row["macs"] / 1e6:,.1f}',
    f'{row["area_mm2"]:.3g}',
    f'{1e3 * row["total_energy_j"]:.4g}',
    f'{1e3 * row["delay_s"]:.4g}',
    f'{1e3 * row["edp_js"]:.4g}',
    f'{row["edp_reduction"]:.3g}',
  ]


def as_report(config, rows, base, measured, streams) -> list[str]:
  """The lines of report.md."""
  if any(r['test_accuracy'] is not None for r in rows):
    criteria = 'By EDP, area and accuracy'
  else:
    criteria = (
      'By EDP and area, where more bits and more MACs count as no less accurate: '
      '**no accuracy is known here** (`results` names runs that measured it)'
    )
  front = sorted((r for r in rows if r['pareto']), key=lambda r: r['edp_js'])
  more = f' The first {_SHOWN} by EDP; results.csv has all.' if len(front) > _SHOWN else ''
  sources = [
    f'L2 and DRAM accesses are counters of a {demand.gpu.name} ({demand.l2_reads / 1e6:.4g} M '
    f'sectors of L2 reads, {demand.l2_writes / 1e6:.4g} M writes, {demand.dram_reads / 1e6:.4g} M '
    f'and {demand.dram_writes / 1e6:.4g} M of DRAM), scaled by the model for other bits, virtual '
    'maps and capacities of the cache than those measured.'
    for demand in measured.values()
  ]
  return [
    f'# {config.model}: bits, virtual maps, memory technology and capacity together',
    '',
    f'{len(rows)} combinations, inference of {config.batch} images of '
    f'{"x".join(map(str, config.image_shape))} on a {gpu_traffic.gpu_of(config).name} with '
    'another last-level cache. Energy and delay are those of the cache and of DRAM, by models. '
    f'{gpu_traffic.COMPARED} Energy and delay have been compared with no measurement. '
    f'EDP gain: over {base["bits"]} bits, plan {base["plan"]}, {base["capacity_mib"]} MiB of '
    f'{base["technology"].upper()}.',
    '',
    f'{gpu_traffic.described(config)}. {gpu_traffic.counts(streams)}',
    *(line for source in sources for line in ('', source)),
    '',
    f'## The {len(front)} combinations that no other beats',
    '',
    f'{criteria}.{more}',
    '',
    to_markdown([_cells(r) for r in front[:_SHOWN]], _HEAD),
    '## What each choice alone does to EDP',
    '',
    'Geometric mean over all else of the EDP of the first option over that of this one.',
    '',
    to_markdown(main_effects(rows), ['choice', 'option', 'EDP gain']),
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
