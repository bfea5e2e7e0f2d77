"""What the study shows and writes: results.csv, report.md and its plots."""

import json
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import config_dict

from cnnopt_jax import quant, report
from experiments.bitwidth_study import fan_in, law
from experiments.bitwidth_study.plan import FREE, MIXED, Cell, Network, Unit, singles_of
from experiments.common import bit_search, comparisons, reports, run_folder
from experiments.common.comparisons import Difference, accuracies, difference, paired_differences

COLUMNS = ('network', 'cost', 'budget_width', 'budget', 'kind', *comparisons.COLUMNS)

COST_WORDS = {'size': 'size', 'bit_operations': 'bit operations'}


class Results(NamedTuple):
  """A study as far as it has come.

  Attributes:
    config: of the study.
    networks: by name.
    cells: all.
    units: all that there is to train.
    found: records.
    workdir: of the run.
  """

  config: config_dict.ConfigDict
  networks: Mapping[str, Network]
  cells: Sequence[Cell]
  units: Sequence[Unit]
  found: Sequence[dict[str, Any]]
  workdir: pathlib.Path

  def kinds(self, cell: Cell) -> dict[str, list[dict[str, Any]]]:
    """Records of a cell by kind, those with any: single bitwidths, then mixed ones."""
    by_name = {one['name']: one for one in self.found}
    network = self.networks[cell.network]
    names = {
      bits_words(bits): [one.name for one in singles_of(network, cell, bits)]
      for bits in self.config.bits
    }
    seeds = self.config.seeds
    names[MIXED] = [f'{cell.name}_{MIXED}_seed{seed}' for seed in seeds]
    for bits in self.config.free_widths:
      kind = f'{FREE}, width of {bits_words(bits)}'
      names[kind] = [f'{cell.name}_{FREE}_b{bits}_seed{seed}' for seed in seeds]
    every = {kind: [by_name[n] for n in given if n in by_name] for kind, given in names.items()}
    return {kind: rows for kind, rows in every.items() if rows}

  def singles(self, cell: Cell) -> dict[int, list[dict[str, Any]]]:
    """Records of a cell's networks of one bitwidth."""
    kinds = self.kinds(cell)
    return {b: kinds[bits_words(b)] for b in self.config.bits if bits_words(b) in kinds}

  def best(self, cell: Cell) -> int | None:
    """The most accurate single bitwidth."""
    means = {b: _mean(rows) for b, rows in self.singles(cell).items() if accuracies(rows)}
    return max(means, key=lambda b: means[b], default=None)

  @property
  def missing(self) -> int:
    """How many units have networks that are not on record."""
    names = {one['name'] for one in self.found}
    return sum(
      not all(member.name in names for member in unit.members)
      or (unit.cell is not None and MIXED not in self.kinds(unit.cell))
      for unit in self.units
    )


def bits_words(bits: int) -> str:
  return f'{bits} bit' + 's' * (bits > 1)


def _mean(rows: Sequence[Mapping[str, Any]]) -> float:
  return statistics.fmean(accuracies(rows))


def cell_words(cell: Cell) -> str:
  return f'{cell.network}, equal {COST_WORDS[cell.cost]}, budget {cell.budget_width:g}'


def against_mixed(results: Results) -> list[Difference]:
  """The best single bitwidth of each cell against its mixed network of no accuracy lost."""
  pairs = []
  for cell in results.cells:
    kinds, best = results.kinds(cell), results.best(cell)
    if MIXED in kinds and best is not None:
      each = paired_differences(kinds[bits_words(best)], kinds[MIXED])
      pairs.append((f'{cell_words(cell)}: {bits_words(best)}', MIXED, each))
  return _differences(pairs)


def against_free(results: Results) -> list[Difference]:
  """Mixed networks of free width against the best single bitwidth."""
  pairs = []
  for cell in results.cells:
    kinds, best = results.kinds(cell), results.best(cell)
    if best is None:
      continue
    for kind, rows in kinds.items():
      if kind.startswith(FREE):
        each = paired_differences(rows, kinds[bits_words(best)])
        pairs.append((f'{cell_words(cell)}: {kind}', bits_words(best), each))
  return _differences(pairs)


def against_most(results: Results) -> list[Difference]:
  """The best single bitwidth of each cell against the most bits."""
  most, pairs = max(results.config.bits), []
  for cell in results.cells:
    singles, best = results.singles(cell), results.best(cell)
    if best not in (None, most) and most in singles:
      each = paired_differences(singles[best], singles[most])
      pairs.append((f'{cell_words(cell)}: {bits_words(best)}', bits_words(most), each))
  return _differences(pairs)


