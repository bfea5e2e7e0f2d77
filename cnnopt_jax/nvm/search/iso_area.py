"""The largest cache that fits an area."""

from typing import Any

from cnnopt_jax.nvm import specs, structures
from cnnopt_jax.nvm.search import exploration, tuning

MIB = 1 << 20
# Capacities are tuned this many at a time: their searches are queued together.
_AT_ONCE = 4


def largest_within_area(
  cell: structures.Cell,
  technology: structures.Technology,
  area_mm2: float,
  *,
  least_mib: int = 1,
  name: str = 'cell',
  **options: Any,
) -> exploration.Winner | None:
  """The EDAP-tuned cache of the most whole MiB whose area is at most `area_mm2`.

  A tuned cache's area does not grow with every MiB: eight in one bank can be smaller than seven in
  seven, and the winner of another target may be chosen. So the search comes from above: from the
  largest capacity that any organisation fits into the area (`_candidates`) down to the first one
  whose tuned cache does.

  Args:
    cell, technology: as in `edap_tuned`.
    area_mm2: what there is.
    least_mib: the smallest capacity looked at.
    name: of the cell in the result.
    **options: of `edap_tuned`.

  Returns:
    The cache; None if none of at least `least_mib` fits.

  Raises:
    ValueError: for a `least_mib` below 1 or an area that is not finite.
  """
  if least_mib < 1:
    raise ValueError(f'least_mib={least_mib}; allowed: at least 1')
  if not 0 <= area_mm2 < float('inf'):
    raise ValueError(f'area_mm2={area_mm2}; allowed: a finite number of at least 0')
  candidates = _candidates(cell, technology, area_mm2, least_mib, options)
  for start in range(0, len(candidates), _AT_ONCE):
    capacities = [mib * MIB for mib in candidates[start : start + _AT_ONCE]]
    found = tuning.edap_tuned({name: cell}, technology, capacities, **options)
    fitting = [winner for winner in found.values() if winner.totals.area_mm2 <= area_mm2]
    if fitting:
      return max(fitting, key=lambda winner: winner.capacity_bytes)
  return None


def _candidates(cell, technology, area_mm2, least_mib, options) -> list[int]:
  """Whole MiB that could fit, the most first: cells alone do, and banks of the least area do.

  All banks of a cache are alike, so no cache is smaller than its number of banks times the smallest
  organisation of one.
  """
  bits_mm2 = 8 * MIB * cell.area_f2 * (float(technology.feature_nm) * 1e-6) ** 2  # F in mm.
  most = int(area_mm2 / bits_mm2)
  sizes = range(most, least_mib - 1, -1)
  banks = {mib: specs.split_capacity(mib * MIB) for mib in sizes}
  least = {
    winner.capacity_bytes: winner.totals.area_mm2
    for winner in exploration.explore(
      {'cell': cell},
      technology,
      sorted({bank for _, bank in banks.values()}),
      targets=[specs.Target.AREA],
      **options,
    )
    if winner.totals.valid
  }
  # Rounding must not exclude a cache that fits exactly.
  allowed = area_mm2 * (1 + 1e-9)
  fits = lambda count, bank: bank in least and count * least[bank] <= allowed
  return [mib for mib in sizes if fits(*banks[mib])]
