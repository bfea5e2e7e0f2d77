"""One jitted program per kind of array: every organisation, every target, fixed shapes.

Distinct drivers, distinct mats and banks are evaluated in turn, each in chunks of a fixed size
inside one program; only the number of chunks is data. So neither cells nor technologies,
capacities or modes recompile it, and padding costs less than a chunk.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnnopt_jax.nvm import specs, structures
from cnnopt_jax.nvm.circuit import array, cache, cell_model, mats, predecoders, subarray
from cnnopt_jax.nvm.search import factoring, metrics
from cnnopt_jax.nvm.technology import devices

Array = structures.Array


# Chunk sizes and least capacities of the padded buffers: drivers, mats, organisations. A buffer
# that overflows doubles, which compiles once more.
_CHUNKS = (512, 2048, 4096)
_CAPACITIES = (4096, 32768, 163840)


class Padded(NamedTuple):
  """A `factoring.Factored` padded to fixed shapes, with its true counts (drivers, mats, banks)."""

  factored: factoring.Factored
  counts: tuple[int, int, int]


def pad(factored: factoring.Factored) -> Padded:
  """Pads with zeros and moves to the device; call inside `precision.float64()`."""
  counts = (len(factored.requests.role), len(factored.mats.rows), len(factored.mat_index))
  sizes = [_bucket(count, least) for count, least in zip(counts, _CAPACITIES)]

  def padded(tree, size):
    extend = lambda x: np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, size - x.shape[-1])], 'edge')
    # Counts are whole and below 2^24: half the memory as float32, and exact.
    narrow = lambda x: x.astype(np.float32) if x.dtype == np.float64 else x
    return jax.tree.map(lambda x: jnp.asarray(narrow(extend(np.asarray(x)))), tree)

  def without(org, names):
    return org.replace(**{name: None for name in names})

  banks = without(factored.organizations, factoring.MAT_ONLY_FIELDS)
  mats_ = without(factored.mats, factoring.BANK_ONLY_FIELDS)
  return Padded(
    factoring.Factored(
      padded(factored.requests, sizes[0]),
      padded(factored.driver_index, sizes[1]),
      padded(mats_, sizes[1]),
      padded(factored.mat_index, sizes[2]),
      padded(banks, sizes[2]),
    ),
    counts,
  )


def _bucket(count: int, size: int) -> int:
  while size < count:
    size *= 2
  return size


def picked_size(padded: Padded) -> int:
  """A fixed size that holds the set's organisations, for the functions that pick."""
  return _bucket(padded.counts[2], 32768)