def _differences(pairs) -> list[Difference]:
  found = [difference(one, other, each, len(pairs)) for one, other, each in pairs]
  return [one for one in found if one is not None]


def pooled(results: Results, one: int, other: int, network: str, cost: str) -> Difference | None:
  """One bitwidth against another over all budgets of a network, seed by seed."""
  cells = [c for c in results.cells if (c.network, c.cost) == (network, cost)]
  by_seed: dict[int, list[float]] = {}
  for cell in cells:
    singles = results.singles(cell)
    if one not in singles or other not in singles:
      return None
    for seed in results.config.seeds:
      rows = [[r for r in singles[b] if r['seed'] == seed] for b in (one, other)]
      each = paired_differences(*rows)
      if not each:
        return None
      by_seed.setdefault(seed, []).extend(each)
  means = [statistics.fmean(each) for each in by_seed.values()]
  return difference(f'{network}: {bits_words(one)}', bits_words(other), means)


def points_of(results: Results, network: str) -> law.Points:
  """What a law is fitted to: every network of one bitwidth once, held out by budget."""
  rows: dict[str, tuple[int, int, float, str]] = {}
  for cell in results.cells:
    if cell.network != network:
      continue
    for bits, records in results.singles(cell).items():
      if not accuracies(records):
        continue
      weights = sum(leaf.size for leaf in cell.singles[bits].plan.quantized)
      name = records[0]['name'].rpartition('_')[0]
      error = 1 - _mean(records)
      rows.setdefault(name, (weights, bits, error, f'{cell.cost} {cell.budget_width:g}'))
  columns = list(zip(*rows.values())) or [()] * 4
  return law.Points(*(np.asarray(column) for column in columns))


def laws_of(results: Results, network: str) -> list[law.Law]:
  points = points_of(results, network)
  fitted = [law.fit(points, name) for name in law.LAWS]
  return [one for one in fitted if one is not None]


def verdicts(results: Results) -> list[str]:
  """Which claims of the paper held here, sentence by sentence."""
  sentences = [
    _claim(
      'One bitwidth beats mixed precision that loses no accuracy, at equal cost',
      against_mixed(results),
    ),
    _claim(f'Fewer than {max(results.config.bits)} bits are best', against_most(results)),
  ]
  sentences += _depthwise(results)
  sentences += _budget_free_ranking(results)
  free = against_free(results)
  if free:
    better = sum(d.strict[0] > 0 for d in free)
    worse = sum(d.strict[1] < 0 for d in free)
    sentences.append(
      f'Beyond the paper, mixed precision whose width is free: of {len(free)} such networks '
      f'{better} are better and {worse} worse than the best single bitwidth of their cell; the '
      'others cannot be told from it.'
    )
  return [one for one in sentences if one]


def _claim(words: str, found: Sequence[Difference]) -> str:
  if not found:
    return f'{words}: nothing to compare.'
  held = sum(d.strict[0] > 0 for d in found)
  refuted = sum(d.strict[1] < 0 for d in found)
  mean = statistics.fmean(d.mean for d in found)
  verdict = (
    'holds'
    if held == len(found)
    else 'is refuted'
    if refuted == len(found)
    else 'is neither confirmed nor refuted'
    if not held and not refuted
    else 'holds in some cells'
    if not refuted
    else 'fails in some cells'
  )
  return (
    f'{words}: {verdict} here. In {held} of {len(found)} cells the interval of the difference, '
    f'widened for all of them, lies above zero, in {refuted} below; the mean difference is '
    f'{mean:+.4f}.'
  )


def _depthwise(results: Results) -> list[str]:
  """Do depth-wise networks want more bits?"""
  kinds: dict[bool, list[str]] = {True: [], False: []}
  for name in results.networks:
    layers = _any_layers(results, name)
    kinds[any(layer.groups > 1 for layer in layers)].append(name)
  if not kinds[True] or not kinds[False]:
    return []
  words = []
  for cost in results.config.costs:
    wins = {
      name: [
        best
        for cell in results.cells
        if (cell.network, cell.cost) == (name, cost) and (best := results.best(cell)) is not None
      ]
      for name in results.networks
    }
    if not all(wins.values()):
      continue
    mean = {
      kind: statistics.fmean(b for n in names for b in wins[n]) for kind, names in kinds.items()
    }
    listed = '; '.join(f'{n} {", ".join(map(str, wins[n]))}' for n in results.networks)
    relation = (
      'more' if mean[True] > mean[False] else 'fewer' if mean[True] < mean[False] else 'as many'
    )
    words.append(
      f'Depth-wise networks want more bits, at equal {COST_WORDS[cost]}: best bitwidths by '
      f'budget: {listed}; on average those with depth-wise layers ({", ".join(kinds[True])}) want '
      f'{relation} ({mean[True]:.2g} against {mean[False]:.2g}). '
      + ' '.join(_four_over_two(results, cost))
    )
  return words


