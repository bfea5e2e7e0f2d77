"""The multiple-choice knapsack problem, solved exactly: one column a layer, least cost in budgets.

HiGHS does the search. Its tolerances are fixed and absolute, so costs are scaled to them, what it
returns is checked in integers, and its proof by the bound that it gives.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import optimize, sparse

# HiGHS compares objectives to within 1e-6: with the largest cost scaled to this it resolves 1e-12
# of that.
_SCALE = 1e6
# Scaled costs that count as equal: what the solver's tolerance and rounding may add up to.
_EQUAL = 1e-5


class Packing(NamedTuple):
  """A choice of one column for each of L layers.

  Attributes:
    choices: the columns, int [L].
    gap: what the cost exceeds its proved lower bound by; 0 but for rounding.
  """

  choices: np.ndarray
  gap: float


class _Columns(NamedTuple):
  """Choices, flat: K of them, of L layers, against R budgets, in the order of their layers.

  Attributes:
    layer: whose choice each is, [K].
    column: which of its columns, [K].
    costs: float [K], 0 or more.
    uses: what each takes of each budget, int [R, K], 0 or more.
  """

  layer: np.ndarray
  column: np.ndarray
  costs: np.ndarray
  uses: np.ndarray

  def at(self, index: np.ndarray) -> '_Columns':
    return _Columns(*(field[..., index] for field in self))

  def each_layer(self) -> sparse.csr_array:
    """Rows that sum the columns of each layer, [L, K]."""
    index = np.arange(len(self.layer))
    return sparse.csr_array((np.ones(len(index)), (self.layer, index)))


def pack(
  costs: np.ndarray, uses: np.ndarray, budgets: np.ndarray, seconds: float
) -> Packing | None:
  """Finds the choice of least summed cost within all budgets.

  Of choices with the same cost, to 1e-11 of the largest cost above a layer's least that an optimum
  could hold, it takes one with the least use of the first budget; of those that share that too, the
  solver's, which is the same each time.

  Args:
    costs: float [L, B], finite, any sign.
    uses: what each column takes of each of R budgets, int64 [R, L, B], 0 or more.
    budgets: int [R].
    seconds: limit of each run of the solver: one for the cost, one for the proof that no tie is
      smaller, and two for each tie that is.

  Returns:
    The choice; None if none is within the budgets.

  Raises:
    TimeoutError: if a proof takes longer than `seconds`.
  """
  # A layer takes exactly one column, so its least cost and use can be left out of all of them.
  least = uses.min(2, keepdims=True)
  room = budgets - least.sum((1, 2))
  layer, column = np.nonzero(~_dominated(costs, uses))
  above = costs - costs.min(1, keepdims=True)
  columns = _Columns(layer, column, above[layer, column], (uses - least)[:, layer, column])
  hopeful = _hopeful(columns, room)
  if hopeful is None:
    return None
  scale = _SCALE / (hopeful.costs.max() or 1.0)
  hopeful = hopeful._replace(costs=hopeful.costs * scale)
  picked, bound = _minimise(hopeful.costs, hopeful, room, seconds)
  if picked is None:
    return None
  picked = _smallest_equal(picked, hopeful, room, seconds)
  return Packing(picked.column, (math.fsum(picked.costs) - bound) / scale)


def _smallest_equal(
  picked: _Columns, columns: _Columns, room: np.ndarray, seconds: float
) -> _Columns:
  """A choice that costs as little as an optimal one, with the least use of the first budget."""
  limit = math.fsum(picked.costs) + _EQUAL
  while True:
    # Is there one that uses less? Mostly no column is left, or a run proves that there is none.
    less = np.array([picked.uses[0].sum() - 1, *room[1:]])
    hopeful = _hopeful(columns, less, limit)
    if hopeful is None:
      return picked
    smaller, _ = _minimise(hopeful.costs, hopeful, less, seconds)
    if smaller is None or math.fsum(smaller.costs) > limit:
      return picked
    # There is: the least at once. The solver's tolerances may let in a higher cost: not taken.
    row = optimize.LinearConstraint(hopeful.costs[None], -np.inf, limit)
    smallest, _ = _minimise(hopeful.uses[0].astype(float), hopeful, less, seconds, row)
    if smallest is None or math.fsum(smallest.costs) > limit:
      smallest = smaller
    picked = smallest


def _dominated(costs: np.ndarray, uses: np.ndarray) -> np.ndarray:
  """Whether another column of the layer is as good in everything and better in one, [L, B].

  Of columns that are equal in everything the first is not dominated.
  """
  values = np.concatenate([costs[None], uses])
  mine, others = values[:, :, :, None], values[:, :, None, :]
  as_good, better = (others <= mine).all(0), (others < mine).any(0)
  earlier = np.tri(costs.shape[1], k=-1, dtype=bool)
  return np.any(as_good & (better | earlier), axis=2)


def _hopeful(columns: _Columns, room: np.ndarray, limit: float | None = None) -> _Columns | None:
  """The columns that a choice within budgets can hold that costs at most `limit`, or is optimal.

  At any prices p >= 0 of the budgets, a choice within them costs at least the sum over layers of
  min(c + p u), less p room (Lagrange), and with column k at least as much more as c_k + p u_k is
  above its layer's minimum. Where that exceeds the limit, or the cost of a choice at hand, k is
  out. This shortens the search, and keeps huge costs that are never paid out of the scaling.

  Returns:
    The columns; None if a layer is left without one or nothing is within the budgets.
  """
  each = columns.each_layer()
  relaxed = optimize.linprog(
    columns.costs, columns.uses, room, each, np.ones(each.shape[0]), bounds=(0, None)
  )
  if relaxed.status == 2:
    return None
  if limit is None and not relaxed.status:
    limit = _cost_at_hand(columns, relaxed.x, room)
  if relaxed.status or limit is None:
    return columns
  prices = np.maximum(-relaxed.ineqlin.marginals, 0)
  priced = columns.costs + prices @ columns.uses
  floor = np.full(each.shape[0], np.inf)
  np.minimum.at(floor, columns.layer, priced)
  slack = limit - floor.sum() + prices @ room
  keep = priced - floor[columns.layer] <= slack + 1e-9 * (limit + floor.sum())
  return columns.at(keep) if keep.any() else None


def _cost_at_hand(columns: _Columns, x: np.ndarray, room: np.ndarray) -> float | None:
  """Cost of a choice near a solution of the relaxation; None if that is not within budgets."""
  used = np.flatnonzero(x > 1e-6)
  used = used[np.lexsort((columns.uses[0][used], columns.layer[used]))]
  chosen = used[np.unique(columns.layer[used], return_index=True)[1]]
  left = room - columns.uses[:, chosen].sum(1)
  if (left < 0).any():
    return None
  while True:  # Spends what is left where it lowers the cost most.
    gain = columns.costs[chosen][columns.layer] - columns.costs
    more = columns.uses - columns.uses[:, chosen][:, columns.layer]
    gain = np.where((more <= left[:, None]).all(0), gain, 0)
    best = np.argmax(gain)
    if gain[best] <= 0:
      return columns.costs[chosen].sum()
    left = left - more[:, best]
    chosen[columns.layer[best]] = best


def _minimise(
  objective: np.ndarray,
  columns: _Columns,
  room: np.ndarray,
  seconds: float,
  *further: optimize.LinearConstraint,
) -> tuple[_Columns | None, float]:
  """The choice with the least sum of an objective [K], and the bound that is proved.

  One column a layer, in the order of layers; None where there is no choice.
  """
  each = columns.each_layer()
  rows = [
    *further,
    optimize.LinearConstraint(each, 1, 1),
    # Uses are integers: half a unit more lets none in, and covers the solver's tolerance.
    optimize.LinearConstraint(columns.uses.astype(float), -np.inf, room + 0.5),
  ]
  while True:
    found = optimize.milp(
      objective,
      integrality=1,
      bounds=(0, 1),
      constraints=rows,
      options={'mip_rel_gap': 0, 'time_limit': seconds},
    )
    if found.status == 2:
      return None, math.inf
    if found.status == 1:
      raise TimeoutError(f'seconds={seconds}: no proof yet, a gap of {found.mip_gap}')
    if found.status or found.fun - found.mip_dual_bound > _EQUAL:
      raise RuntimeError(f'no proof: {found.message}, a gap of {found.mip_gap}')
    taken = found.x > 0.5
    if (columns.uses[:, taken].sum(1) <= room).all() and (each @ taken == 1).all():
      return columns.at(taken), found.mip_dual_bound
    # Within the solver's tolerance, but not a choice: the same again without it.
    changed = np.where(taken, 1.0, -1.0)[None]
    rows.append(optimize.LinearConstraint(changed, -np.inf, taken.sum() - 1))
