"""EDAP-optimal tuning as in DeepNVM, and the Pareto set of a cache."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from cnnopt_jax import pareto, precision
from cnnopt_jax.nvm import specs, structures
from cnnopt_jax.nvm.circuit import array, cache
from cnnopt_jax.nvm.search import exploration, organizations, programs
from cnnopt_jax.nvm.specs import Mode, Target

NVSIM_TARGETS = tuple(target for target in Target if target != Target.EDAP)
OBJECTIVES = (
  'hit_latency_ns',
  'write_latency_ns',
  'hit_energy_nj',
  'write_energy_nj',
  'leakage_mw',
  'area_mm2',
)


def edap_tuned(
  cells: Mapping[str, structures.Cell],
  technology: structures.Technology,
  capacities_bytes: Sequence[int],
  modes: Sequence[Mode] = specs.CACHE_MODES,
  **options: Any,
) -> dict[tuple[str, int], exploration.Winner]:
  """The cache of least energy-delay-area product among the winners of eight targets and all modes.

  This is DeepNVM's algorithm (Inci et al., DATE 2020; arXiv 2012.04559): it never optimises EDAP
  itself, it picks by it. `explore` with `Target.EDAP` finds the true optimum of a mode.

  Args:
    cells, technology, capacities_bytes, modes: as in `explore`.
    **options: of `explore`.

  Returns:
    `{(cell, capacity in bytes): winner}`; a cache that cannot be built is left out.
  """
  best: dict[tuple[str, int], exploration.Winner] = {}
  for row in exploration.explore(
    cells, technology, capacities_bytes, modes, NVSIM_TARGETS, **options
  ):
    key = row.cell, row.capacity_bytes
    if row.totals.valid and (key not in best or row.edap < best[key].edap):
      best[key] = row
  return best


@precision.in_float64
def pareto_set(
  cell: structures.Cell,
  technology: structures.Technology,
  spec: specs.CacheSpec,
  mode: Mode,
  objectives: Sequence[str] = OBJECTIVES,
  *,
  tag_cell: structures.Cell | None = None,
  space: organizations.Space = organizations.CACTI_SPACE,
  nvsim_compatible: bool = False,
) -> tuple[cache.CacheTotals, structures.Organization]:
  """All data organisations that no other one beats in every objective.

  The tag array is the one of least EDAP on its own.

  Args:
    cell, technology, spec, mode, tag_cell, space, nvsim_compatible: as in `explore`.
    objectives: fields of `CacheTotals` to keep small.

  Returns:
    Totals `[P]` and data organisations `[P]`, sorted by the first objective.
  """
  specs.validate_spec(spec)
  cell, tag_cell, tech = jax.tree.map(array.as_array, (cell, tag_cell or cell, technology))
  tag_mode = mode if nvsim_compatible else Mode.SEQUENTIAL
  tag = exploration.problem(spec, tag_mode, organizations.TAG_SPACE, True, nvsim_compatible)
  data = exploration.problem(spec, mode, space, False, nvsim_compatible)
  tags, _ = programs.pick_alone(
    programs.evaluate_arrays(tag_cell, tech, tag.padded, nvsim_compatible),
    programs.picked_size(tag.padded),
  )
  totals = programs.evaluate_arrays(cell, tech, data.padded, nvsim_compatible)
  caches = precision.to_numpy(
    cache.combine(
      totals,
      jax.tree.map(lambda field: field[Target.EDAP], tags),
      specs.CACHE_MODES.index(mode),
      cache.bank_bus(spec, technology),
    )
  )
  candidates = np.flatnonzero(caches.valid)
  values = np.stack([getattr(caches, name)[candidates] for name in objectives], axis=-1)
  chosen = candidates[pareto.non_dominated(values)]
  chosen = chosen[np.argsort(getattr(caches, objectives[0])[chosen], kind='stable')]
  return (
    cache.CacheTotals(*(field[chosen] for field in caches)),
    organizations.select(data.factored.organizations, chosen),
  )
