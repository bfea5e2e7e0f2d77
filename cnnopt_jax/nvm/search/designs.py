"""`explore_forced`: the best caches, or arrays without tags, of partly forced organisations."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnnopt_jax import precision
from cnnopt_jax.nvm import specs, structures
from cnnopt_jax.nvm.circuit import array, cache
from cnnopt_jax.nvm.search import exploration, factoring, organizations, programs
from cnnopt_jax.nvm.specs import Mode, Target

Counts = tuple[int, int, int, int]


class Forced(NamedTuple):
  """What a search of organisations holds fixed.

  Attributes:
    bank, mat: `(rows, columns, active rows, active columns)` of mats and of subarrays, powers of
      two; None for all that `CACTI_SPACE` has.
    mux: degrees of the three multiplexers, None where free.
    buffering: style of the drivers.
  """

  bank: Counts | None = None
  mat: Counts | None = None
  mux: tuple[int | None, int | None, int | None] = (None, None, None)
  buffering: structures.Buffering = structures.Buffering.LATENCY


@precision.in_float64
def explore_forced(
  cell: structures.Cell,
  technology: structures.Technology,
  spec: specs.CacheSpec,
  mode: Mode,
  targets: Sequence[Target] = tuple(Target),
  *,
  forced: Forced | None = None,
  tag_cell: structures.Cell | None = None,
  name: str = 'cell',
) -> list[exploration.Winner]:
  """Searches the organisations of one cache or array that `forced` leaves.

  Args:
    cell, technology, spec, mode, targets, tag_cell: as in `explore`; `Mode.RAM` has no tags, and a
      hit of it is a read.
    forced: what is fixed in the data array; tags are searched freely.
    name: of the cell in the result.

  Returns:
    Winners in the order of `targets`; one that is not valid could not be built.

  Raises:
    ValueError: if no organisation has that shape.
  """
  if mode is not Mode.RAM:
    specs.validate_spec(spec)
  data = _problem(spec, mode, forced or Forced())
  tech = jax.tree.map(array.as_array, technology)
  bus = jax.tree.map(array.as_array, cache.bank_bus(spec, technology))
  used = jax.tree.map(array.as_array, cell)
  totals = programs.evaluate_arrays(used, tech, data.padded, False)
  size = programs.picked_size(data.padded)
  if mode is Mode.RAM:
    picked, index = programs.pick_alone(totals, size)
    fast = specs.CACHE_MODES.index(Mode.FAST)  # A hit is the slower of data and no tags at all.
    caches = cache.combine(picked, _no_tags(picked), fast, bus)
    caches = caches._replace(
      miss_latency_ns=caches.hit_latency_ns, miss_energy_nj=caches.hit_energy_nj
    )
    tag, tag_index = data, index
  else:
    tag = exploration.problem(spec, Mode.SEQUENTIAL, organizations.TAG_SPACE, True, False)
    tag_used = used if tag_cell is None else jax.tree.map(array.as_array, tag_cell)
    tags = programs.evaluate_arrays(tag_used, tech, tag.padded, False)
    tag_size = programs.picked_size(tag.padded)
    _, best = programs.pick_alone(tags, tag_size)
    mode_index = specs.CACHE_MODES.index(mode)
    index, tag_index, caches = programs.pick_pair(
      totals, tags, best, bus, mode_index, size, tag_size
    )
  index, tag_index, caches = precision.to_numpy((index, tag_index, caches))
  return [
    exploration.Winner(
      name,
      spec.capacity_bytes,
      mode,
      target,
      cache.CacheTotals(*(np.asarray(field)[target].item() for field in caches)),
      organizations.select(data.factored.organizations, index[target]),
      organizations.select(tag.factored.organizations, tag_index[target]),
      technology,
    )
    for target in targets
  ]


def _problem(spec, mode, forced: Forced) -> exploration.Problem:
  """The data arrays of one bank, on the host and on the device."""
  space = organizations.CACTI_SPACE
  counts = range(space.max_mats + 1)
  banks = [(r, c, c, 0) for r in counts for c in counts]
  if forced.bank is not None:
    banks = [_logarithms(forced.bank)]
  mats = [(1, 1, 1, 1)] if forced.mat is None else [_logarithms(forced.mat)]
  degrees = [
    range(space.max_mux + 1) if degree is None else [_log2(degree)] for degree in forced.mux
  ]
  muxes = [(a, b, c) for a in degrees[0] for b in degrees[1] for c in degrees[2]]
  partition, style = organizations.product(banks, mats, muxes, (forced.buffering,))
  org, valid = organizations.resolve_data(spec, mode, partition, style, nvsim_compatible=False)
  if not valid.any():
    raise ValueError(
      f'capacity_bytes={spec.capacity_bytes}, line_bytes={spec.line_bytes}, forced={forced}: no '
      'organisation has that shape; allowed: another capacity, or less that is forced'
    )
  factored = factoring.factor(organizations.select(org, valid))
  return exploration.Problem(factored, programs.pad(factored))


def _logarithms(counts: Counts) -> Counts:
  rows, columns, active_rows, active_columns = map(_log2, counts)
  return rows, columns, active_columns, active_rows


def _log2(power_of_two: int) -> int:
  return int(power_of_two).bit_length() - 1


def _no_tags(data: cache.ArrayTotals) -> cache.ArrayTotals:
  """An array that costs nothing."""
  nothing = jax.tree.map(jnp.zeros_like, data)
  return nothing._replace(valid=jnp.ones_like(data.valid))
