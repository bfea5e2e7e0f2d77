"""Exact allocation against all choices and a table; the greedy search against its definition."""

import itertools

import numpy as np
import pytest

from cnnopt_jax.quant.allocation import Lowering, allocate, fewest_bits


def every_choice(costs, uses, budgets):
  """Least cost within budgets, and the least first use at that cost, of all B^L choices."""
  layers, bits = costs.shape
  choices = np.array(list(itertools.product(range(bits), repeat=layers)))
  each = np.arange(layers)
  totals = [use[each, choices].sum(1) for use in uses]
  within = np.all([total <= budget for total, budget in zip(totals, budgets)], 0)
  if not within.any():
    return None
  cost = costs[each, choices].sum(1)
  least = cost[within].min()
  equal = within & (cost <= least + 1e-14 * np.abs(costs).max())  # But for rounding.
  return least, totals[0][equal].min()


def instance(rng, kind):
  layers, bits = int(rng.integers(1, 6)), int(rng.integers(1, 5))
  widths = np.sort(rng.choice(np.arange(1, 9), bits, replace=False))
  weights = rng.integers(1, 2_000_000 if kind == 'large' else 6, (layers, 1))
  sizes = weights * widths
  if kind == 'ties':
    costs = rng.integers(0, 4, sizes.shape).astype(float)
  elif kind == 'accuracies':  # Multiples of 1 / 10000, not exact in binary.
    costs = rng.integers(-3, 12, sizes.shape) / 10000
  elif kind == 'wide':
    costs = rng.normal(size=sizes.shape) * 10.0 ** rng.integers(-4, 5, sizes.shape)
  else:
    costs = rng.uniform(0.5, 1.5, (layers, 1)) * weights * 4.0**-widths
  return costs, sizes


def totals(found, costs, sizes):
  each = np.arange(len(costs))
  return costs[each, found.choices].sum(), sizes[each, found.choices].sum()


@pytest.mark.parametrize('kind', ['ties', 'accuracies', 'wide', 'small', 'large'])
def test_is_the_best_of_all_choices(kind):
  rng = np.random.default_rng(0)
  for _ in range(50):
    costs, sizes = instance(rng, kind)
    low, high = sizes.min(1).sum(), sizes.max(1).sum()
    budget = int(rng.integers(low, high + 2))
    found = allocate(costs, sizes, budget)
    cost, size = every_choice(costs, [sizes], [budget])
    scale = np.abs(costs).max()
    np.testing.assert_allclose(found.cost, cost, rtol=0, atol=1e-13 * scale)
    assert found.size == size <= budget and found.operations is None
    np.testing.assert_allclose(totals(found, costs, sizes), (found.cost, size), atol=1e-14)
    assert abs(found.cost - found.bound) <= 1e-11 * scale
    np.testing.assert_array_equal(allocate(costs, sizes, budget).choices, found.choices)


def test_two_budgets_against_all_choices():
  rng = np.random.default_rng(1)
  refused = 0
  for _ in range(60):
    costs, sizes = instance(rng, 'small')
    # More operations at fewer bits too: a resource of any shape.
    operations = rng.integers(0, 20, sizes.shape)
    budgets = [
      int(rng.integers(use.min(1).sum(), use.max(1).sum() + 1)) for use in (sizes, operations)
    ]
    expected = every_choice(costs, [sizes, operations], budgets)
    if expected is None:
      refused += 1
      smallest = every_choice(sizes.astype(float), [operations], budgets[1:])[0]
      with pytest.raises(ValueError, match=rf'no choice meets both.*operations: {smallest:.0f}$'):
        allocate(costs, sizes, budgets[0], operations=operations, operations_budget=budgets[1])
      continue
    found = allocate(costs, sizes, budgets[0], operations=operations, operations_budget=budgets[1])
    np.testing.assert_allclose(found.cost, expected[0], rtol=1e-12)
    assert found.size == expected[1] <= budgets[0]
    assert found.operations == operations[np.arange(len(costs)), found.choices].sum() <= budgets[1]
  assert 3 < refused < 57


def test_groups_against_all_choices():
  rng = np.random.default_rng(2)
  for _ in range(30):
    costs, sizes = instance(rng, 'ties')
    labels = rng.choice(['a', 'b', 'c'], len(costs))
    names = list(dict.fromkeys(labels))
    merged = [np.stack([rows[labels == name].sum(0) for name in names]) for rows in (costs, sizes)]
    budget = int(rng.integers(sizes.min(1).sum(), sizes.max(1).sum() + 1))
    expected = every_choice(merged[0], [merged[1]], [budget])
    if expected is None:
      with pytest.raises(ValueError, match=f'budget={budget}: no choice meets it'):
        allocate(costs, sizes, budget, groups=labels)
      continue
    found = allocate(costs, sizes, budget, groups=labels)
    assert (found.cost, found.size) == expected
    for name in names:
      assert len(set(found.choices[labels == name])) == 1


