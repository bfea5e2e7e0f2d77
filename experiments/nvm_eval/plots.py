"""Bars and lines of an analysis."""

import itertools
import pathlib

import numpy as np
from matplotlib import figure

from experiments.nvm_eval.rows import SOURCES, mean, select

COLORS = {'sram': '0.4', 'stt': 'C0', 'sot': 'C1'}


def bars(path: pathlib.Path, rows) -> None:
  """EDP reductions with DRAM, a group of bars for each workload."""
  drawing = figure.Figure(figsize=(9.2, 6.4), layout='constrained')
  axes = drawing.subplots(2, 2, sharey='row')
  for (i, with_dram), (j, source) in itertools.product(
    enumerate((False, True)), enumerate(SOURCES)
  ):
    chosen = select(rows, source=source, with_dram=with_dram)
    cases = list(dict.fromkeys((r['workload'], r['mode']) for r in chosen))
    for k, name in enumerate(('stt', 'sot')):
      values = [r['edp_reduction'] for r in select(chosen, technology=name)]
      if values:
        axes[i, j].bar(
          np.arange(len(values)) + 0.4 * k - 0.2, values, 0.4, label=name, color=COLORS[name]
        )
    axes[i, j].axhline(1, color='0.3', linewidth=0.8)
    axes[i, j].set_xticks(
      range(len(cases)), [f'{name}\n{mode[:5]}.' for name, mode in cases], rotation=60, fontsize=6
    )
    axes[i, j].set_title(
      f'{SOURCES[source]}, {"with" if with_dram else "without"} DRAM', fontsize=8
    )
    axes[i, j].grid(alpha=0.3, axis='y')
  axes[0, 0].legend(frameon=False)
  for axis in axes[:, 0]:
    axis.set_ylabel('EDP, SRAM over this')
  drawing.savefig(path, dpi=150)


def _lines(path: pathlib.Path, rows, x: str, xlabel: str) -> None:
  """Our model's figures, and the EDP reduction, against one column; means over workloads."""
  panels = {
    'area_mm2': 'area, mm2',
    'total_energy_j': 'energy, J',
    'delay_s': 'delay, s',
    'edp_reduction': 'EDP, SRAM over this',
  }
  modes = list(dict.fromkeys(r['mode'] for r in rows))
  drawing = figure.Figure(figsize=(12, 3 * len(modes)), layout='constrained')
  axes = drawing.subplots(len(modes), 4, squeeze=False)
  for (i, mode), (j, (column, label)) in itertools.product(
    enumerate(modes), enumerate(panels.items())
  ):
    axis = axes[i, j]
    chosen = select(rows, mode=mode, with_dram=True)
    for name, source in itertools.product(COLORS, SOURCES):
      points = {}
      for r in select(chosen, technology=name, source=source):
        points.setdefault(r[x], []).append(r[column])
      wanted = source == 'model' or column == 'edp_reduction' and len(points) > 1
      if points and wanted and not (column == 'edp_reduction' and name == 'sram'):
        axis.plot(
          sorted(points),
          [mean(points[key]) for key in sorted(points)],
          marker='o',
          markersize=3,
          color=COLORS[name],
          linestyle='-' if source == 'model' else ':',
          label=name if source == 'model' else f'{name}, recalled table',
        )
    axis.set(xscale='log', xlabel=xlabel, ylabel=label, title=mode)
    if column == 'edp_reduction':
      axis.set_ylim(bottom=0)
      axis.axhline(1, color='0.3', linewidth=0.8)
    else:
      axis.set_yscale('log')
    ticks = sorted({r[x] for r in chosen})
    axis.set_xticks(ticks, list(map(str, ticks)), fontsize=6)
    axis.xaxis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend(fontsize=6, frameon=False)
  drawing.suptitle('Our cache model, with DRAM; mean over workloads')
  drawing.savefig(path, dpi=150)


def capacity_lines(path: pathlib.Path, rows) -> None:
  """Figures against the capacity of the caches."""
  _lines(path, rows, 'capacity_mib', 'capacity, MiB')


def batch_lines(path: pathlib.Path, rows) -> None:
  """Figures against the batch size."""
  _lines(path, rows, 'batch', 'batch')
