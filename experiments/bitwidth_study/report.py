"""What the study shows and writes: results.csv, report.md and its plots."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from cnnopt_jax import quant, report
from experiments.bitwidth_study import fan_in
from experiments.bitwidth_study.plan import MIXED
from experiments.bitwidth_study.results import (
  COST_WORDS,
  Results,
  against_free,
  against_mixed,
  any_layers,
  bits_words,
  cell_words,
  laws_of,
  mean_accuracy,
  points_of,
)
from experiments.bitwidth_study.verdicts import verdicts
from experiments.common import bit_search, comparisons, reports, run_folder
from experiments.common.comparisons import accuracies, difference, paired_differences

COLUMNS = ('network', 'cost', 'budget_width', 'budget', 'kind', *comparisons.COLUMNS)


def _winners(results: Results) -> list[tuple[str, ...]]:
  rows = []
  for cell in results.cells:
    singles = results.singles(cell)
    ranked = sorted(
      (b for b in singles if accuracies(singles[b])), key=lambda b: -mean_accuracy(singles[b])
    )
    if not ranked:
      continue
    gap = ''
    if len(ranked) > 1:
      first, second = ranked[:2]
      each = paired_differences(singles[first], singles[second])
      found = difference('', '', each)
      gap = f'{bits_words(second)}, {found.words}' if found else bits_words(second)
    budget = (
      f'{cell.budget / 8192:.2f} KiB' if cell.cost == 'size' else f'{cell.budget / 32e6:.2f} M'
    )
    rows.append(
      (
        cell.network,
        COST_WORDS[cell.cost],
        f'{cell.budget_width:g} ({budget})',
        bits_words(ranked[0]),
        f'{mean_accuracy(singles[ranked[0]]):.4f}',
        gap,
      )
    )
  return rows


def write(results: Results, environment: Mapping[str, Any], costs: str) -> None:
  """Writes results.csv, report.md and the plots."""
  workdir, config = results.workdir, results.config
  rows = [
    dict(
      network=cell.network,
      cost=cell.cost,
      budget_width=cell.budget_width,
      budget=cell.budget,
      kind=kind,
      **{name: one[name] for name in comparisons.COLUMNS},
    )
    for cell in results.cells
    for kind, records in results.kinds(cell).items()
    for one in records
  ]
  report.write_atomically(workdir / run_folder.RESULTS, report.to_csv(rows, COLUMNS))
  parts = [f'# One weight bitwidth: a study of {", ".join(results.networks)} on {config.dataset}\n']
  if results.missing:
    parts.append(
      f'**Not complete: {results.missing} of {len(results.units)} parts of the work are '
      'missing.**\n'
    )
  parts += ['## Verdicts\n', *(f'- {sentence}' for sentence in verdicts(results)), '']
  parts.append('## The best single bitwidth\n')
  parts.append(
    report.to_markdown(
      _winners(results),
      ('network', 'equal', 'budget', 'best', 'accuracy', 'next, difference and 95 % interval'),
    )
  )
  for name in results.networks:
    parts.append(f'![accuracy of {name}]({name}.png)\n')
    _plot_network(results, name)
  parts += _difference_parts(results)
  parts += _law_parts(results)
  parts += _fan_in_parts(results)
  parts += _cell_parts(results)
  parts.append(
    f'{config.epochs} epochs; {config.held_out} training images were held out, on which bits were '
    f"chosen. Sizes by the accounting '{config.accounting}'. Budgets are what a network of "
    f'{bits_words(config.budget_bits)} at that width multiplier costs; "MACs x weight bits" are '
    'in units of one float32 multiply-accumulate. ± is the standard deviation over seeds; '
    "intervals are Student's t over seeds, and the best bitwidth of a cell is the best on the test "
    'images, which favours it.\n'
  )
  seconds = sum(one['seconds'] for one in results.found)
  parts.append(
    f'{len(results.found)} networks trained for {seconds:.0f} s in all, those of a program side by '
    f'side. {costs}\n'
  )
  reports.write(workdir, parts, dict(environment))


def _plot_network(results: Results, name: str) -> None:
  series = []
  for cell in results.cells:
    if cell.network != name:
      continue
    singles = {b: r for b, r in results.singles(cell).items() if accuracies(r)}
    spread = [statistics.stdev(a) if len(a := accuracies(r)) > 1 else 0.0 for r in singles.values()]
    means = [mean_accuracy(r) for r in singles.values()]
    label = f'equal {COST_WORDS[cell.cost]}, budget {cell.budget_width:g}'
    series.append(report.Series(label, list(singles), means, spread))
  report.tradeoff(
    results.workdir / f'{name}.png',
    series,
    xlabel='weight bits',
    ticks=results.config.bits,
    ylabel='test accuracy',
    title=f'{name} on {results.config.dataset}, mean and std over seeds',
  )


def _difference_parts(results: Results):
  yield '## Single against mixed, paired by seed\n'
  found = [*against_mixed(results), *against_free(results)]
  yield report.to_markdown(
    [
      (d.one, d.other, f'{d.mean:+.4f}', f'[{d.low:+.4f}, {d.high:+.4f}]', str(d.seeds))
      for d in found
    ],
    ('network', 'against', 'difference in accuracy', '95 % interval', 'seeds'),
  )
  report.intervals(
    results.workdir / 'differences.png',
    [report.Interval(f'{d.one} - {d.other}', d.mean, d.low, d.high) for d in found],
    xlabel='difference in test accuracy, 95 % interval',
    title='single against mixed, at equal cost',
  )
  yield '![differences](differences.png)\n'


def _law_parts(results: Results):
  yield '## A law of error in weights N and bits b\n'
  yield (
    'error = e + c n^-a, where n is what the bits leave of N weights; fitted to the networks of '
    'one bitwidth. g at 100, its bound, says that bits count in proportion. "Held out" is the root '
    'mean square error, in accuracy, on the budgets that a fit has not seen, one after the other.\n'
  )
  rows, series = [], []
  for name in results.networks:
    laws = laws_of(results, name)
    rows += [
      (
        name,
        LAW_WORDS[one.name],
        f'{one.floor:.3f}',
        f'{one.exponent:.3f}',
        '' if one.g is None else f'{one.g:.3g}',
        f'{one.fitted:.4f}',
        '' if one.held_out is None else f'{one.held_out:.4f}',
      )
      for one in laws
    ]
    if laws:
      points = points_of(results, name)
      predicted = laws[0].predict(points.weights, points.bits)
      series.append(report.Series(name, points.errors.tolist(), predicted.tolist(), ()))
  if not rows:
    yield 'Too few networks.\n'
    return
  yield report.to_markdown(rows, ('network', 'n', 'e', 'a', 'g', 'fitted', 'held out'))
  report.agreement(
    results.workdir / 'law.png',
    series,
    xlabel='error measured',
    ylabel='error by the law N (1 - exp(-b/g))',
    title='fitted law against measurements',
  )
  yield '![law](law.png)\n'


LAW_WORDS = {
  'saturating': 'N (1 - exp(-b/g))',
  'power': 'N b^g',
  'size': 'N b',
  'weights': 'N',
}


def _fan_in_parts(results: Results):
  config = results.config
  rows = fan_in.gaussian_filters(config)
  yield '## Fan-in: Gaussian filters\n'
  yield (
    'R is the error of a filter relative to its norm, E[R] its closed form (`quant.fan_in`), '
    'beside mean and standard deviation over 4096 drawn filters; the output error is for inputs '
    'after ReLU.\n'
  )
  yield report.to_markdown(
    [
      (
        row.granularity,
        str(row.bits),
        str(row.fan_in),
        f'{row.closed_form:.5g}',
        f'{row.mean:.5g}',
        f'{row.spread:.4g}',
        f'{row.spread * row.fan_in**0.5:.4g}',
        f'{row.output:.4g}',
        f'{row.variance:.4f}',
      )
      for row in rows
    ],
    (
      'steps',
      'bits',
      'fan-in',
      'E[R]',
      'mean R',
      'std R',
      'std R x sqrt(fan-in)',
      'output error',
      'output variance',
    ),
  )
  series = [
    report.Series(
      f'{bits_words(bits)}, a step for each {granularity}',
      [row.fan_in for row in chosen],
      [row.mean for row in chosen],
      [row.spread for row in chosen],
      reference=granularity == 'layer',
    )
    for bits in config.bits
    if bits <= 3
    for granularity in quant.GRANULARITIES
    if (chosen := [row for row in rows if (row.bits, row.granularity) == (bits, granularity)])
  ]
  report.tradeoff(
    results.workdir / 'fan_in.png',
    series,
    xlabel='fan-in',
    ticks=config.fan_ins,
    ylabel='relative weight error, mean and std over filters',
    title='Gaussian filters',
  )
  yield '![fan-in](fan_in.png)\n'
  yield _fan_in_verdict(rows)
  yield '## Fan-in: trained layers\n'
  shape = _image_shape(results)
  for name, network in results.networks.items():
    cells = [cell for cell in results.cells if cell.network == name]
    layers = fan_in.trained_layers(network, cells, config, results.workdir, shape)
    if not layers:
      continue
    shown = [b for b in config.bits if ('channel', b) in layers[0].errors]
    yield f'{name} in float, mean over filters and seeds:\n'
    yield report.to_markdown(
      [
        (
          row.path,
          str(row.fan_in),
          str(row.filters),
          *(f'{row.errors[g, b]:.4f}' for g in quant.GRANULARITIES for b in shown),
        )
        for row in layers
      ],
      (
        'layer',
        'fan-in',
        'filters',
        *(f'{bits_words(b)}, {g}' for g in quant.GRANULARITIES for b in shown),
      ),
    )
    correlations = [
      f'{bits_words(b)} by {g} {found:+.2f}'
      for g in quant.GRANULARITIES
      for b in shown
      if (found := fan_in.rank_correlation(layers, g, b)) is not None
    ]
    if correlations:
      yield f"Spearman's rank correlation of fan-in and error: {'; '.join(correlations)}.\n"


def _image_shape(results: Results) -> tuple[int, int, int]:
  """That of the data, which every layer table has been traced with."""
  first = next(iter(results.networks.values()))
  table = any_layers(results, first.name)
  _, height, width, channels = table.layers[0].input_shape
  return height, width, channels


def _fan_in_verdict(rows: Sequence[fan_in.GaussianFilters]) -> str:
  ratios: dict[str, dict[int, float]] = {}
  for granularity in quant.GRANULARITIES:
    for bits in sorted({row.bits for row in rows}):
      chosen = sorted(
        (r for r in rows if (r.granularity, r.bits) == (granularity, bits)),
        key=lambda row: row.fan_in,
      )
      ratios.setdefault(granularity, {})[bits] = chosen[0].closed_form / chosen[-1].closed_form
  words = [
    f'with a step for each {granularity} '
    + ', '.join(f'{ratio:.3f} at {bits_words(bits)}' for bits, ratio in each.items())
    + (
      ' (more at every bitwidth)'
      if min(each.values()) > 1
      else ' (no more at any bitwidth)'
      if max(each.values()) <= 1
      else ' (more at some bitwidths)'
    )
    for granularity, each in ratios.items()
  ]
  return (
    'Does a filter of few weights lose more of its norm than one of many, which is the reason that '
    'the paper, as recalled, gives for depth-wise layers to want more bits? E[R] at the smallest '
    f'fan-in over that at the largest: {"; ".join(words)}.\n'
  )


def _cell_parts(results: Results):
  searches = bit_search.read_searches(results.workdir)
  yield '## All cells\n'
  for cell in results.cells:
    kinds = results.kinds(cell)
    if not kinds:
      continue
    yield f'### {cell_words(cell)}\n'
    yield report.to_markdown([comparisons.row(*one) for one in kinds.items()], comparisons.HEADER)
    every = {
      kind.removeprefix(f'{cell.name}_'): one
      for kind, one in searches.items()
      if kind.startswith(f'{cell.name}_')
    }
    if MIXED in every:
      mixed = every[MIXED]
      yield (
        f'The mixed network keeps {mixed["accuracy"]:.4f} of {mixed["float_accuracy"]:.4f} on the '
        f'held-out images before training with its bits ({mixed["evaluations"]} evaluations).\n'
      )
      yield report.to_markdown(
        [(path, *(str(one['bits'][path]) for one in every.values())) for path in mixed['bits']],
        ('layer', *every),
      )


def show(results: Results) -> None:
  """Prints the winners, the verdicts, and where the results are."""
  reports.show_table(
    'the best single bitwidth',
    _winners(results),
    ('network', 'equal', 'budget', 'best', 'accuracy', 'next, difference'),
  )
  for sentence in verdicts(results):
    print(sentence)
  if results.missing:
    print(f'{results.missing} of {len(results.units)} parts of the work are missing')
  print(f'results: {results.workdir / run_folder.RESULTS}, {results.workdir / run_folder.REPORT}')
