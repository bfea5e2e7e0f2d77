"""What a comparison of mixed precision with single bitwidths shows and writes."""

import pathlib
import statistics
from collections.abc import Mapping
from typing import Any

from cnnopt_jax import report
from experiments.common import comparisons, reports, run_folder
from experiments.common.comparisons import (
  COLUMNS,
  Difference,
  accuracies,
  difference,
  paired_differences,
  row,
)
from experiments.common.sweeps import Plan
from experiments.mixed_precision.plan import FREE, MIXED, SINGLE


def label(one: Mapping[str, Any]) -> str:
  """Which kind of network a record is of."""
  width = f'{one["width_multiplier"]:g}'
  match one['role']:
    case 'mixed':
      return 'mixed, fewest bits'
    case 'free':
      return f'mixed, width {width}'
    case 'single':
      return f'{one["bits"]} bit' + 's' * (one['bits'] > 1)
    case _:
      return f'float, width {width}'


def groups(found: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
  """Records by kind, in order."""
  kinds: dict[str, list[dict[str, Any]]] = {}
  for one in found:
    kinds.setdefault(label(one), []).append(one)
  return kinds


def differences(found: list[dict[str, Any]]) -> list[Difference]:
  """Every single bitwidth against the mixed network, and the free mixed ones against the best."""
  kinds = groups(found)
  singles = [k for k, rows in kinds.items() if rows[0]['role'] == SINGLE]
  free = [k for k, rows in kinds.items() if rows[0]['role'] == FREE]
  mixed = [k for k, rows in kinds.items() if rows[0]['role'] == MIXED]
  ranked = [k for k in singles if accuracies(kinds[k])]
  best = max(ranked, key=lambda k: statistics.fmean(accuracies(kinds[k])), default=None)
  pairs = [(k, mixed[0]) for k in singles] + [(k, best) for k in free if best is not None]
  return [
    found_one
    for one, other in pairs
    if (
      found_one := difference(one, other, paired_differences(kinds[one], kinds[other]), len(pairs))
    )
    is not None
  ]


def verdicts(found: list[dict[str, Any]]) -> list[str]:
  """What the differences say about the claims."""
  every = differences(found)
  kinds = groups(found)
  against_mixed = [d for d in every if kinds[d.one][0]['role'] == SINGLE]
  sentences = []
  if not against_mixed:
    return ['Too few seeds or networks to compare.']
  best = max(against_mixed, key=lambda d: d.mean)
  if best.strict[0] > 0:
    holds = 'holds here: the interval over all comparisons is above zero'
  elif all(d.strict[1] < 0 for d in against_mixed):
    holds = 'fails here: every single bitwidth is worse'
  else:
    holds = 'is neither confirmed nor refuted here: these seeds do not separate the best from it'
  sentences.append(
    'Claim of arXiv 2008.09916: at equal size a single bitwidth beats mixed precision that loses '
    f'no accuracy. The best, {best.one}, is {best.words} more accurate than the mixed '
    f'network; the claim {holds}.'
  )
  for d in every:
    if kinds[d.one][0]['role'] == FREE:
      which = 'better' if d.strict[0] > 0 else 'worse' if d.strict[1] < 0 else 'not told from it'
      sentences.append(
        f'Beyond the paper: {d.one}, its bits allocated at that width, against {d.other}: '
        f'{d.words}, {which}.'
      )
  return sentences


def _rows(found: list[dict[str, Any]]) -> list[tuple[str, ...]]:
  return [(*row(name, members), str(len(members))) for name, members in groups(found).items()]


HEADER = (*comparisons.HEADER, 'seeds')


def write(
  plan: Plan,
  found: list[dict[str, Any]],
  searches: Mapping[str, Any],
  budget: int,
  environment: dict[str, Any],
  workdir: pathlib.Path,
  costs: str,
) -> None:
  """Writes results.csv, report.md and differences.png."""
  config = plan.config
  report.write_atomically(workdir / run_folder.RESULTS, report.to_csv(found, COLUMNS))
  every = differences(found)
  parts = [f'# Mixed precision against one bitwidth: {config.model} on {config.dataset}\n']
  parts += [sentence + '\n' for sentence in verdicts(found)]
  parts.append(f'Budget: {budget} bits, {budget / 8192:.3f} KiB.\n')
  parts.append(report.to_markdown(_rows(found), HEADER))
  parts.append('## Differences in test accuracy, paired by seed\n')
  parts.append(
    report.to_markdown(
      [
        (d.one, d.other, f'{d.mean:+.4f}', f'[{d.low:+.4f}, {d.high:+.4f}]', str(d.seeds))
        for d in every
      ],
      ('network', 'against', 'mean', '95 % interval', 'seeds'),
    )
  )
  parts.append('![differences](differences.png)\n')
  parts += _search_parts(plan, found, searches)
  parts.append(
    f'{config.epochs} epochs on {plan.recipe.steps_per_epoch * config.batch_size} images; '
    f"{config.held_out} others chose bits. Sizes by the accounting '{config.accounting}'. "
    "Intervals are Student's t over seeds; sentences above use those of all comparisons together "
    '(Bonferroni), and the best single bitwidth is the best of the test images, which favours it.\n'
  )
  reports.write(workdir, [*parts, costs + '\n'], environment)
  report.intervals(
    workdir / 'differences.png',
    [report.Interval(f'{d.one} - {d.other}', d.mean, d.low, d.high) for d in every],
    xlabel='difference in test accuracy, 95 % interval',
    title=f'{config.model} on {config.dataset}, {budget / 8192:.3g} KiB',
  )


def _search_parts(plan: Plan, found: list[dict[str, Any]], searches: Mapping[str, Any]):
  mixed = searches[MIXED]
  yield '## The mixed network\n'
  yield (
    f'Accuracy on the held-out images {mixed["accuracy"]:.4f} against '
    f'{mixed["float_accuracy"]:.4f} in float (tolerance {plan.config.tolerance:g}), before '
    f'training with these bits; {mixed["evaluations"]} evaluations.\n'
  )
  every = {MIXED: mixed, **{name: one for name, one in searches.items() if name != MIXED}}
  paths = list(mixed['bits'])
  rows = [(path, *(str(one['bits'][path]) for one in every.values())) for path in paths]
  yield report.to_markdown(rows, ('layer', *every))


def show(found: list[dict[str, Any]], workdir: pathlib.Path) -> None:
  """Prints the table and the verdicts."""
  reports.show_table('mixed precision', _rows(found), HEADER)
  for sentence in verdicts(found):
    print(sentence)
  print(f'results: {workdir / run_folder.RESULTS}, {workdir / run_folder.REPORT}')
