"""Which claims of the paper a study has confirmed or refuted, sentence by sentence."""

import statistics
from collections.abc import Sequence

from experiments.bitwidth_study.results import (
  COST_WORDS,
  Results,
  against_free,
  against_mixed,
  against_most,
  any_layers,
  pooled,
)
from experiments.common.comparisons import Difference


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
  sentences += _same_best(results)
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
    layers = any_layers(results, name)
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


def _same_best(results: Results) -> list[str]:
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
