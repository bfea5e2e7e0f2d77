"""One mat: subarrays around their predecoders, and the comparators of a tag array."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from cnnopt_jax.nvm import structures
from cnnopt_jax.nvm.circuit import cell_model, comparator, drivers, predecoders, subarray
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
  valid: Array


class Parts(NamedTuple):
  """What a breakdown adds: the subarray, its cost, predecoding (ps, fJ) and the comparator."""

  sub: subarray.Subarray
  cost: subarray.SubarrayCost
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

  `tables` is `predecoders.tables`, the part that no organisation changes.
  """
  sub = subarray.size_subarray(p, tech, cell, model, org, decoders, nvsim_compatible)

  # Predecoders stand in the middle of the mat; column predecoders have no wire to drive, so they
  # depend on their bits alone.
  first_levels, column_table = tables
  reach = p.wire_c / 2 * (sub.height * org.subarray_rows + sub.width * org.subarray_columns)
  row_blocks = predecoders.block(
    p, first_levels, jnp.stack(predecoders.split_bits(org.row_address_bits)), reach
  )
  column_bits = jnp.stack(
    [
      bits
      for degree in (org.mux_senseamp, org.mux_output1, org.mux_output2)
      for bits in predecoders.split_bits(jnp.round(jnp.log2(degree)).astype(int))
    ]
  )
  column_blocks = jax.tree.map(lambda column: column[column_bits], column_table)
  total = lambda part: part(row_blocks).sum(axis=0) + part(column_blocks).sum(axis=0)
  predecode = jnp.maximum(row_blocks.delay.max(axis=0), column_blocks.delay.max(axis=0))
  predecode_energy = total(lambda block: block.energy)
  cost = subarray.measure_subarray(
    p, model, org, sub, cell, row_blocks.rise.max(axis=0), nvsim_compatible
  )

  width = sub.width * org.subarray_columns
  height = sub.height * org.subarray_rows
  edge = jnp.sqrt(total(lambda block: block.height * block.width))
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
  return Mat(
    height=height,
    width=width,
    read=predecode + cost.read + compare.delay,
    write=predecode + cost.write,
    set=predecode + cost.set,
    reset=predecode + cost.reset,
    column_decoder=cost.column_decoder,
    read_energy=predecode_energy + cost.read_energy * active + compare_energy,
    write_energy=predecode_energy + cost.write_energy * active + compare_energy,
    set_energy=predecode_energy + cost.set_energy * active,
    reset_energy=predecode_energy + cost.reset_energy * active,
    leakage=(
      total(lambda block: block.leakage) + cost.leakage * subarrays + compare.leakage * org.ways
    ),
    converter_leakage=cost.converter_leakage * subarrays,
    valid=sub.valid,
  ), Parts(sub, cost, predecode, predecode_energy, compare)
