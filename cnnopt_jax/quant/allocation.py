"""Mixed precision: which bitwidth each layer gets.

`allocate` solves for the least summed cost under a budget, by integer linear programming as in
HAWQ-V3 (Yao et al., ICML 2021, arXiv 2011.10680). `fewest_bits` searches for what "One Weight
Bitwidth to Rule Them All" (arXiv 2008.09916) compares a single bitwidth with: mixed precision that
targets zero accuracy degradation.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from cnnopt_jax.quant import knapsack
from cnnopt_jax.quant.gaussian import IDENTITY_BITS

# What a float32 accuracy may be off by.
_ROUNDING = 1e-7


class Allocation(NamedTuple):
  """One bitwidth for each of L layers.

  Attributes:
    choices: column of the costs that each layer takes, int [L].
    cost: their sum, in the unit of the costs.
    size: summed size in bits.
    operations: summed bit operations; None where they were not given.
    bound: no choice within the budgets costs less than this; `cost` but for rounding.
  """

  choices: np.ndarray
  cost: float
  size: int
  operations: int | None
  bound: float


def allocate(
  costs: Any,
  sizes: Any,
  budget: float,
  *,
  operations: Any = None,
  operations_budget: float | None = None,
  groups: Sequence[Hashable] | None = None,
  seconds: float = 60.0,
) -> Allocation:
  """Chooses a bitwidth for each layer: least summed cost within a budget, exactly.

      costs = loss_change(loss, params, plan, bits)
      leaves = {leaf.path: leaf for leaf in plan.leaves}
      sizes = [[leaves[path].size * b for b in costs.bits] for path in costs.paths]
      chosen = np.asarray(costs.bits)[allocate(costs.values, sizes, budget).choices]

  A multiple-choice knapsack problem, solved by HiGHS (`scipy.optimize.milp`) until its lower bound
  proves the cost; budgets hold in integers. Of choices of the same cost, to 1e-11 of the largest
  that matters, one of the smallest size is taken; `knapsack.pack` says how ties end.

  A hundred layers take a fraction of a second, and seconds where very many choices cost nearly the
  same, as with costs proportional to sizes. HiGHS 1.12 (of SciPy 1.17) may print lines that
  start with 'HighsMipSolverData' (its issue 2783).

  Args:
    costs: what each layer costs at each bitwidth, float [L, B], any sign: `BitwidthCosts.values`.
    sizes: bits of size, int [L, B].
    budget: the most bits that all layers may take.
    operations: bit operations, or any other resource, int [L, B]; None for no such budget.
    operations_budget: the most that all layers may take of it.
    groups: a label for each layer, [L]: those of one label share a bitwidth. None for none.
    seconds: limit of each run of the solver; there are two or more.

  Returns:
    The choice, its cost and size.

  Raises:
    ValueError: if an array does not fit or no choice is within the budgets; names the smallest
      size, or the fewest operations, that can be had.
    TimeoutError: if the proof takes longer than `seconds`.
  """
  costs = np.asarray(costs, np.float64)
  if costs.ndim != 2 or not costs.size or not np.isfinite(costs).all():
    raise ValueError(f'costs of shape {costs.shape}; allowed: [layers, bitwidths], all finite')
  if (operations is None) != (operations_budget is None):
    raise ValueError('operations, operations_budget: one is missing; allowed: both or neither')
  uses = [_integers('sizes', sizes, costs.shape)]
  budgets = [math.floor(budget)]
  if operations_budget is not None:
    uses.append(_integers('operations', operations, costs.shape))
    budgets.append(math.floor(operations_budget))
  group = _group_indices(groups, len(costs))
  # Layers that share a bitwidth are one layer with their sums.
  member = np.arange(group.max() + 1)[:, None] == group
  grouped = np.stack([member.astype(np.int64) @ use for use in uses])
  _check_budgets(grouped, budgets)
  found = knapsack.pack(member @ costs, grouped, np.array(budgets), seconds)
  if found is None:
    _refuse_both(grouped, budgets, seconds)
  choices = found.choices[group]
  each = np.arange(len(costs))
  cost = math.fsum(costs[each, choices])
  size, *rest = (int(use[each, choices].sum()) for use in uses)
  return Allocation(choices, cost, size, rest[0] if rest else None, cost - found.gap)


def _check_budgets(uses: np.ndarray, budgets: list[int]) -> None:
  terms = ('budget', 'smallest size'), ('operations_budget', 'fewest operations')
  for (name, best), use, budget in zip(terms, uses, budgets):
    least = int(use.min(1).sum())
    if least > budget:
      raise ValueError(f'{name}={budget}: no choice meets it; the {best} that can be had: {least}')


def _refuse_both(uses: np.ndarray, budgets: list[int], seconds: float) -> NoReturn:
  """Says by how much two budgets miss each other, each of which can be met alone."""
  within = knapsack.pack(uses[0].astype(float), uses[1:], np.array(budgets[1:]), seconds)
  assert within is not None
  least = int(uses[0][np.arange(uses.shape[1]), within.choices].sum())
  raise ValueError(
    f'budget={budgets[0]}, operations_budget={budgets[1]}: no choice meets both; the smallest size '
    f'that can be had within those operations: {least}'
  )


def _integers(name: str, values: Any, shape: tuple[int, ...]) -> np.ndarray:
  """An array of resources, int64, whose sums are exact in float64 too."""
  values = np.asarray(values)
  if values.shape != shape or not np.issubdtype(values.dtype, np.integer) or values.min() < 0:
    raise ValueError(
      f'{name}: {values.dtype} of shape {values.shape}; allowed: integers of 0 or more, {shape}'
    )
  if values.max(1).astype(object).sum() >= 2**53:
    raise ValueError(f'{name}: sums of 2**53 or more; allowed: less, in a larger unit')
  return values.astype(np.int64)


def _group_indices(groups: Sequence[Hashable] | None, count: int) -> np.ndarray:
  """The index of each layer's group, [L], groups in the order of their first layers."""
  labels = range(count) if groups is None else groups
  if len(labels) != count:
    raise ValueError(f'groups: {len(labels)} labels; allowed: {count}, one for each layer')
  index = {label: i for i, label in enumerate(dict.fromkeys(labels))}
  return np.array([index[label] for label in labels])


