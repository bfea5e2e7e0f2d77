"""The front of a report, its table and its plot."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnopt_jax.codesign.grid import AXES, CodesignReport
from cnnopt_jax.pareto import non_dominated

# Heads and factors of a table's columns.
_COLUMNS = {
  'size_bits': ('size, KiB', 1 / 8192),
  'macs': ('MMAC', 1e-6),
  'l2_reads': ('L2 reads, M', 1e-6),
  'l2_writes': ('L2 writes, M', 1e-6),
  'dram_accesses': ('DRAM, M', 1e-6),
  'dynamic_energy_j': ('dynamic, mJ', 1e3),
  'leakage_energy_j': ('leakage, mJ', 1e3),
  'dram_energy_j': ('DRAM, mJ', 1e3),
  'total_energy_j': ('energy, mJ', 1e3),
  'delay_s': ('delay, ms', 1e3),
  'edp_js': ('EDP, mJ s', 1e3),
  'area_mm2': ('area, mm2', 1.0),
}
_AXIS_LABELS = {
  'size_bits': 'size, bits',
  'macs': 'multiply-accumulates of an image',
  'edp_js': 'EDP of cache and DRAM, J s',
  'area_mm2': 'area, mm$^2$',
}


def pareto(
  report: CodesignReport,
  minimize: Sequence[str] = ('edp_js', 'area_mm2'),
  maximize: Sequence[str] = (),
  *,
  accuracy: Any = None,
) -> np.ndarray:
  """Marks the combinations that no other one beats or equals in all and beats in one respect.

  Without an accuracy, fewer bits and more virtual maps always win; `maximize=('macs', 'size_bits')`
  counts more of both as better instead.

  Args:
    report: of a grid.
    minimize: figures to keep small, names of `report.figure`.
    maximize: figures to keep large.
    accuracy: of every combination, to be kept large: broadcasts against the report's arrays. NaN
      where it is unknown: such a combination neither stands on the front nor beats another.

  Returns:
    Bool, in the shape of the report's arrays.

  Raises:
    ValueError: for an unknown figure, an accuracy of another shape, or nothing to compare.
  """
  columns = [report.figure(name) for name in minimize] + [-report.figure(name) for name in maximize]
  if accuracy is not None:
    accuracy = np.asarray(accuracy, float)
    try:
      columns.append(-np.broadcast_to(accuracy, report.shape))
    except ValueError:
      raise ValueError(
        f'accuracy: shape {accuracy.shape}; allowed: what broadcasts to {report.shape}'
      ) from None
  if not columns:
    raise ValueError('minimize=(), maximize=() and no accuracy; allowed: at least one of them')
  values = np.stack([np.ravel(column).astype(float) for column in columns], axis=-1)
  known = np.flatnonzero(~np.isnan(values).any(axis=1))
  marked = np.zeros(len(values), bool)
  marked[known[non_dominated(values[known])]] = True
  return marked.reshape(report.shape)


def table(
  report: CodesignReport,
  where: np.ndarray | None = None,
  figures: Sequence[str] = (
    'size_bits',
    'macs',
    'dram_accesses',
    'total_energy_j',
    'delay_s',
    'edp_js',
    'area_mm2',
  ),
) -> str:
  """The combinations as a Markdown table, those of the least EDP first.

  Args:
    report: what `evaluate` returned.
    where: bool in the shape of the report's arrays, such as `pareto`'s; all by default.
    figures: names of `report.figure`.

  Returns:
    Lines of text, choices first: the axes of the report, or all where it has none.

  Raises:
    ValueError: for an unknown figure.
  """
  from cnnopt_jax.report import to_markdown  # Late: the package of reports brings matplotlib.

  for name in figures:
    report.figure(name)
  chosen = np.ones(report.shape, bool) if where is None else np.broadcast_to(where, report.shape)
  rows = [row for row, wanted in zip(report.rows(), chosen.ravel()) if wanted]
  rows.sort(key=lambda row: row['edp_js'])
  shown = report.axes or AXES
  head = [*shown, *(_COLUMNS[name][0] for name in figures)]
  body = [
    [*(row[axis] for axis in shown), *(_written(_COLUMNS[name][1] * row[name]) for name in figures)]
    for row in rows
  ]
  return to_markdown(body, head)


def _written(value: float) -> str:
  return f'{value:,.0f}' if value >= 1000 else f'{value:.4g}'


def plot(
  report: CodesignReport,
  path: str | pathlib.Path,
  *,
  x: str = 'edp_js',
  y: str = 'area_mm2',
  accuracy: Any = None,
) -> None:
  """Draws all combinations, one figure against another, the front filled and joined.

  Args:
    report: of a grid.
    path: of the PNG file.
    x, y: names of `report.figure`, both better when small.
    accuracy: drawn upwards in place of `y`; as in `pareto`.

  Raises:
    ValueError: for an unknown figure.
  """
  from matplotlib import figure, ticker  # Late: the rest of the package does without it.

  front = pareto(report, (x,) if accuracy is not None else (x, y), accuracy=accuracy).ravel()
  horizontal = report.figure(x).ravel()
  vertical = report.figure(y) if accuracy is None else np.broadcast_to(accuracy, report.shape)
  vertical = np.ravel(vertical)
  drawing = figure.Figure(figsize=(6.4, 3.8), layout='constrained')
  axes = drawing.add_subplot()
  caches = np.array([row['cache'] for row in report.rows()])
  for i, cache in enumerate(dict.fromkeys(caches)):
    color = f'C{i % 10}'
    for part, face in ((front, color), (~front, 'none')):
      drawn = part & (caches == cache)
      axes.scatter(
        horizontal[drawn], vertical[drawn], s=24, facecolors=face, edgecolors=color, linewidths=0.9
      )
    axes.scatter([], [], s=24, color=color, label=cache)
  order = np.argsort(horizontal[front], kind='stable')
  axes.plot(horizontal[front][order], vertical[front][order], color='0.6', linewidth=0.8, zorder=0)
  axes.set(
    xscale='log',
    xlabel=_AXIS_LABELS.get(x, x),
    ylabel=_AXIS_LABELS.get(y, y) if accuracy is None else 'accuracy',
    title=report.network,
  )
  axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
  axes.xaxis.set_major_formatter('{x:g}')
  axes.xaxis.set_minor_formatter(ticker.NullFormatter())
  axes.grid(alpha=0.3)
  axes.legend(fontsize=7, frameon=False, loc='center left', bbox_to_anchor=(1, 0.5))
  drawing.savefig(path, dpi=150)