def _in_chunks(function: Callable[[Any], Any], inputs: Any, count: Array, chunk: int) -> Any:
  """`function` over the last axis, chunk by chunk up to `count`; the rest stays zero."""
  size = jax.tree.leaves(inputs)[0].shape[-1]
  widen = lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x

  def piece(i):
    return jax.tree.map(
      lambda x: widen(jax.lax.dynamic_slice_in_dim(x, i * chunk, chunk, axis=-1)), inputs
    )

  buffers = jax.tree.map(
    lambda x: jnp.zeros(x.shape[:-1] + (size,), x.dtype),
    jax.eval_shape(function, jax.eval_shape(piece, 0)),
  )

  def step(i, buffers):
    return jax.tree.map(
      lambda buffer, x: jax.lax.dynamic_update_slice_in_dim(buffer, x, i * chunk, axis=-1),
      buffers,
      function(piece(i)),
    )

  return jax.lax.fori_loop(0, (count + chunk - 1) // chunk, step, buffers)


@functools.partial(jax.jit, static_argnums=3)
def evaluate_arrays(
  cell: structures.Cell, tech: structures.Technology, padded: Padded, nvsim_compatible: bool
) -> cache.ArrayTotals:
  """Totals of all organisations of a factored set, `[N]`; padding is not valid."""
  factored, counts = padded
  p = devices.process(tech)
  model = cell_model.cell_model(p, cell, nvsim_compatible)
  tables = predecoders.tables(p, nvsim_compatible)
  drivers = _in_chunks(
    lambda request: subarray.size_drivers(p, cell, model, request),
    factored.requests,
    counts[0],
    _CHUNKS[0],
  )

  def evaluate_mats(piece):
    index, org = piece
    decoders = jax.tree.map(lambda field: jnp.take(field, index, axis=-1), drivers)
    return mats.mat(p, tech, cell, model, tables, org, decoders, nvsim_compatible)[0]

  all_mats = _in_chunks(
    evaluate_mats, (factored.driver_index, factored.mats), counts[1], _CHUNKS[1]
  )

  def evaluate_banks(piece):
    index, org = piece
    mat = jax.tree.map(lambda field: field[index], all_mats)
    bank = array.bank_of_mats(p, org, mat, nvsim_compatible)
    return cache.array_totals(bank, mat.read * array.NS, mat.column_decoder * array.NS)

  totals = _in_chunks(
    evaluate_banks, (factored.mat_index, factored.organizations), counts[2], _CHUNKS[2]
  )
  return totals._replace(valid=totals.valid & (jnp.arange(totals.valid.size) < counts[2]))


@functools.partial(jax.jit, static_argnums=1)
def pick_alone(totals: cache.ArrayTotals, size: int) -> tuple[cache.ArrayTotals, Array]:
  """The best of the first `size` arrays for each target on its own: totals and indices `[9]`."""
  totals = jax.tree.map(lambda field: field[:size], totals)
  best = jnp.argmin(metrics.array_metrics(totals), axis=-1)
  return _pick(totals, best), best


# Targets that do not split into one of the data array and one of the tags.
PRODUCTS = (specs.Target.READ_EDP, specs.Target.WRITE_EDP, specs.Target.EDAP)
ROUNDS = 1  # Of choosing each side anew; a second one changes little.


@functools.partial(jax.jit, static_argnums=(5, 6))
def pick_pair(
  data: cache.ArrayTotals,
  tags: cache.ArrayTotals,
  best_tags: Array,
  bus: cache.Bus,
  mode: Array,
  data_size: int,
  tag_size: int,
) -> tuple[Array, Array, cache.CacheTotals]:
  """The best pair of data and tag array for each target.

  Sums and extrema split, so all data arrays with the tag arrays of `best_tags` hold their optimum.
  Products start from the best of those pairs; then each side in turn is chosen anew among all
  arrays beside the other. That ends in a local optimum, within 3 % of brute force where tested.

  Args:
    data, tags: totals of all arrays.
    best_tags: index of the best tag array for each target on its own, `[9]`.
    bus, mode: as in `cache.combine`.
    data_size, tag_size: how many may be valid.

  Returns:
    Index of the data array `[9]`, of the tag array `[9]`, and the caches they make `[9]`.
  """
  data, tags = (
    jax.tree.map(lambda field, size=size: field[:size], totals)
    for totals, size in ((data, data_size), (tags, tag_size))
  )

  def best_with(tag):
    values = metrics.cache_metrics(cache.combine(data, tag, mode, bus))
    return jnp.argmin(values, axis=-1), values.min(axis=-1)

  index, value = jax.lax.map(best_with, _pick(tags, best_tags))  # [candidates, targets]
  candidate = jnp.argmin(value, axis=0)
  index = index[candidate, jnp.arange(len(specs.Target))]
  tag_index = best_tags[candidate]

  def metric(target, data, tag):
    return metrics.cache_metrics(cache.combine(data, tag, mode, bus))[target]

  for target in PRODUCTS:
    for _ in range(ROUNDS):
      best_tag = jnp.argmin(metric(target, _pick(data, index[target]), tags))
      tag_index = tag_index.at[target].set(best_tag)
      best_data = jnp.argmin(metric(target, data, _pick(tags, tag_index[target])))
      index = index.at[target].set(best_data)
  return index, tag_index, cache.combine(_pick(data, index), _pick(tags, tag_index), mode, bus)


@functools.partial(jax.jit, static_argnums=4)
def pick_apart(
  data: cache.ArrayTotals, tags: cache.ArrayTotals, bus: cache.Bus, mode: Array, size: int
) -> tuple[Array, cache.CacheTotals]:
  """Data and tag arrays chosen independently by the same target, as NVSim does.

  EDAP, which NVSim lacks, is chosen as the least of all data arrays beside its own tag array.

  Args:
    data: totals of all data arrays.
    tags: totals of the best tag array for each target, `[9]`.
    bus, mode: as in `cache.combine`.
    size: how many data arrays may be valid.

  Returns:
    Index of the data array `[9]`, and the caches `[9]`.
  """
  data = jax.tree.map(lambda field: field[:size], data)
  index = jnp.argmin(metrics.array_metrics(data), axis=-1)
  jointly = metrics.cache_metrics(cache.combine(data, _pick(tags, specs.Target.EDAP), mode, bus))
  index = index.at[specs.Target.EDAP].set(jnp.argmin(jointly[specs.Target.EDAP]))
  return index, cache.combine(_pick(data, index), tags, mode, bus)


def _pick(tree, index):
  return jax.tree.map(lambda field: field[index], tree)
