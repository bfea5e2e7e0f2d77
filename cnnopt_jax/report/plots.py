"""Plots of the size and kind that a paper would use."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cnnopt_jax.report import files

_WIDTH, _WIDTH_WITH_NAMES = 5.2, 6.2  # Of a plot, in inches.
_ASIDE = 7
_ALIKE = 0.05  # Costs of a smaller ratio, less one, are drawn as one.
_EVERY = 2  # Of the pixels along what is drawn, names keep off so many-th.
_REFERENCE_MARKERS = 'sD^v'


class Series(NamedTuple):
  """One line of a plot.

  Attributes:
    label: in the legend; empty to be left out of it.
    x: one value a point.
    y: one value a point.
    spread: half length of each point's error bar.
    reference: drawn in grey and dashed, outside the comparison.
    names: of the points, written beside them; none, or one a point.
  """

  label: str
  x: Sequence[float]
  y: Sequence[float]
  spread: Sequence[float]
  reference: bool = False
  names: Sequence[str] = ()


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

  The legend stands below the axes, and names of points where nothing else is drawn. Without any
  series it draws empty axes.

  Args:
    path: of the PNG file.
    series: what to draw.
    xlabel: quantity and unit; the axis is logarithmic.
    ylabel: quantity and unit.
    title: above the axes.
    ticks: the numbers along x; where none are given, those that the axis chooses.
  """
  fig = tradeoff_figure(series, xlabel=xlabel, ylabel=ylabel, title=title, ticks=ticks)
  with files.replacing(path) as temporary:
    fig.savefig(temporary, dpi=160, format='png')


def tradeoff_figure(
  series: Sequence[Series], *, xlabel: str, ylabel: str, title: str, ticks: Sequence[float]
) -> Any:
  """The figure of `tradeoff`; its arguments are the same."""
  from matplotlib import figure  # Late: a benchmark's report has no plot to wait for.

  in_legend = [one for one in series if one.label]
  # A letter is about 0.075 inches wide, and the mark before it with its gaps 0.55.
  named = any(one.names for one in series)
  width = _WIDTH_WITH_NAMES if named else _WIDTH
  columns = int(width / (0.55 + 0.075 * max((len(one.label) for one in series), default=0)))
  columns = max(columns, 1)
  height = 3.6 + 0.18 * -(-len(in_legend) // columns)
  fig = figure.Figure(figsize=(width, height), layout='constrained')
  axes = fig.add_subplot()
  transforms = [axes.transData + aside for aside in _asides(fig, series)]
  references = 0
  for one, transform in zip(series, transforms):
    style: dict[str, Any] = dict(marker='o')
    if one.reference:
      references += bool(one.label)  # One that is not in the legend belongs to the last that is.
      marker = _REFERENCE_MARKERS[(max(references, 1) - 1) % len(_REFERENCE_MARKERS)]
      style = dict(color='0.55', linestyle='--', marker=marker)
    axes.errorbar(
      one.x,
      one.y,
      yerr=one.spread,
      label=one.label or '_nolegend_',
      capsize=3,
      markersize=4,
      linewidth=1.2,
      transform=transform,
      **style,
    )
    # Shifted artists do not count towards the limits of the axes: their data do.
    axes.update_datalim(
      [(x, y + sign * bar) for x, y, bar in zip(one.x, one.y, one.spread) for sign in (-1, 1)]
    )
  axes.set(xscale='log', xlabel=xlabel, ylabel=ylabel)
  axes.margins(x=0.2 if named else 0.1, y=0.15 if named else None)  # Names need room.
  axes.autoscale_view()
  axes.set_title(title, fontsize=9)
  axes.xaxis.set_major_formatter('{x:g}')
  if ticks:
    axes.set_xticks(list(ticks))
    axes.minorticks_off()
  else:
    axes.xaxis.set_minor_formatter('{x:g}')
  axes.grid(alpha=0.3)
  if in_legend:
    fig.legend(loc='outside lower center', ncols=columns, fontsize=8, frameon=False)
  _name_points(fig, axes, series, transforms)
  return fig


def _asides(fig: Any, series: Sequence[Series]) -> list[Any]:
  """Shifts of series of about one cost, to be set apart sideways, or their bars would overlap.

  They are in points of the page, a little more than a bar's cap is wide.
  """
  from matplotlib import transforms

  costs = [np.log(np.asarray(one.x, float)) for one in series]
  shifts = []
  for i, own in enumerate(costs):
    distances = [np.abs(own[:, None] - other).min(initial=np.inf) for other in costs]
    sharing = [j for j, distance in enumerate(distances) if distance < _ALIKE or i == j]
    shift = _ASIDE * (sharing.index(i) - (len(sharing) - 1) / 2)
    shifts.append(transforms.ScaledTranslation(shift / 72, 0, fig.dpi_scale_trans))
  return shifts


def _name_points(fig: Any, axes: Any, series: Sequence[Series], transforms: Sequence[Any]) -> None:
  """Writes the names of points into the axes where nothing is drawn, once the layout is settled."""
  if not any(one.names for one in series):
    return
  import adjustText

  fig.draw_without_rendering()
  fig.set_layout_engine('none')
  points, texts, drawn = [], [], []
  to_data = axes.transData.inverted()
  for one, transform in zip(series, transforms):
    pixels = transform.transform(np.column_stack([one.x, one.y]))
    drawn.append(sampled_path(pixels))
    for x, y, bar in zip(one.x, one.y, one.spread):
      drawn.append(sampled_path(transform.transform([(x, y - bar), (x, y + bar)])))
    for name, point in zip(one.names, to_data.transform(pixels)):
      points.append(point)
      texts.append(axes.text(*point, name, fontsize=7, color='0.25'))
  avoided = to_data.transform(np.concatenate(drawn)[::_EVERY])
  adjustText.adjust_text(
    texts,
    x=avoided[:, 0],
    y=avoided[:, 1],
    target_x=[x for x, _ in points],
    target_y=[y for _, y in points],
    ax=axes,
    expand=(1.2, 1.5),
    arrowprops=dict(arrowstyle='-', linewidth=0.5, color='0.6'),
  )


def sampled_path(corners: np.ndarray) -> np.ndarray:
  """Points a pixel apart along a line, [points, 2], from its corners in pixels, [corners, 2]."""
  corners = np.asarray(corners)
  pieces = [
    np.linspace(a, b, max(2, int(np.hypot(*(b - a))) + 1)) for a, b in zip(corners, corners[1:])
  ]
  return np.concatenate([corners, *pieces])


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