def _four_over_two(results: Results, cost: str):
  """How much 4 bits gain over 2 in each network, pooled over budgets."""
  for name in results.networks:
    found = pooled(results, 4, 2, name, cost)
    if found is not None:
      yield f'4 over 2 bits in {name}: {found.words}.'


def _budget_free_ranking(results: Results) -> list[str]:
  """Whether one bitwidth wins at every budget of a network and cost."""
  words = []
  for cost in results.config.costs:
    alike = {}
    for name in results.networks:
      best = [results.best(c) for c in results.cells if (c.network, c.cost) == (name, cost)]
      if len(best) > 1 and None not in best:
        alike[name] = len(set(best)) == 1
    if alike:
      words.append(
        f'The same bitwidth is best at every budget, at equal {COST_WORDS[cost]}: '
        + ', '.join(f'{name} {"yes" if same else "no"}' for name, same in alike.items())
        + ' (by mean accuracy; seeds may not separate the first from the next).'
      )
  return words


HEADER = ('network', 'average bits', 'width', 'size KiB', 'MACs', 'MACs x weight bits', 'accuracy')


def _rows(kinds: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[tuple[str, ...]]:
  rows = []
  for kind, records in kinds.items():
    one, each = records[0], accuracies(records)
    spread = f' ± {statistics.stdev(each):.4f}' if len(each) > 1 else ''
    rows.append(
      (
        kind,
        f'{one["average_bits"]:.3g}',
        f'{one["width_multiplier"]:g}',
        f'{one["size_bits"] / 8192:.3f}',
        f'{one["macs"] / 1e6:.2f} M',
        f'{one["bit_operations"] / 32e6:.2f} M',
        f'{statistics.fmean(each):.4f}{spread}' if each else 'diverged',
      )
    )
  return rows


def _winners(results: Results) -> list[tuple[str, ...]]:
  rows = []
  for cell in results.cells:
    singles = results.singles(cell)
    ranked = sorted(
      (b for b in singles if accuracies(singles[b])), key=lambda b: -_mean(singles[b])
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
        f'{_mean(singles[ranked[0]]):.4f}',
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
    means = [_mean(r) for r in singles.values()]
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
    'one bitwidth. "Held out" is the root mean square error, in accuracy, on the budgets that a '
    'fit has not seen, one after the other.\n'
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


def _any_layers(results: Results, name: str):
  cell = next(cell for cell in results.cells if cell.network == name)
  return next(iter(cell.singles.values())).layers


def _image_shape(results: Results) -> tuple[int, int, int]:
  """That of the data, which every layer table has been traced with."""
  first = next(iter(results.networks.values()))
  table = _any_layers(results, first.name)
  _, height, width, channels = table.layers[0].input_shape
  return height, width, channels


def _fan_in_verdict(rows: Sequence[fan_in.GaussianFilters]) -> str:
  words = []
  for granularity in quant.GRANULARITIES:
    for bits in sorted({row.bits for row in rows}):
      chosen = [r for r in rows if (r.granularity, r.bits) == (granularity, bits)]
      low, high = chosen[0], chosen[-1]
      words.append(f'{bits_words(bits)} by {granularity} {low.closed_form / high.closed_form:.3f}')
  return (
    f'"The error of a filter falls with its fan-in": E[R] at the smallest fan-in over that at the '
    f'largest: {"; ".join(words)}. With a step of its own a filter of few weights loses no more of '
    'its norm than one of many; what falls with fan-in is how unlike the filters are.\n'
  )


def _cell_parts(results: Results):
  searches = _searches(results.workdir)
  yield '## All cells\n'
  for cell in results.cells:
    kinds = results.kinds(cell)
    if not kinds:
      continue
    yield f'### {cell_words(cell)}\n'
    yield report.to_markdown(_rows(kinds), HEADER)
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


def _searches(workdir: pathlib.Path) -> dict[str, Any]:
  path = workdir / bit_search.SEARCH
  return json.loads(path.read_text()) if path.exists() else {}


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