def knapsack_table(costs, sizes, budget):
  """Least cost, and least size at that cost, within a budget; all integers (Bellman)."""
  table = np.zeros(budget + 1, np.int64)
  for cost, size in zip(costs, sizes):
    rows = np.full((len(cost), budget + 1), 2**62)
    for j in np.flatnonzero(size <= budget):
      rows[j, size[j] :] = cost[j] * 10**6 + size[j] + table[: budget + 1 - size[j]]
    table = rows.min(0)
  return divmod(int(table[budget]), 10**6)


@pytest.mark.parametrize('layers, bits, largest', [(100, 8, 10**9), (54, 5, 300), (20, 5, 20)])
def test_many_layers_against_a_table(layers, bits, largest):
  """Costs fall as 4^-b times curvatures over orders of magnitude, as of networks; few are ties."""
  rng = np.random.default_rng(layers)
  weights = np.round(np.exp(rng.uniform(0, 6, (layers, 1)))).astype(int)
  widths = np.arange(1, bits + 1)
  costs = np.exp(rng.normal(0, 2, (layers, 1))) * weights * 4.0**-widths
  costs = np.rint(costs / costs.max() * largest).astype(np.int64)
  sizes = weights * widths
  for budget in (int(1.7 * weights.sum()), int(3.3 * weights.sum())):
    found = allocate(costs, sizes, budget)
    assert (found.cost, found.size) == knapsack_table(costs, sizes, budget)


def test_budgets_hold_to_the_bit():
  rng = np.random.default_rng(3)
  sizes = np.stack([np.zeros(12, int), rng.integers(10**8, 10**9, 12)], 1)
  costs = np.stack([rng.uniform(1, 2, 12), np.zeros(12)], 1)
  everything = int(sizes.sum())
  assert allocate(costs, sizes, everything).choices.all()
  found = allocate(costs, sizes, everything - 1)
  np.testing.assert_array_equal(np.flatnonzero(found.choices == 0), [np.argmin(costs[:, 0])])
  assert allocate(costs, sizes, everything + 0.9).size == everything


def test_a_huge_cost_does_not_hide_small_ones():
  """One bit ruins every layer; what matters is nine orders of magnitude below."""
  rng = np.random.default_rng(4)
  for _ in range(10):
    weights = rng.integers(1, 50, (5, 1))
    sizes = weights * np.array([1, 2, 4, 8])
    costs = np.concatenate(
      [np.full((5, 1), 1e6), weights * 1e-3 * rng.uniform(size=(5, 1)) * [1, 0.06, 2e-4]], 1
    )
    budget = int(weights.sum() * 3.5)
    found = allocate(costs, sizes, budget)
    cost, size = every_choice(costs, [sizes], [budget])
    np.testing.assert_allclose(found.cost, cost, rtol=1e-11)
    assert found.size == size


def test_of_equal_costs_the_smallest_size():
  costs = np.array([[1.0, 0.5, 0.5], [0.5, 0.5, 0.5], [1.0, 0.0, 0.0]])
  sizes = np.array([[2, 5, 3], [4, 1, 1], [1, 9, 9]])
  found = allocate(costs, sizes, 100)
  np.testing.assert_array_equal(found.choices, [2, 1, 1])
  # Either layer may be lowered at the same cost: the one that saves more is.
  found = allocate([[1.0, 0.0], [1.0, 0.0]], [[1, 4], [2, 7]], 8)
  np.testing.assert_array_equal(found.choices, [1, 0])


def test_what_cannot_be_had_is_named():
  costs, sizes = np.ones((2, 3)), np.array([[2, 4, 8], [3, 6, 12]])
  with pytest.raises(ValueError, match=r'^budget=4: no choice meets it; the smallest size.*: 5$'):
    allocate(costs, sizes, 4.9)
  with pytest.raises(ValueError, match='operations_budget=0: .*fewest operations.*: 5'):
    allocate(costs, sizes, 99, operations=sizes, operations_budget=0)
  with pytest.raises(ValueError, match='both or neither'):
    allocate(costs, sizes, 99, operations=sizes)
  with pytest.raises(ValueError, match=r'sizes: float64 of shape \(2, 3\); allowed: integers'):
    allocate(costs, sizes * 0.5, 99)
  with pytest.raises(ValueError, match=r'sizes: int64 of shape \(3, 2\)'):
    allocate(costs, sizes.T, 99)
  with pytest.raises(ValueError, match=r'sizes: sums of 2\*\*53 or more'):
    allocate(costs, sizes * 10**15, 99)
  with pytest.raises(ValueError, match='costs.*all finite'):
    allocate(costs * np.nan, sizes, 99)
  with pytest.raises(ValueError, match='groups: 3 labels; allowed: 2'):
    allocate(costs, sizes, 99, groups='abc')


WIDTHS = (2, 4, 8, 3)  # In no order.


class Additive:
  """Accuracy that falls by a given loss for each layer at each bitwidth; keeps what it is asked."""

  def __init__(self, losses):
    self.losses = losses
    self.shapes = set()

  def __call__(self, bits):
    self.shapes.add(bits.shape)
    return np.array([self.one(row) for row in bits], np.float32)

  def one(self, row):
    return 0.9 - sum(self.losses[layer].get(int(b), 0.0) for layer, b in enumerate(row))


