"""`array_ppa`: power, performance and area of one organisation of one memory array."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from cnnopt_jax import compilation, precision
from cnnopt_jax.nvm import structures
from cnnopt_jax.nvm.circuit import cell_model, htree, mats, predecoders, subarray
from cnnopt_jax.nvm.technology import devices

Array = structures.Array

MAX_BANK_ASPECT = 10.0
NS, PJ, MM2 = 1e-3, 1e-3, 1e-6  # From ps, fJ and um^2.


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
    htree_leakage_mw, mat_leakage_mw: of the tree and of one mat.
    refresh_mw: of all cells, in the total of `leakage_mw`.
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
  htree_leakage_mw: Array
  mat_leakage_mw: Array
  refresh_mw: Array


class ArrayPPA(NamedTuple):
  """Figures of one array; every field has the organisation's batch shape, float64.

  Attributes:
    area_mm2: of the bank.
    height_um, width_um: of the bank.
    read_latency_ns, write_latency_ns: from port to port and from port to cell.
    set_latency_ns, reset_latency_ns: of the two writes alone (resistive cells).
    read_energy_pj, write_energy_pj: of one access.
    set_energy_pj, reset_energy_pj: of an access that only sets or resets.
    leakage_mw: of everything, refresh included.
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


def array_ppa(
  cell: structures.Cell,
  technology: structures.Technology,
  organization: structures.Organization,
  *,
  nvsim_compatible: bool = False,
) -> ArrayPPA:
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
    An `ArrayPPA` of float64, in NumPy unless it is traced. To transform this function, wrap the
    whole expression in `precision.float64()`.
  """
  with precision.float64():
    arguments = jax.tree.map(as_array, (cell, technology, organization))
    return precision.to_numpy(_array_ppa(*arguments, nvsim_compatible))


def as_array(leaf):
  """A JAX array: float64 if it holds floats, else as it is."""
  array = jnp.asarray(leaf)
  return array.astype(jnp.float64) if jnp.issubdtype(array.dtype, jnp.floating) else array


def array_model(
  cell: structures.Cell,
  tech: structures.Technology,
  org: structures.Organization,
  nvsim_compatible: bool,
) -> ArrayPPA:
  """`array_ppa` without conversions, for programs that are already in float64."""
  p = devices.process(tech)
  model = cell_model.cell_model(p, cell, nvsim_compatible)
  decoders = subarray.size_drivers(p, cell, model, subarray.driver_requests(org))
  tables = predecoders.tables(p, nvsim_compatible)
  mat, parts = mats.mat(p, tech, cell, model, tables, org, decoders, nvsim_compatible)
  bank = bank_of_mats(p, org, mat, nvsim_compatible)
  return bank._replace(breakdown=_breakdown(p, model, org, mat, parts, nvsim_compatible))


def bank_of_mats(
  p: devices.Process, org: structures.Organization, mat: mats.Mat, nvsim_compatible: bool
) -> ArrayPPA:
  """Puts mats on an H-tree; the result lacks its breakdown."""
  tree = htree.htree(p, org, mat.height, mat.width)
  tree_write = tree.energy / org.wire_share
  height = mat.height * org.mat_rows + tree.height
  width = mat.width * org.mat_columns + tree.width
  aspect = jnp.maximum(height / width, width / height)
  count = org.mat_rows * org.mat_columns
  active = org.active_mat_rows * org.active_mat_columns
  # A converter burns power while its subarray works; NVSim never switches it off.
  powered = (
    count
    if nvsim_compatible
    else active
    * (
      org.active_subarray_rows
      * org.active_subarray_columns
      / (org.subarray_rows * org.subarray_columns)
    )
  )
  return ArrayPPA(
    area_mm2=height * width * MM2,
    height_um=height,
    width_um=width,
    read_latency_ns=(mat.read + 2 * tree.delay) * NS,
    write_latency_ns=(mat.write + tree.delay) * NS,
    set_latency_ns=(mat.set + tree.delay) * NS,
    reset_latency_ns=(mat.reset + tree.delay) * NS,
    read_energy_pj=(mat.read_energy * active + tree.energy) * PJ,
    write_energy_pj=(mat.write_energy * active + tree_write) * PJ,
    set_energy_pj=(mat.set_energy * active + tree_write) * PJ,
    reset_energy_pj=(mat.reset_energy * active + tree_write) * PJ,
    leakage_mw=(
      mat.leakage * count + mat.converter_leakage * powered + tree.leakage + mat.refresh * count
    ),
    valid=mat.valid & ((aspect <= MAX_BANK_ASPECT) | (org.is_tag == 1)),
    breakdown=None,  # type: ignore[arg-type]  # `array_model` adds it.
  )


def _breakdown(p, model, org, mat, parts, nvsim_compatible):
  """Converts parts to the units of `Breakdown`."""
  sub, cost, predecode, predecode_energy, compare = parts
  tree = htree.htree(p, org, mat.height, mat.width)
  powered = (
    1.0
    if nvsim_compatible
    else (
      org.active_mat_rows
      * org.active_mat_columns
      * org.active_subarray_rows
      * org.active_subarray_columns
      / (org.mat_rows * org.mat_columns * org.subarray_rows * org.subarray_columns)
    )
  )
  return Breakdown(
    mat_area_mm2=mat.height * mat.width * MM2,
    subarray_area_mm2=sub.height * sub.width * MM2,
    htree_latency_ns=tree.delay * NS,
    predecoder_latency_ns=predecode * NS,
    row_decoder_latency_ns=cost.row_decoder * NS,
    column_decoder_latency_ns=cost.column_decoder * NS,
    bitline_latency_ns=cost.bitline * NS,
    sense_latency_ns=cost.sense * NS,
    mux_latency_ns=cost.mux * NS,
    precharge_latency_ns=cost.precharge * NS,
    charge_latency_ns=cost.charge * NS,
    comparator_latency_ns=compare.delay * NS,
    subarray_read_latency_ns=cost.read * NS,
    subarray_write_latency_ns=cost.write * NS,
    subarray_set_latency_ns=cost.set * NS,
    subarray_reset_latency_ns=cost.reset * NS,
    mat_read_latency_ns=mat.read * NS,
    set_pulse_ns=model.set_pulse * NS,
    reset_pulse_ns=model.reset_pulse * NS,
    htree_read_energy_pj=tree.energy * PJ,
    htree_write_energy_pj=tree.energy / org.wire_share * PJ,
    mat_read_energy_pj=mat.read_energy * PJ,
    mat_write_energy_pj=mat.write_energy * PJ,
    mat_set_energy_pj=mat.set_energy * PJ,
    mat_reset_energy_pj=mat.reset_energy * PJ,
    predecoder_energy_pj=predecode_energy * PJ,
    subarray_read_energy_pj=cost.read_energy * PJ,
    subarray_write_energy_pj=cost.write_energy * PJ,
    row_decoder_energy_pj=cost.row_energy * PJ,
    mux_decoder_energy_pj=cost.mux_decoder_energy * PJ,
    cell_read_energy_pj=cost.cell_read_energy * PJ,
    sense_energy_pj=cost.sense_energy * PJ,
    mux_energy_pj=cost.mux_energy * PJ,
    precharge_energy_pj=cost.precharge_energy * PJ,
    cell_set_energy_pj=cost.cell_set_energy * PJ,
    cell_reset_energy_pj=cost.cell_reset_energy * PJ,
    htree_leakage_mw=tree.leakage,
    mat_leakage_mw=mat.leakage + mat.converter_leakage * powered,
    refresh_mw=mat.refresh * org.mat_rows * org.mat_columns,
  )


_array_ppa = jax.jit(array_model, static_argnums=3, compiler_options=compilation.QUICKLY)
