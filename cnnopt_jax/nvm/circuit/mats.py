"""One mat: subarrays around their predecoders, and the comparators of a tag array."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cnnopt_jax.nvm import structures
from cnnopt_jax.nvm.circuit import (
  cell_model,
  comparator,
  drivers,
  predecoders,
  subarray,
  subarray_cost,
)
from cnnopt_jax.nvm.technology import devices

Array = structures.Array


class Mat(NamedTuple):
  """What a bank needs to know of its mats; um, ps, fJ, mW.

  Attributes:
    height, width: um.
    read, write, set, reset: latencies, ps.
    column_decoder: of them, ps.
    read_energy, write_energy, set_energy, reset_energy: of one access to one mat, fJ.
    leakage: without the converters, mW.
    converter_leakage: of all current-to-voltage converters, mW.
    refresh: power of opening every row of every subarray once in the cell's retention time, mW.
    valid: whether it can be built, written and read.
  """

  height: Array
  width: Array
  read: Array
  write: Array
  set: Array
  reset: Array
  column_decoder: Array
  read_energy: Array
  write_energy: Array
  set_energy: Array
  reset_energy: Array
  leakage: Array
  converter_leakage: Array
  refresh: Array
  valid: Array


class Predecoding(NamedTuple):
  """All predecoders of a mat: delay and rise of its slowest rows', ps; fJ; um2; mW."""

  delay: Array
  row_rise: Array
  energy: Array
  area: Array
  leakage: Array


class Parts(NamedTuple):
  """What a breakdown adds: the subarray, its cost, predecoding (ps, fJ) and the comparator."""

  sub: subarray.Subarray
  cost: subarray_cost.SubarrayCost
  predecode: Array
  predecode_energy: Array
  compare: comparator.Comparator


def mat(
  p: devices.Process,
  tech: structures.Technology,
  cell: structures.Cell,
  model: cell_model.CellModel,
  tables: tuple[predecoders.FirstLevel, predecoders.Block],
  org: structures.Organization,
  decoders: drivers.Decoder,
  nvsim_compatible: bool,
) -> tuple[Mat, Parts]:
  """Evaluates a mat around the drivers of its subarrays (`[5, ...]`).

  `tables` is `predecoders.tables`, the part that no organisation changes. An organisation counts
  columns in bits; here they become cells.
  """
  org = dataclasses.replace(org, columns=cell_model.cells_across(org.columns, model.bits))
  sub = subarray.size_subarray(p, tech, cell, model, org, decoders, nvsim_compatible)

  # Predecoders stand in the middle of the mat.
  reach = p.wire_c / 2 * (sub.height * org.subarray_rows + sub.width * org.subarray_columns)
  predecode = _predecode(p, tables, org, reach)
  cost = subarray_cost.measure_subarray(
    p, model, org, sub, cell, predecode.row_rise, nvsim_compatible
  )

  width = sub.width * org.subarray_columns
  height = sub.height * org.subarray_rows
  edge = jnp.sqrt(predecode.area)
  width, height = (
    jnp.where(width > height, width + edge, width),
    jnp.where(width > height, height, height + edge),
  )
  compare = comparator.comparator(p, org.tag_bits)
  compare = jax.tree.map(lambda value: jnp.where(org.is_tag == 1, value, 0.0), compare)
  height = height + org.ways * compare.area / width

  active = org.active_subarray_rows * org.active_subarray_columns
  subarrays = org.subarray_rows * org.subarray_columns
  compare_energy = compare.energy * org.ways
  refreshed = model.retention > 0
  retention = jnp.where(refreshed, model.retention, 1.0)
  row_energy = cost.refresh_energy + predecode.energy
  # All subarrays refresh side by side; one that has no time for anything else is no memory.
  in_time = ~refreshed | (org.rows * (predecode.delay + cost.refresh_time) < 1e6 * retention)
  return Mat(
    height=height,
    width=width,
    read=predecode.delay + cost.read + compare.delay,
    write=predecode.delay + cost.write,
    set=predecode.delay + cost.set,
    reset=predecode.delay + cost.reset,
    column_decoder=cost.column_decoder,
    read_energy=predecode.energy + cost.read_energy * active + compare_energy,
    write_energy=predecode.energy + cost.write_energy * active + compare_energy,
    set_energy=predecode.energy + cost.set_energy * active,
    reset_energy=predecode.energy + cost.reset_energy * active,
    leakage=predecode.leakage + cost.leakage * subarrays + compare.leakage * org.ways,
    converter_leakage=cost.converter_leakage * subarrays,
    # fJ per us are 1e-6 mW.
    refresh=jnp.where(refreshed, 1e-6 * subarrays * org.rows * row_energy / retention, 0.0),
    valid=sub.valid & in_time,
  ), Parts(sub, cost, predecode.delay, predecode.energy, compare)


def _predecode(
  p: devices.Process,
  tables: tuple[predecoders.FirstLevel, predecoders.Block],
  org: structures.Organization,
  reach: Array,
) -> Predecoding:
  """Predecoders of rows, which drive wires of `reach` fF, and of the three multiplexers."""
  first_levels, column_table = tables
  rows = predecoders.block(
    p, first_levels, jnp.stack(predecoders.split_bits(org.row_address_bits)), reach
  )
  # Those of columns have no wire to drive, so they depend on their bits alone.
  column_bits = jnp.stack(
    [
      bits
      for degree in (org.mux_senseamp, org.mux_output1, org.mux_output2)
      for bits in predecoders.split_bits(jnp.round(jnp.log2(degree)).astype(int))
    ]
  )
  columns = jax.tree.map(lambda column: column[column_bits], column_table)
  return Predecoding(
    delay=jnp.maximum(rows.delay.max(axis=0), columns.delay.max(axis=0)),
    row_rise=rows.rise.max(axis=0),
    energy=rows.energy.sum(axis=0) + columns.energy.sum(axis=0),
    area=(rows.height * rows.width).sum(axis=0) + (columns.height * columns.width).sum(axis=0),
    leakage=rows.leakage.sum(axis=0) + columns.leakage.sum(axis=0),
  )