def sizes_of(weights):
  return np.outer(weights, WIDTHS)


def lowerings(row):
  order = sorted(WIDTHS)
  for layer, b in enumerate(row):
    if b > order[0]:
      yield layer, (*row[:layer], order[order.index(b) - 1], *row[layer + 1 :])


@pytest.mark.parametrize('tolerance', [0.0, 0.01, 0.05])
def test_search_takes_in_each_round_what_it_says(tolerance):
  rng = np.random.default_rng(5)
  for layers in (1, 2, 4, 6):
    weights = rng.integers(1, 100, layers)
    losses = []
    for _ in range(layers):  # Multiples of 1 / 1000, some of them gains.
      steps = rng.integers(-1, 8, 3) * (rng.uniform(size=3) < 0.6) / 1000
      losses.append(dict(zip((4, 3, 2), np.cumsum(steps).tolist())) | {8: 0.0})
    evaluate = Additive(losses)
    found = fewest_bits(evaluate, sizes_of(weights), WIDTHS, tolerance)
    assert evaluate.shapes == {(max(layers, 2), layers)}
    row, size = (8,) * layers, 8 * weights.sum()
    for step in found.lowered:
      allowed = {
        layer: new for layer, new in lowerings(row) if 0.9 - evaluate.one(new) <= tolerance + 1e-6
      }
      lost = {layer: evaluate.one(row) - evaluate.one(new) for layer, new in allowed.items()}
      saved = {layer: weights[layer] * (row[layer] - new[layer]) for layer, new in allowed.items()}
      free = [layer for layer in allowed if lost[layer] < 1e-6]
      if free:
        assert step.layer in free and saved[step.layer] == max(saved[layer] for layer in free)
      else:
        rates = {layer: lost[layer] / saved[layer] for layer in allowed}
        assert rates[step.layer] <= min(rates.values()) * (1 + 1e-4)
      row, size = allowed[step.layer], size - saved[step.layer]
      assert (step.bits, step.size) == (row[step.layer], size)
      np.testing.assert_allclose(step.accuracy, evaluate.one(row), rtol=1e-6)
    assert tuple(found.bits) == row and found.size == size
    assert all(0.9 - evaluate.one(new) > tolerance for _, new in lowerings(row))
    np.testing.assert_allclose([found.accuracy, found.reference], [evaluate.one(row), 0.9], 1e-6)


def test_without_loss_every_layer_gets_its_own_fewest_bits():
  """Where losses add up and none is a gain, greed is optimal at a tolerance of 0."""
  losses = [{2: 0.1}, {2: 0.1, 3: 0.1}, {}, {2: 0.1, 3: 0.1, 4: 0.1}]
  found = fewest_bits(Additive(losses), sizes_of([5, 50, 1, 9]), WIDTHS, 0)
  np.testing.assert_array_equal(found.bits, [3, 4, 2, 8])
  assert [step.layer for step in found.lowered] == [1, 0, 0, 2, 2, 2]
  assert found.lowered[0] == Lowering(1, 4, found.reference, 8 * 65 - 4 * 50)
  # Two first rows, then one a layer that can still be lowered.
  assert found.evaluations == 2 + 6 * 4 + 3


def test_a_given_reference_stands_in_for_float():
  evaluate = Additive([{2: 0.1, 3: 0.02}])
  found = fewest_bits(evaluate, sizes_of([3]), WIDTHS, 0.01, reference=0.89)
  np.testing.assert_array_equal(found.bits, [3])
  assert found.reference == 0.89 and found.evaluations == 1 + 1 + 1 + 1


def test_lowerings_that_save_nothing_come_last():
  """A tiny layer at 8 bits and a step takes more than at 32 bits."""
  found = fewest_bits(lambda bits: np.full(len(bits), 0.5), [[32, 40], [320, 120]], (32, 8), 0)
  assert [step.layer for step in found.lowered] == [1, 0]


def test_arguments_of_the_search_that_are_not_allowed():
  sizes = sizes_of([1, 2])
  ruined = Additive([{8: 0.5}, {}])
  with pytest.raises(ValueError, match='bits=8 in every layer.*allowed: tolerance=0.1'):
    fewest_bits(ruined, sizes, WIDTHS, 0.1)
  with pytest.raises(ValueError, match='bits=8 in every layer have an accuracy of nan'):
    fewest_bits(lambda bits: np.full(len(bits), np.nan), sizes, WIDTHS, 0.1, reference=0.5)
  with pytest.raises(ValueError, match='tolerance=-1'):
    fewest_bits(ruined, sizes, WIDTHS, -1)
  with pytest.raises(ValueError, match='no bitwidth twice'):
    fewest_bits(ruined, sizes, (2, 2, 4, 8), 0)
  with pytest.raises(ValueError, match=r'sizes: int64 of shape \(2, 4\); allowed'):
    fewest_bits(ruined, sizes, (2, 4), 0)
