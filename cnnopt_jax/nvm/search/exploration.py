"""`explore`: the best caches of every cell, capacity and mode, for every target, as a table."""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from cnnopt_jax import precision
from cnnopt_jax.nvm import specs, structures
from cnnopt_jax.nvm.circuit import array, cache
from cnnopt_jax.nvm.search import factoring, metrics, organizations, programs, tag_wires
from cnnopt_jax.nvm.specs import Mode, Target


class Winner(NamedTuple):
  """One row of an exploration: the best cache for one target.

  Attributes:
    cell: its name.
    capacity_bytes: of data, all banks.
    mode: access mode.
    target: what was minimised.
    totals: `CacheTotals` of floats; not valid if nothing could be built.
    data_organization, tag_organization: of one bank, for `cache_ppa` (scalars).
    tag_technology: of the tags; the data's but for what `tag_wires` does under NVSim's rules.
  """

  cell: str
  capacity_bytes: int
  mode: Mode
  target: Target
  totals: cache.CacheTotals
  data_organization: structures.Organization
  tag_organization: structures.Organization
  tag_technology: structures.Technology

  @property
  def edap(self) -> float:
    """Mean energy of read and write times mean latency times area, nJ ns mm^2."""
    return metrics.edap(self.totals)


class Problem(NamedTuple):
  """Enumerated organisations of one kind of array: on the host, and padded on the device."""

  factored: factoring.Factored
  padded: programs.Padded


def problem(
  spec: specs.CacheSpec,
  mode: Mode,
  space: organizations.Space,
  is_tag: bool,
  nvsim_compatible: bool,
) -> Problem:
  """Enumerates the arrays of a cache's banks; call inside `precision.float64()`.

  Integers only, whatever the cell or the technology, so it is done once per bank and mode.
  """
  _, bank = specs.split_capacity(spec.capacity_bytes)
  return _problem(spec._replace(capacity_bytes=bank), mode, space, is_tag, nvsim_compatible)


@functools.lru_cache(maxsize=64)
def _problem(spec, mode, space, is_tag, nvsim_compatible):
  enumerate_ = organizations.tag_organizations if is_tag else organizations.data_organizations
  factored = factoring.factor(enumerate_(spec, mode, space, nvsim_compatible=nvsim_compatible))
  return Problem(factored, programs.pad(factored))


@precision.in_float64
def explore(
  cells: Mapping[str, structures.Cell],
  technology: structures.Technology,
  capacities_bytes: Sequence[int],
  modes: Sequence[Mode] = specs.CACHE_MODES,
  targets: Sequence[Target] = tuple(Target),
  *,
  line_bytes: int = 64,
  associativity: int = 16,
  tag_cell: structures.Cell | None = None,
  space: organizations.Space = organizations.CACTI_SPACE,
  tag_space: organizations.Space = organizations.TAG_SPACE,
  nvsim_compatible: bool = False,
) -> list[Winner]:
  """Searches all organisations of all caches.

  By default data and tag array are chosen together (`programs.pick_pair`). With
  `nvsim_compatible` each is chosen alone by the same target, as NVSim does, and tags choose their
  wires (`tag_wires`).

  Args:
    cells: by name.
    technology: of all arrays.
    capacities_bytes: of data; see `specs.split_capacity` for those that are no power of
      two.
    modes: access modes.
    targets: what to minimise.
    line_bytes, associativity: of all caches.
    tag_cell: of all tag arrays; by default a cache's tags are made of its data's cell.
    space, tag_space: what to enumerate.
    nvsim_compatible: as in `array_ppa`.

  Returns:
    Winners in the order of cells, capacities, modes, targets.

  Raises:
    ValueError: if a cache's shape is impossible.
  """
  pending = []
  tech = jax.tree.map(array.as_array, technology)
  tag_technologies = tag_wires.variants(technology) if nvsim_compatible else [technology]
  tag_tech = jax.tree.map(array.as_array, tag_technologies[0])
  for name, cell in cells.items():
    cell = jax.tree.map(array.as_array, cell)
    for capacity in capacities_bytes:
      spec = specs.CacheSpec(capacity, line_bytes, associativity)
      specs.validate_spec(spec)
      bus = jax.tree.map(array.as_array, cache.bank_bus(spec, technology))
      tags = {}
      for mode in modes:
        tag_mode = mode if nvsim_compatible else Mode.SEQUENTIAL  # Honest tags know no mode.
        tag = problem(spec, tag_mode, tag_space, True, nvsim_compatible)
        if tag_mode not in tags:
          used = cell if tag_cell is None else jax.tree.map(array.as_array, tag_cell)
          totals = programs.evaluate_arrays(used, tag_tech, tag.padded, nvsim_compatible)
          tags[tag_mode] = (
            used,
            totals,
            *programs.pick_alone(totals, programs.picked_size(tag.padded)),
          )
        used, totals, best, best_index = tags[tag_mode]
        data = problem(spec, mode, space, False, nvsim_compatible)
        data_totals = programs.evaluate_arrays(cell, tech, data.padded, nvsim_compatible)
        mode_index, size = specs.CACHE_MODES.index(mode), programs.picked_size(data.padded)
        wiring = np.zeros(len(Target), int)
        if nvsim_compatible:
          best, wiring = tag_wires.refine(
            used,
            tag_technologies,
            organizations.select(tag.factored.organizations, np.asarray(best_index)),
          )
          index, caches = programs.pick_apart(data_totals, best, bus, mode_index, size)
          found = index, best_index, caches
        else:
          found = programs.pick_pair(
            data_totals, totals, best_index, bus, mode_index, size, programs.picked_size(tag.padded)
          )
        pending.append((name, capacity, mode, data, tag, wiring, found))
  # Everything above is queued on the device; only now is anything waited for.
  return [winner for entry in pending for winner in _winners(*entry, targets, tag_technologies)]


def _winners(name, capacity, mode, data, tag, wiring, found, targets, tag_technologies):
  """Reads one search's result back."""
  index, tag_index, totals = precision.to_numpy(found)
  wiring = np.asarray(wiring)
  for target in targets:
    row = cache.CacheTotals(*(field[target].item() for field in totals))
    yield Winner(
      name,
      capacity,
      mode,
      target,
      row,
      organizations.select(data.factored.organizations, index[target]),
      organizations.select(tag.factored.organizations, tag_index[target]),
      tag_technologies[wiring[target]],
    )
