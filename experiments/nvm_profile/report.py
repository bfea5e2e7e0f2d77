"""The words and tables of `experiments.nvm_profile`."""

import pathlib
import statistics
from typing import Any

from cnnopt_jax import traffic
from cnnopt_jax.report import Series, agreement, to_markdown
from experiments.common import gpu_traffic, profiles
from experiments.nvm_profile.comparison import BEYOND, COLUMNS, LAYER_COLUMNS, SECONDS

_SMALLEST = 0.1  # Million sectors that a point of the plot has at least.


def warnings_of(config, rows: list[dict[str, Any]]) -> list[str]:
  """A line for each total beyond the bound."""
  return [
    f'{r["workload"]}.{r["mode"]}.{r["batch"]} {r["counter"]}: measured {r["measured"]:.4g}, '
    f'predicted {r["predicted"]:.4g}, beyond a factor of {config.bound:g}'
    for r in rows
    if r['verdict'] == BEYOND
  ]


def as_report(
  config,
  found: list[profiles.Profile],
  streams: list[traffic.Traffic],
  rows: list[dict[str, Any]],
  warnings: list[str],
) -> list[str]:
  """The lines of report.md."""
  shown = [
    [
      r['workload'],
      r['mode'],
      r['batch'],
      r['counter'],
      '-' if r['measured'] is None else f'{r["measured"]:.4g}',
      f'{r["predicted"]:.4g}',
      '-' if r['error'] is None else f'{100 * r["error"]:+.1f} %',
      r['verdict'],
    ]
    for r in rows
  ]
  about = []
  name = gpu_traffic.gpu_of(config).name
  for one in found:
    seconds = traffic.total_of(one.launches, 'seconds')
    about.append(
      [
        one.path.name,
        sum(launch.launches for launch in one.launches),
        one.gpu or f'not said; taken for {name}',
        'not measured' if seconds is None else f'{1e3 * seconds:.4g}',
      ]
    )
  return [
    f'# Traffic model beside the counters of a {name}',
    '',
    f'{gpu_traffic.described(config)}. {gpu_traffic.counts(streams)}',
    '',
    f'{gpu_traffic.COMPARED} Here is what your profiles say.',
    '',
    'Sectors of 32 B, and seconds of all launches; error: of the prediction, relative to the '
    'measurement. A profile is compared '
    f'with the same part of the model. Bound: a factor of {config.bound:g} either way.',
    '',
    to_markdown(shown, COLUMNS),
    to_markdown(about, ['profile', 'launches', 'GPU', 'ms of all launches']),
    *(f'**Warning**: {warning}.' for warning in warnings),
  ]


def draw_layers(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
  """A point for each layer and counter that both have, from a tenth of a million sectors."""
  series = []
  for counter in traffic.PROFILE_COUNTERS:
    both = [
      (row['measured'] / 1e6, row['predicted'] / 1e6)
      for row in rows
      if row['counter'] == counter and row['error'] is not None
    ]
    shown = [(x, y) for x, y in both if min(x, y) >= _SMALLEST]
    if shown:
      x, y = zip(*shown)
      series.append(Series(counter.replace('_', ' '), x, y, [0.0] * len(x)))
  agreement(
    path,
    series,
    xlabel='measured, million sectors',
    ylabel='predicted, million sectors',
    title='Layers; dotted: a factor of two',
    log=True,
  )


def by_layer(rows: list[dict[str, Any]]) -> list[str]:
  """The section of the layers: a column a counter, measured, predicted and error of each."""

  def cell(row):
    unit = 1e-3 if row['counter'] == SECONDS else 1e6
    if row['error'] is None:
      return 'missing' if row['measured'] is None else f'{row["measured"] / unit:.4g}, no model'
    figures = (f'{row[name] / unit:.4g}' for name in ('measured', 'predicted'))
    return f'{" > ".join(figures)} ({100 * row["error"]:+.0f} %)'

  lines: dict[tuple, list[str]] = {}
  errors: dict[str, list[float]] = {}
  for row in rows:
    lines.setdefault(tuple(row[k] for k in LAYER_COLUMNS[:5]), []).append(cell(row))
    if row['error'] is not None:
      errors.setdefault(row['counter'], []).append(abs(row['error']))
  medians = ', '.join(f'{n} {100 * statistics.median(v):.0f} %' for n, v in errors.items())
  return [
    '',
    '## Layers',
    '',
    '![Layers, predicted against measured](layers.png)',
    '',
    'M sectors and ms, measured > predicted, and the algorithms that the model took.',
    '',
    to_markdown(
      [[*key, *cells] for key, cells in lines.items()],
      [*LAYER_COLUMNS[:5], *traffic.PROFILE_COUNTERS, 'ms'],
    ),
    f'Median of the absolute errors: {medians or "nothing to compare"}.',
  ]
