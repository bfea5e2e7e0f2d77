"""What a sweep shows and writes: progress, records, tables, plot."""

import collections
import pathlib
import statistics
from typing import Any, NamedTuple

from rich import console, table

from cnnopt_jax import quant, report
from experiments.common import reports, run_folder, starts
from experiments.common.members import Outcome, bits_text
from experiments.common.sweeps import Member, Plan

COLUMNS = (
  'name',
  'role',
  'model',
  'dataset',
  'budget_kib',
  'bits',
  'average_bits',
  'width_multiplier',
  'accounting',
  'size_bits',
  'size_weights_bits',
  'size_scales_bits',
  'size_biases_bits',
  'size_norms_bits',
  'size_others_bits',
  'macs',
  'params',
  'learning_rate',
  'seed',
  'epochs',
  'train_loss',
  'test_accuracy',
  'diverged_step',
  'seconds',
)


# Those that the records of every version have.
OLDEST_COLUMNS = tuple(name for name in COLUMNS if name != 'average_bits')


def record(plan: Plan, member: Member, outcome: Outcome) -> dict[str, Any]:
  """The record of a trained member; a diverged one has no loss and no accuracy."""
  layers, size = member.match.layers, member.match.size
  values = dict(
    name=member.name,
    role=member.role,
    model=plan.config.model,
    dataset=plan.config.dataset,
    budget_kib=member.budget_kib,
    bits=member.bits,
    average_bits=_average_bits(member),
    width_multiplier=member.match.width,
    accounting=plan.config.accounting,
    size_bits=size.total,
    **{f'size_{term}_bits': value for term, value in size._asdict().items()},
    macs=layers.macs,
    params=sum(p.size for p in layers.parameters),
    learning_rate=member.learning_rate,
    seed=member.seed,
    epochs=plan.config.epochs,
    **outcome._asdict(),
  )
  assert tuple(values) == COLUMNS
  return values


