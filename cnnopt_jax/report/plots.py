"""Plots of the size and kind that a paper would use."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from cnnopt_jax.report import files


class Series(NamedTuple):
  """One line of a plot.

  Attributes:
    label: in the legend.
    x: one value a point.
    y: one value a point.
    spread: half length of each point's error bar.
    reference: drawn in grey and dashed, outside the comparison.
  """

  label: str
  x: Sequence[float]
  y: Sequence[float]
  spread: Sequence[float]
  reference: bool = False


def tradeoff(
  path: pathlib.Path,
  series: Sequence[Series],
  *,
  xlabel: str,
  ylabel: str,
  title: str = '',
  ticks: Sequence[float] = (),
) -> None:
  """Draws accuracy or the like against cost, one line a series, with error bars.

  Without any series it draws empty axes.

  Args:
    path: of the PNG file.
    series: what to draw.
    xlabel: quantity and unit; the axis is logarithmic.
    ylabel: quantity and unit.
    title: above the axes.
    ticks: the numbers along x; where none are given, those that the axis chooses.
  """
  from matplotlib import figure, transforms  # Late: a benchmark's report has no plot to wait for.

  fig = figure.Figure(figsize=(5.2, 3.6), layout='constrained')
  axes = fig.add_subplot()
  for i, one in enumerate(series):
    # Points of one cost are set apart sideways, in points of the page, or their bars would overlap.
    aside = transforms.ScaledTranslation(
      5 * (i - (len(series) - 1) / 2) / 72, 0, fig.dpi_scale_trans
    )
    style: dict[str, Any] = dict(marker='o')
    if one.reference:
      style = dict(color='0.55', linestyle='--', marker='s')
    axes.errorbar(
      one.x,
      one.y,
      yerr=one.spread,
      label=one.label,
      capsize=3,
      markersize=4,
      linewidth=1.2,
      transform=axes.transData + aside,
      **style,
    )
    # Shifted artists do not count towards the limits of the axes: their data do.
    axes.update_datalim(
      [(x, y + sign * bar) for x, y, bar in zip(one.x, one.y, one.spread) for sign in (-1, 1)]
    )
  axes.set(xscale='log', xlabel=xlabel, ylabel=ylabel)
  axes.margins(x=0.1)
  axes.autoscale_view()
  axes.set_title(title, fontsize=9)
  axes.xaxis.set_major_formatter('{x:g}')
  if ticks:
    axes.set_xticks(list(ticks))
    axes.minorticks_off()
  else:
    axes.xaxis.set_minor_formatter('{x:g}')
  axes.grid(alpha=0.3)
  if series:
    axes.legend(fontsize=8, frameon=False)
  with files.replacing(path) as temporary:
    fig.savefig(temporary, dpi=160, format='png')


def agreement(
  path: pathlib.Path,
  series: Sequence[Series],
  *,
  xlabel: str,
  ylabel: str,
  title: str = '',
  log: bool = False,
) -> None:
  """Draws what was predicted against what was measured, a point each, and where they are equal.

  Args:
    path: of the PNG file.
    series: `x` measured, `y` predicted, in one unit; spreads are not drawn.
    xlabel: quantity and unit.
    ylabel: quantity and unit.
    title: above the axes.
    log: logarithmic axes, and a factor of two to either side of equality; of what is above 0.
  """
  from matplotlib import figure  # Late, as above.

  fig = figure.Figure(figsize=(4.2, 4.2), layout='constrained')
  axes = fig.add_subplot()
  for one in series:
    axes.plot(one.x, one.y, 'o', label=one.label, markersize=4)
  if log:
    axes.set(xscale='log', yscale='log')
    for factor in (0.5, 2):
      axes.axline((1, factor), (10, 10 * factor), color='0.75', linestyle=':')
  both = [value for one in series for value in (*one.x, *one.y)] or [0.0, 1.0]
  axes.axline((min(both),) * 2, (max(both) + 1e-9 * (abs(max(both)) + 1),) * 2, color='0.55')
  axes.set(xlabel=xlabel, ylabel=ylabel)
  axes.set_title(title, fontsize=9)
  axes.grid(alpha=0.3)
  if series:
    axes.legend(fontsize=8, frameon=False)
  with files.replacing(path) as temporary:
    fig.savefig(temporary, dpi=160, format='png')


class Interval(NamedTuple):
  """A figure and the interval that it is known to.

  Attributes:
    label: at its line.
    value: best estimate.
    low: lower end.
    high: upper end.
  """

  label: str
  value: float
  low: float
  high: float


def intervals(
  path: pathlib.Path, rows: Sequence[Interval], *, xlabel: str, title: str = ''
) -> None:
  """Draws figures with their intervals, a line each, the first on top, and where zero is.

  Args:
    path: of the PNG file.
    rows: what to draw; may be none.
    xlabel: quantity and unit.
    title: above the axes.
  """
  from matplotlib import figure  # Late, as above.

  # A letter of a label is about 0.06 inches wide.
  width = 3.6 + 0.06 * max((len(row.label) for row in rows), default=0)
  height = 0.9 + 0.32 * max(len(rows), 1)
  fig = figure.Figure(figsize=(width, height), layout='constrained')
  axes = fig.add_subplot()
  places = range(len(rows))
  axes.errorbar(
    [row.value for row in rows],
    list(places),
    xerr=[[row.value - row.low for row in rows], [row.high - row.value for row in rows]],
    fmt='o',
    capsize=3,
    markersize=4,
  )
  axes.axvline(0, color='0.55', linewidth=1)
  axes.set_yticks(list(places), [row.label for row in rows], fontsize=8)
  axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
  axes.locator_params(axis='x', nbins=5)  # Of more the numbers would touch.
  axes.set_xlabel(xlabel)
  axes.set_title(title, fontsize=9)
  axes.grid(alpha=0.3, axis='x')
  with files.replacing(path) as temporary:
    fig.savefig(temporary, dpi=160, format='png')