class Lowering(NamedTuple):
  """One round of `fewest_bits`.

  Attributes:
    layer: whose bitwidth was lowered.
    bits: what it was lowered to.
    accuracy: with it.
    size: of all layers with it, in bits.
  """

  layer: int
  bits: int
  accuracy: float
  size: int


class FewestBits(NamedTuple):
  """What `fewest_bits` found.

  Attributes:
    bits: of each layer, int [L].
    accuracy: with them.
    reference: accuracy that was to be kept.
    size: of all layers, in bits.
    lowered: the search, round by round.
    evaluations: candidates that were evaluated.
  """

  bits: np.ndarray
  accuracy: float
  reference: float
  size: int
  lowered: tuple[Lowering, ...]
  evaluations: int


def fewest_bits(
  evaluate: Callable[[np.ndarray], Any],
  sizes: Any,
  bits: Sequence[int],
  tolerance: float,
  *,
  reference: float | None = None,
) -> FewestBits:
  """Searches for the fewest bits in each layer that lose no accuracy (arXiv 2008.09916).

  The aim is that of the paper's abstract. The search is ours and greedy: there are B^L choices. All
  layers start at the most bits. Each round tries for every layer its next fewer bits, with the
  others as they are, and drops what loses more than `tolerance` against the reference. Of the rest
  it takes one: first, one that loses nothing against the round before, the most bits of size saved;
  else the least accuracy lost for each bit of size saved; of equals, the most saved, then the first
  layer. It ends when nothing is left to take, so that lowering any one layer by one bitwidth would
  lose too much. At most L (B - 1) + 1 rounds.

  An accuracy on N images is good to about sqrt(a (1 - a) / N): a tolerance below that follows
  chance, and a search that chooses by a set is to be judged on another.

  Args:
    evaluate: maps bitwidths, int [C, L], to accuracies [C]. C is the same in every call, max(L, 2),
      rows that are not needed being repeats, so that a jitted function compiles once.
    sizes: bits of size, int [L, B], which say what a lowering saves.
    bits: the bitwidths, [B], in the order of the columns of `sizes`.
    tolerance: the accuracy that may be lost in all, in the unit of `evaluate`, 0 for none.
    reference: the accuracy to keep; None for that of 32 bits in every layer.

  Returns:
    The bitwidths and the search.

  Raises:
    ValueError: if an argument does not fit, or the most bits lose too much.
  """
  descending = np.argsort(-np.asarray(bits), kind='stable')
  steps = np.asarray(bits)[descending]
  if tolerance < 0 or len(set(bits)) != len(bits):
    raise ValueError(f'tolerance={tolerance}, bits={bits}; allowed: 0 or more, no bitwidth twice')
  sizes = np.asarray(sizes)
  sizes = _integers('sizes', sizes, (len(sizes), len(bits)))[:, descending]
  layers = np.arange(len(sizes))
  evaluations = 0

  def accuracies(rows):
    nonlocal evaluations
    evaluations += len(rows)
    repeats = np.repeat(rows[-1:], max(len(layers), 2) - len(rows), 0)
    return np.asarray(evaluate(np.concatenate([rows, repeats])), np.float64)[: len(rows)]

  at = np.zeros(len(layers), int)
  rows = steps[at][None]
  if reference is None:
    rows = np.concatenate([np.full_like(rows, IDENTITY_BITS), rows])
  *floats, accuracy = accuracies(rows).tolist()
  kept = floats[0] if reference is None else reference
  if not kept - accuracy <= tolerance + _ROUNDING:  # NaN is refused as well.
    raise ValueError(
      f'bits={steps[0]} in every layer have an accuracy of {accuracy}, {kept - accuracy} less than '
      f'{kept}; allowed: tolerance={tolerance}'
    )
  lowered: list[Lowering] = []
  while len(open_layers := layers[at + 1 < len(steps)]):
    candidates = at + np.eye(len(layers), dtype=int)[open_layers]
    found = accuracies(steps[candidates])
    saved = sizes[open_layers, at[open_layers]] - sizes[open_layers, at[open_layers] + 1]
    allowed = np.flatnonzero(kept - found <= tolerance + _ROUNDING)
    if not len(allowed):
      break
    preferences = [_preference(accuracy - found[i], saved[i]) for i in allowed]
    best = allowed[preferences.index(min(preferences))]
    at, accuracy = candidates[best], float(found[best])
    layer = open_layers[best]
    size = int(sizes[layers, at].sum())
    lowered.append(Lowering(int(layer), int(steps[at[layer]]), accuracy, size))
  size = int(sizes[layers, at].sum())
  return FewestBits(steps[at], accuracy, kept, size, tuple(lowered), evaluations)


def _preference(lost: float, saved: int) -> tuple[float, ...]:
  """Key to sort lowerings by: the least is taken."""
  if saved <= 0:  # Such as one from 32 bits to 8 and a step each.
    return 2, lost, -saved
  return (0, 0, -saved) if lost <= _ROUNDING else (1, lost / saved, -saved)
