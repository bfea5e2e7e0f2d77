"""Trained networks compared at equal cost: their records, and differences paired by seed."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from scipy import stats

from cnnopt_jax import quant
from experiments.common.members import Outcome
from experiments.common.sweeps import Member

CONFIDENCE = 0.95

Records = Sequence[Mapping[str, Any]]

COLUMNS = (
  'name',
  'role',
  'seed',
  'bits',
  'average_bits',
  'layer_bits',
  'width_multiplier',
  'size_bits',
  'bit_operations',
  'macs',
  'train_loss',
  'test_accuracy',
  'diverged_step',
  'seconds',
)


def record(member: Member, outcome: Outcome) -> dict[str, Any]:
  """The record of a trained member."""
  match, bits = member.match, member.bits
  values = dict(
    name=member.name,
    role=member.role,
    seed=member.seed,
    bits=None if isinstance(bits, Mapping) else bits,
    average_bits=round(quant.average_bits(match.plan, quant.bits_by_path(match.plan, bits)), 4),
    layer_bits=dict(bits) if isinstance(bits, Mapping) else None,
    width_multiplier=match.width,
    size_bits=match.size.total,
    bit_operations=quant.bit_operations(match.layers, match.plan, bits),
    macs=match.layers.macs,
    **outcome._asdict(),
  )
  assert tuple(values) == COLUMNS
  return values


def accuracies(records: Records) -> list[float]:
  """Those of the networks that did not diverge."""
  return [r['test_accuracy'] for r in records if r['test_accuracy'] is not None]


class Difference(NamedTuple):
  """How much more accurate one kind of network is than another, seed by seed.

  Attributes:
    one, other: their labels.
    mean: over seeds that both have finished.
    low, high: 95 % interval of the mean (Student's t, paired).
    strict: the interval's ends with the confidence of all comparisons together (Bonferroni).
    seeds: how many.
  """

  one: str
  other: str
  mean: float
  low: float
  high: float
  strict: tuple[float, float]
  seeds: int

  @property
  def words(self) -> str:
    """Mean and interval."""
    return f'{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}]'


def paired_differences(one: Records, other: Records) -> list[float]:
  """Differences of accuracies, of the seeds that both have finished."""
  theirs = {r['seed']: r['test_accuracy'] for r in other}
  return [
    r['test_accuracy'] - theirs[r['seed']]
    for r in one
    if r['test_accuracy'] is not None and theirs.get(r['seed']) is not None
  ]


def difference(
  one: str, other: str, differences: Sequence[float], comparisons: int = 1
) -> Difference | None:
  """Mean and interval of paired differences; None of fewer than two.

  Args:
    one, other: labels.
    differences: one a seed.
    comparisons: that are made together.
  """
  if len(differences) < 2:
    return None
  mean = statistics.fmean(differences)
  error = statistics.stdev(differences) / len(differences) ** 0.5

  def ends(confidence):
    reach = stats.t.ppf((1 + confidence) / 2, len(differences) - 1) * error
    return mean - reach, mean + reach

  strict = ends(1 - (1 - CONFIDENCE) / comparisons)
  return Difference(one, other, mean, *ends(CONFIDENCE), strict, len(differences))


HEADER = (
  'network',
  'average bits',
  'width',
  'size KiB',
  'MACs',
  'MACs x weight bits',
  'test accuracy',
)


def row(name: str, records: Records) -> tuple[str, ...]:
  """The row of a table, under `HEADER`, for networks that differ by seed alone."""
  one, each = records[0], accuracies(records)
  spread = f' ± {statistics.stdev(each):.4f}' if len(each) > 1 else ''
  return (
    name,
    f'{one["average_bits"]:.3g}',
    f'{one["width_multiplier"]:g}',
    f'{one["size_bits"] / 8192:.3f}',
    f'{one["macs"] / 1e6:.2f} M',
    f'{one["bit_operations"] / 32e6:.2f} M',
    f'{statistics.fmean(each):.4f}{spread}' if each else 'diverged',
  )