def in_order(plan: Plan, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """The records in the order of the plan."""
  by_name = {r['name']: r for r in records}
  return [
    {'average_bits': _average_bits(member), **by_name[member.name]}  # Old runs recorded none.
    for member in plan.members
    if member.name in by_name
  ]


def _average_bits(member: Member) -> float:
  weights = member.match.plan
  return round(quant.average_bits(weights, quant.bits_by_path(weights, member.bits)), 4)


class Shared(NamedTuple):
  """What the networks of one comparison have in common.

  Attributes:
    budget_kib: size they were matched to; None where they have a width in common.
    width: multiplier; None where they have a size in common.
  """

  budget_kib: float | None
  width: float | None

  def __str__(self) -> str:
    return f'{self.budget_kib:g} KiB' if self.width is None else f'width {self.width:g}'

  @property
  def title(self) -> str:
    """As a heading has it."""
    return f'budget {self}' if self.width is None else str(self)


def _shared(budget_kib: float | None, width: float | None) -> Shared:
  """Of a network: its width counts where it was matched to no size."""
  return Shared(budget_kib, width if budget_kib is None else None)


def _comparisons(plan: Plan) -> list[Shared]:
  """What the members of each comparison share, in the order of the plan."""
  return list(dict.fromkeys(_shared(m.budget_kib, m.match.width) for m in plan.members))


class Group(NamedTuple):
  """The members that differ by seed alone.

  Attributes:
    shared: what they have in common with those that they are compared with.
    role: 'ranked' or 'reference'.
    bits: weight bitwidth, but where `layer_bits` gives another.
    average_bits: over all weights.
    learning_rate: at the first step.
    records: one a seed.
  """

  shared: Shared
  role: str
  bits: int
  average_bits: float
  learning_rate: float
  records: list[dict[str, Any]]

  @property
  def accuracies(self) -> list[float]:
    return [r['test_accuracy'] for r in self.records if r['test_accuracy'] is not None]

  @property
  def mean(self) -> float:
    return statistics.fmean(self.accuracies) if self.accuracies else float('nan')

  @property
  def spread(self) -> float:
    """Standard deviation over seeds."""
    return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0

  @property
  def diverged(self) -> int:
    return len(self.records) - len(self.accuracies)


def groups(records: list[dict[str, Any]]) -> list[Group]:
  """Records grouped over seeds: by budget or width, ranked ones by falling accuracy, references.

  A group whose members all diverged stands last among its kind.
  """
  found = collections.defaultdict(list)
  for r in records:
    shared = _shared(r['budget_kib'], r.get('width_multiplier'))
    key = shared, r['role'], r['bits'], r['average_bits'], r['learning_rate']
    found[key].append(r)

  def order(group: Group):
    # Accuracies are at most 1, so a group without any comes after all others.
    falling = -group.mean if group.accuracies else 1.0
    return group.shared.budget_kib, group.shared.width, group.role != 'ranked', falling

  return sorted((Group(*key, members) for key, members in found.items()), key=order)


def has_ranking(records: list[dict[str, Any]]) -> bool:
  """Whether there is a ranked member that did not diverge."""
  return any(r['role'] == 'ranked' and r['test_accuracy'] is not None for r in records)


def verdicts(records: list[dict[str, Any]]) -> list[str]:
  """One sentence a budget or width: what wins, whether the seeds can tell, and what diverged."""
  sentences = []
  everyone = groups(records)
  for shared in dict.fromkeys(g.shared for g in everyone):
    ranked = [g for g in everyone if g.shared == shared and g.role == 'ranked']
    best = {}
    for g in ranked:  # Best first, so that each bitwidth enters at its best rate.
      if g.accuracies:
        best.setdefault(g.bits, g)
    lost = sorted({g.bits for g in ranked} - best.keys())
    if not best:
      if lost:
        count = sum(g.diverged for g in ranked)
        sentences.append(
          f'At {shared}, nothing is ranked: all {count} members diverged, '
          'which smaller config.learning_rates may mend.'
        )
      continue
    first, *others = best.values()
    sentence = f'At {shared}, {_label(first)} is best: {_accuracy(first)}'
    if others:
      second = others[0]
      error = sum(g.spread**2 / len(g.accuracies) for g in (first, second)) ** 0.5
      sentence += f'; next {_label(second)}: {_accuracy(second)}'
      if min(len(g.accuracies) for g in (first, second)) < 2:
        sentence += ' (one seed: no spread known)'
      elif first.mean - second.mean <= 2 * error:
        sentence += ', within twice the standard error of the difference: the seeds cannot tell'
    if lost:
      sentence += f'; all members diverged at {", ".join(map(bits_text, lost))}'
    sentences.append(sentence + '.')
  return sentences


def _label(group: Group) -> str:
  """The bitwidth; of a mixed network the average too."""
  mixed = group.average_bits != group.bits
  return bits_text(group.bits) + f' (mixed, {group.average_bits:.3g} on average)' * mixed


def _accuracy(group: Group) -> str:
  if not group.accuracies:
    return 'diverged'
  text = f'{group.mean:.4f}'
  return text + (f' ± {group.spread:.4f}' if len(group.accuracies) > 1 else '')


HEADER = (
  'bits',
  'average bits',
  'width',
  'size KiB',
  'weights',
  'MACs',
  'params',
  'rate',
  'test accuracy',
  'train loss',
  'seeds',
  'diverged',
)


def _row(g: Group) -> tuple[str, ...]:
  one = g.records[0]
  losses = [r['train_loss'] for r in g.records if r['train_loss'] is not None]
  return (
    ('' if g.role == 'ranked' else 'reference, ') + str(g.bits),
    f'{g.average_bits:.4g}',
    f'{one["width_multiplier"]:g}',
    f'{one["size_bits"] / 8192:.3f}',
    f'{one["size_weights_bits"] / one["size_bits"]:.0%}',
    f'{one["macs"] / 1e6:.2f} M',
    f'{one["params"]}',
    f'{g.learning_rate:g}',
    _accuracy(g),
    f'{statistics.fmean(losses):.3f}' if losses else '',
    str(len(g.records)),
    str(g.diverged),
  )


def write(
  plan: Plan,
  records: list[dict[str, Any]],
  environment: dict[str, Any],
  workdir: pathlib.Path,
  costs: str,
) -> None:
  """Rebuilds results.csv, report.md and pareto.png from the records; `costs` is a sentence."""
  records = in_order(plan, records)
  report.write_atomically(workdir / run_folder.RESULTS, report.to_csv(records, COLUMNS))
  reports.write(workdir, [*_markdown(plan, records), costs + '\n'], environment)
  series = collections.defaultdict(list)
  for g in groups(records):
    label = _label(g) + (' reference' if g.role == 'reference' else '')
    if len(plan.config.learning_rates) > 1:
      label += f', rate {g.learning_rate:g}'
    if g.accuracies:
      series[g.role == 'reference', g.bits, g.learning_rate, label].append(
        (g.records[0]['size_bits'] / 8192, g.mean, g.spread)
      )
  report.tradeoff(
    workdir / 'pareto.png',
    [
      report.Series(key[-1], *zip(*sorted(points)), reference=key[0])
      for key, points in sorted(series.items())
    ],
    xlabel='model size, KiB',
    ylabel='test accuracy',
    title=f'{plan.config.model} on {plan.config.dataset}, mean and std over seeds',
  )


def _markdown(plan: Plan, records: list[dict[str, Any]]) -> list[str]:
  config = plan.config
  equal, unequal = ('width', 'size') if config.width_multipliers else ('size', 'compute')
  words = 'width' if config.width_multipliers else 'model size'
  parts = [f'# Weight bitwidths of {config.model} at equal {words}, on {config.dataset}\n']
  parts += [sentence + '\n' for sentence in verdicts(records)]
  for shared in _comparisons(plan):
    rows = [_row(g) for g in groups(records) if g.shared == shared]
    if rows:
      parts.append(f'## {_capital(shared.title)}\n\n{report.to_markdown(rows, HEADER)}')
  parts.append('![accuracy against size](pareto.png)\n')
  parts.append(
    f"Sizes are counted by the accounting '{config.accounting}': "
    + ACCOUNTING_WORDS[config.accounting]
    + " The column 'weights' is their share of the size. MACs are those "
    f'of one image: equal {equal} is not equal {unequal}. '
    '± is the standard deviation over seeds.\n'
  )
  if config.start:
    start = 'published weights' if config.start == starts.PRETRAINED else f'`{config.start}`'
    parts.append(f'All networks start from {start}, with a fresh optimizer.\n')
  parts.append(f'{config.epochs} epochs; every setting is in config.json.\n')
  parts.append('## How weights are quantized\n')
  ranked = {
    (_shared(m.budget_kib, m.match.width), m.bits): m for m in plan.members if m.role == 'ranked'
  }
  folded = quant.ACCOUNTINGS[config.accounting].folds
  for (shared, bits), member in ranked.items():
    weights = member.match.plan
    listing = quant.plan_table(weights, quant.bits_by_path(weights, bits), folded=folded)
    parts.append(f'{_capital(str(shared))}, {bits_text(bits)}:\n\n```text\n{listing}\n```\n')
  return parts


def _capital(text: str) -> str:
  return text[:1].upper() + text[1:]


ACCOUNTING_WORDS = {
  'stored': 'weights at their bitwidth, one 32-bit step per output channel (or layer, or group of '
  'inputs) of each quantized layer, every bias and norm parameter at 32 bits.',
  'folded': 'weights at their bitwidth, every bias and norm parameter at 32 bits; quantization '
  'steps fold into the norms and cost nothing, but for 32 bits each in layers without a norm, such '
  'as the classifier, and where inputs share steps in groups.',
  'weights': 'weights at their bitwidth, nothing else.',
}


def show(plan: Plan, records: list[dict[str, Any]], workdir: pathlib.Path) -> None:
  """Prints the final table, the verdict and where the results are."""
  shown = [i for i, name in enumerate(HEADER) if name not in ('weights', 'params', 'train loss')]
  if all(r['average_bits'] == r['bits'] for r in records):
    shown.remove(HEADER.index('average bits'))
  if len(plan.config.learning_rates) == 1:
    shown.remove(HEADER.index('rate'))
  if all(r['diverged_step'] is None for r in records):
    shown.remove(HEADER.index('diverged'))
  for shared in _comparisons(plan):
    out = table.Table(*(HEADER[i] for i in shown), title=f'{plan.config.model}, {shared.title}')
    for g in groups(records):
      if g.shared == shared:
        row = _row(g)
        out.add_row(*(row[i] for i in shown), style='dim' if g.role == 'reference' else '')
    console.Console().print(out)
  for sentence in verdicts(records):
    print(sentence)
  print(
    f'results: {workdir / run_folder.RESULTS}, {workdir / run_folder.REPORT}, '
    f'{workdir / "pareto.png"}'
  )
