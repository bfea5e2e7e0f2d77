"""`array_ppa`: power, performance and area of one organisation of one memory array."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from cnnopt_jax.nvm import (
  cells_electrical,
  comparator,
  devices,
  htree,
  precision,
  predecoders,
  structures,
  subarray,
)

Array = structures.Array

MAX_BANK_ASPECT = 10.0


class Breakdown(NamedTuple):
  """Where latency, energy and area come from.

  Latencies in ns along one access; energies in pJ of one predecoder, subarray or tree as named;
  areas in mm^2.

  Attributes:
    mat_area_mm2, subarray_area_mm2: of one.
    htree_latency_ns: one way.
    predecoder_latency_ns, row_decoder_latency_ns, column_decoder_latency_ns,
      bitline_latency_ns, sense_latency_ns, mux_latency_ns, precharge_latency_ns,
      charge_latency_ns, comparator_latency_ns: of one stage each.
    subarray_read_latency_ns, subarray_write_latency_ns, subarray_set_latency_ns,
      subarray_reset_latency_ns, mat_read_latency_ns: sums of them.
    set_pulse_ns, reset_pulse_ns: of the cell.
    htree_read_energy_pj, htree_write_energy_pj: all bits, all branches.
    mat_read_energy_pj, mat_write_energy_pj, mat_set_energy_pj, mat_reset_energy_pj: of one mat.
    predecoder_energy_pj: of one mat.
    subarray_read_energy_pj, subarray_write_energy_pj: of one active subarray, as are
    row_decoder_energy_pj, mux_decoder_energy_pj, cell_read_energy_pj, sense_energy_pj,
      mux_energy_pj, precharge_energy_pj, cell_set_energy_pj, cell_reset_energy_pj.
    mat_leakage_mw: of one mat.
  """
  mat_area_mm2: Array
  subarray_area_mm2: Array
  htree_latency_ns: Array
  predecoder_latency_ns: Array
  row_decoder_latency_ns: Array
  column_decoder_latency_ns: Array
  bitline_latency_ns: Array
  sense_latency_ns: Array
  mux_latency_ns: Array
  precharge_latency_ns: Array
  charge_latency_ns: Array
  comparator_latency_ns: Array
  subarray_read_latency_ns: Array
  subarray_write_latency_ns: Array
  subarray_set_latency_ns: Array
  subarray_reset_latency_ns: Array
  mat_read_latency_ns: Array
  set_pulse_ns: Array
  reset_pulse_ns: Array
  htree_read_energy_pj: Array
  htree_write_energy_pj: Array
  mat_read_energy_pj: Array
  mat_write_energy_pj: Array
  mat_set_energy_pj: Array
  mat_reset_energy_pj: Array
  predecoder_energy_pj: Array
  subarray_read_energy_pj: Array
  subarray_write_energy_pj: Array
  row_decoder_energy_pj: Array
  mux_decoder_energy_pj: Array
  cell_read_energy_pj: Array
  sense_energy_pj: Array
  mux_energy_pj: Array
  precharge_energy_pj: Array
  cell_set_energy_pj: Array
  cell_reset_energy_pj: Array
  mat_leakage_mw: Array


class ArrayPPA(NamedTuple):
  """Figures of one array; every field has the organisation's batch shape, float64.

  Attributes:
    area_mm2: of the bank.
    height_um, width_um: of the bank.
    read_latency_ns, write_latency_ns: from port to port and from port to cell.
    set_latency_ns, reset_latency_ns: of the two writes alone (resistive cells).
    read_energy_pj, write_energy_pj: of one access.
    set_energy_pj, reset_energy_pj: of an access that only sets or resets.
    leakage_mw: of everything.
    valid: whether the organisation can be built, written and read; other fields of an invalid
      one mean nothing.
    breakdown: parts.
  """
  area_mm2: Array
  height_um: Array
  width_um: Array
  read_latency_ns: Array
  write_latency_ns: Array
  set_latency_ns: Array
  reset_latency_ns: Array
  read_energy_pj: Array
  write_energy_pj: Array
  set_energy_pj: Array
  reset_energy_pj: Array
  leakage_mw: Array
  valid: Array
  breakdown: Breakdown


def array_ppa(cell: structures.Cell, technology: structures.Technology,
              organization: structures.Organization, *,
              nvsim_compatible: bool = False) -> ArrayPPA:
  """Evaluates an array: pure, elementwise over any batch shape, differentiable in cell and node.

  The model is NVSim's (Dong, Xu, Xie, Jouppi, "NVSim: a circuit-level performance, energy and
  area model for emerging nonvolatile memory", TCAD 31 (2012)): mats on an H-tree, subarrays with
  drivers sized by logical effort, Horowitz delays, folded layouts. Derivatives hold the discrete
  choices (stages, folds, organisation) fixed.

  Args:
    cell: a cell.
    technology: a technology.
    organization: from `organizations.py`; any batch shape.
    nvsim_compatible: reproduce NVSim's artefacts, listed in `docs/results/nvm_model.md`.

  Returns:
    An `ArrayPPA` of float64, in NumPy unless it is traced. To transform this function, wrap the whole
    expression in `precision.float64()`.
  """
  with precision.float64():
    arguments = jax.tree.map(_as_array, (cell, technology, organization))
    return precision.to_numpy(_array_ppa(*arguments, nvsim_compatible))


def _as_array(leaf):
  array = jnp.asarray(leaf)
  return array.astype(jnp.float64) if jnp.issubdtype(array.dtype, jnp.floating) else array


def evaluate(cell, tech, org, nvsim_compatible) -> ArrayPPA:
  """`array_ppa` without conversions, for programs that are already in float64."""
  p = devices.process(tech)
  model = cells_electrical.cell_model(p, cell, nvsim_compatible)
  sub = subarray.size_subarray(p, tech, cell, model, org, nvsim_compatible)

  # Predecoders stand in the middle of the mat; column predecoders have no wire to drive, so they
  # depend on their bits alone.
  table = predecoders.first_level(p, nvsim_compatible)
  reach = p.wire_c / 2 * (sub.height * org.subarray_rows + sub.width * org.subarray_columns)
  row_blocks = predecoders.block(
      p, table, jnp.stack(predecoders.split_bits(org.row_address_bits)), reach)
  column_table = predecoders.block(p, table, jnp.arange(predecoders.MAX_BLOCK_BITS + 1), 0.0)
  column_bits = jnp.stack([
      bits for degree in (org.mux_senseamp, org.mux_output1, org.mux_output2)
      for bits in predecoders.split_bits(jnp.round(jnp.log2(degree)).astype(int))])
  column_blocks = jax.tree.map(lambda column: column[column_bits], column_table)
  total = lambda part: (getattr(row_blocks, part).sum(axis=0)
                        + getattr(column_blocks, part).sum(axis=0))
  predecode = jnp.maximum(row_blocks.delay.max(axis=0), column_blocks.delay.max(axis=0))
  predecode_energy = total('energy')
  predecode_area = ((row_blocks.height * row_blocks.width).sum(axis=0)
                    + (column_blocks.height * column_blocks.width).sum(axis=0))
  cost = subarray.measure_subarray(p, model, org, sub, cell, row_blocks.rise.max(axis=0),
                                   nvsim_compatible)

  width = sub.width * org.subarray_columns
  height = sub.height * org.subarray_rows
  edge = jnp.sqrt(predecode_area)
  width, height = (jnp.where(width > height, width + edge, width),
                   jnp.where(width > height, height, height + edge))
  compare = comparator.comparator(p, org.tag_bits)
  compare = jax.tree.map(lambda value: jnp.where(org.is_tag, value, 0.0), compare)
  height = height + org.ways * compare.area / width

  tree = htree.htree(p, org, height, width)
  bank_height, bank_width = height * org.mat_rows, width * org.mat_columns
  aspect = jnp.maximum(bank_height / bank_width, bank_width / bank_height)

  active_subarrays = org.active_subarray_rows * org.active_subarray_columns
  active_mats = org.active_mat_rows * org.active_mat_columns
  mats = org.mat_rows * org.mat_columns
  subarrays = org.subarray_rows * org.subarray_columns
  mat_energy = lambda energy, compared: (
      predecode_energy + energy * active_subarrays + compared * compare.energy * org.ways)
  read_energy, write_energy = mat_energy(cost.read_energy, 1), mat_energy(cost.write_energy, 1)
  set_energy, reset_energy = mat_energy(cost.set_energy, 0), mat_energy(cost.reset_energy, 0)
  # A converter burns power while its subarray works; NVSim never switches it off.
  powered = subarrays if nvsim_compatible else (
      subarrays * (active_subarrays / subarrays) * (active_mats / mats))
  mat_leakage = (total('leakage') + cost.leakage * subarrays + cost.converter_leakage * powered
                 + compare.leakage * org.ways)
  read = predecode + cost.read + compare.delay
  tree_write = tree.energy / org.wire_share

  ns, pj, mm2 = 1e-3, 1e-3, 1e-6
  return ArrayPPA(
      area_mm2=bank_height * bank_width * mm2, height_um=bank_height, width_um=bank_width,
      read_latency_ns=(read + 2 * tree.delay) * ns,
      write_latency_ns=(predecode + cost.write + tree.delay) * ns,
      set_latency_ns=(predecode + cost.set + tree.delay) * ns,
      reset_latency_ns=(predecode + cost.reset + tree.delay) * ns,
      read_energy_pj=(read_energy * active_mats + tree.energy) * pj,
      write_energy_pj=(write_energy * active_mats + tree_write) * pj,
      set_energy_pj=(set_energy * active_mats + tree_write) * pj,
      reset_energy_pj=(reset_energy * active_mats + tree_write) * pj,
      leakage_mw=mat_leakage * mats,
      valid=sub.valid & ((aspect <= MAX_BANK_ASPECT) | (org.is_tag == 1)),
      breakdown=Breakdown(
          mat_area_mm2=height * width * mm2, subarray_area_mm2=sub.height * sub.width * mm2,
          htree_latency_ns=tree.delay * ns, predecoder_latency_ns=predecode * ns,
          row_decoder_latency_ns=cost.row_decoder * ns,
          column_decoder_latency_ns=cost.column_decoder * ns,
          bitline_latency_ns=cost.bitline * ns, sense_latency_ns=cost.sense * ns,
          mux_latency_ns=cost.mux * ns, precharge_latency_ns=cost.precharge * ns,
          charge_latency_ns=cost.charge * ns, comparator_latency_ns=compare.delay * ns,
          subarray_read_latency_ns=cost.read * ns, subarray_write_latency_ns=cost.write * ns,
          subarray_set_latency_ns=cost.set * ns, subarray_reset_latency_ns=cost.reset * ns,
          mat_read_latency_ns=read * ns, set_pulse_ns=model.set_pulse * ns,
          reset_pulse_ns=model.reset_pulse * ns, htree_read_energy_pj=tree.energy * pj,
          htree_write_energy_pj=tree_write * pj, mat_read_energy_pj=read_energy * pj,
          mat_write_energy_pj=write_energy * pj, mat_set_energy_pj=set_energy * pj,
          mat_reset_energy_pj=reset_energy * pj, predecoder_energy_pj=predecode_energy * pj,
          subarray_read_energy_pj=cost.read_energy * pj,
          subarray_write_energy_pj=cost.write_energy * pj,
          row_decoder_energy_pj=cost.row_energy * pj,
          mux_decoder_energy_pj=cost.mux_decoder_energy * pj,
          cell_read_energy_pj=cost.cell_read_energy * pj, sense_energy_pj=cost.sense_energy * pj,
          mux_energy_pj=cost.mux_energy * pj, precharge_energy_pj=cost.precharge_energy * pj,
          cell_set_energy_pj=cost.cell_set_energy * pj,
          cell_reset_energy_pj=cost.cell_reset_energy * pj, mat_leakage_mw=mat_leakage))


_array_ppa = jax.jit(evaluate, static_argnums=3)
