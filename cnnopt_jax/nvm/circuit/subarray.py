"""One subarray: word lines, bit lines, their decoders and amplifiers, laid out.

`size_drivers` sizes its drivers, `size_subarray` lays it out around them; `subarray_cost` measures
it then. Elementwise over any batch shape.
"""

from typing import NamedTuple

import jax.numpy as jnp

from cnnopt_jax.nvm import structures
from cnnopt_jax.nvm.circuit import cell_model, columns, drivers
from cnnopt_jax.nvm.technology import devices

Array = structures.Array

STITCH_F = 7.5


ROW, MUX, PRECHARGE = 0, 1, 2  # Roles of drivers.


class DriverRequest(NamedTuple):
  """All that a subarray's driver is sized by; equal requests have equal drivers.

  Attributes:
    role: `ROW`, `MUX` or `PRECHARGE`.
    outputs: to choose from.
    columns, rows: of the subarray.
    selected: columns written at once.
    buffering: a `Buffering`.
  """

  role: Array
  outputs: Array
  columns: Array
  rows: Array
  selected: Array
  buffering: Array


class Subarray(NamedTuple):
  """A sized subarray; um, fF, kohm.

  Attributes:
    height, width: with periphery.
    bitline_cap, bitline_res: of a whole bit line.
    decoders: drivers stacked on a leading axis: row, three multiplexers, precharger.
    mux_exists: `[3, ...]`, whether each multiplexer has more than one input.
    muxes: bit-line, first and second output multiplexer.
    amp: sense amplifier.
    amps_share: bit lines that share an amplifier; 1 in eDRAM, whose multiplexers follow it.
    sense_voltage: what the amplifiers are given, V.
    valid: whether it can be built and read.
  """

  height: Array
  width: Array
  bitline_cap: Array
  bitline_res: Array
  decoders: drivers.Decoder
  mux_exists: Array
  muxes: tuple[columns.Mux, columns.Mux, columns.Mux]
  amp: columns.SenseAmp
  amps_share: Array
  sense_voltage: Array
  valid: Array


def driver_requests(org: structures.Organization, xp=jnp) -> DriverRequest:
  """The five drivers of a subarray, `[5, ...]`: row, three multiplexers, precharger.

  `xp` is `jnp`, or `np` on the host. Multiplexers share one driver per degree whatever is
  written, and prechargers see columns only, so their other fields are blank.
  """

  def stack(*values):
    return xp.stack(xp.broadcast_arrays(*values))

  degrees = (org.mux_senseamp, org.mux_output1, org.mux_output2)
  return DriverRequest(
    role=stack(ROW, MUX, MUX, MUX, PRECHARGE + 0 * org.buffering),
    outputs=stack(org.rows, *degrees, 1.0),
    columns=stack(*[org.columns] * 5),
    rows=stack(*[org.rows] * 4, 0.0),
    selected=stack(org.columns / (degrees[0] * degrees[1] * degrees[2]), 0.0, 0.0, 0.0, 0.0),
    buffering=stack(*[org.buffering] * 4, structures.Buffering.LATENCY),
  )


def size_drivers(
  p: devices.Process,
  cell: structures.Cell,
  model: cell_model.CellModel,
  request: DriverRequest,
) -> drivers.Decoder:
  """Sizes drivers for requests of any batch shape."""
  cols = cell_model.cells_across(request.columns, model.bits)
  selected = request.selected / model.bits
  wordline = _wordline_length(p, cell, model, cols)
  cap, res = wordline * p.wire_c, wordline * p.wire_r
  least_mux = jnp.maximum(
    devices.LEAST_WIDTH_F * p.f, _bitline_current(model, request.rows) / p.on_n
  )
  is_row, is_mux = request.role == ROW, request.role == MUX
  load = jnp.where(
    is_row,
    cap + cols * model.wordline_cap,
    jnp.where(is_mux, cap + p.gate_cap * least_mux * cols, cols * model.precharger.load_per_column),
  )
  return drivers.size_decoder(
    p,
    inputs=jnp.where(request.outputs > 8, 2, 0),
    copies=request.outputs,
    load_cap=load,
    load_res=jnp.where(is_row | is_mux, res, 0.0),
    buffering=request.buffering,
    least_current=jnp.where(is_row, _wordline_current(model, cols, selected), 0.0),
  )


def _wordline_length(p, cell, model, cols):
  """With stitches, um."""
  stitches = jnp.where(
    cell.stitching > 0, jnp.floor((cols - 1) / jnp.maximum(cell.stitching, 1)) + 1, 0.0
  )
  return cols * model.width + stitches * STITCH_F * p.f


def _wordline_current(model, cols, selected):
  """What a crosspoint's word line carries in a write, half-selected neighbours included, mA."""
  return jnp.where(
    model.has_transistor,
    0.0,
    model.reset_current * selected + model.idle_current * (cols - selected),
  )


def _bitline_current(model, rows):
  """What a bit line carries in a write, leakage of the other rows included, mA."""
  cell = jnp.where(model.has_transistor, model.write_current, model.reset_current)
  return jnp.where(model.is_charge, 0.0, cell + model.idle_current * (rows - 1))


def size_subarray(
  p: devices.Process,
  tech: structures.Technology,
  cell: structures.Cell,
  model: cell_model.CellModel,
  org: structures.Organization,
  decoders: drivers.Decoder,
  nvsim_compatible: bool,
) -> Subarray:
  """Lays out a subarray of `org.rows x org.columns` cells around its drivers, `[5, ...]`.

  With `nvsim_compatible`, a multiplexer decoder is built even where nothing is multiplexed.
  """
  rows, cols = org.rows, org.columns
  degrees = (org.mux_senseamp, org.mux_output1, org.mux_output2)
  wordline = _wordline_length(p, cell, model, cols)
  bitline = rows * model.height

  exists = jnp.stack(jnp.broadcast_arrays(*degrees)) > 1
  if nvsim_compatible:
    exists = jnp.ones_like(exists)
  bitline_cap = bitline * p.wire_c + rows * model.bitline_cap
  # What a 1T1C cell's charge makes of its bit line.
  shared = p.vdd / 2 * model.storage_cap / (model.storage_cap + bitline_cap)
  sense_voltage = jnp.where(model.is_edram, shared, model.sense_voltage)
  # Every cell of an open row has to be restored: no two of its bit lines share an amplifier.
  amps_share = jnp.where(model.is_edram, 1.0, degrees[0])
  amp = columns.sense_amp(
    p,
    tech,
    wordline / cols * amps_share,
    sense_voltage,
    model.senses_current,
    nvsim_compatible,
  )
  unit = columns.pass_transistor(p, columns.mux_width(p, cell, _bitline_current(model, rows)))
  mux2 = columns.mux(p, degrees[2], unit, 0.0, 0.0)
  mux1 = columns.mux(p, degrees[1], unit, mux2.input_load, mux2.pass_cap)
  mux0 = columns.mux(
    p,
    degrees[0],
    unit,
    jnp.where(model.is_edram, mux1.input_load, amp.input_cap),
    jnp.where(model.is_edram, mux1.pass_cap, amp.input_cap),
  )

  # A decoder taller than its bit lines is folded to their height.
  row_height, row_width = decoders.height[0], decoders.width[0]
  beside = jnp.where(row_height > bitline, row_height * row_width / bitline, row_width)
  beside = jnp.maximum(beside, jnp.where(exists, decoders.width[1:4], 0.0).max(axis=0))
  below = (
    jnp.maximum(model.precharger.height, decoders.height[4])
    + amp.height
    + mux0.height
    + mux1.height
    + mux2.height
  )
  return Subarray(
    height=bitline + below,
    width=wordline + beside,
    bitline_cap=bitline_cap,
    bitline_res=bitline * p.wire_r,
    decoders=decoders,
    mux_exists=exists,
    muxes=(mux0, mux1, mux2),
    amp=amp,
    amps_share=amps_share,
    sense_voltage=sense_voltage,
    valid=(
      _is_buildable(p, cell, model, org)
      & (sense_voltage >= model.sense_voltage)
      & amp.valid
      & decoders.valid.all(axis=0)
    ),
  )


def _is_buildable(p, cell, model, org):
  """Whether transistors carry what its lines carry, and its cells can be told apart."""
  written = org.columns / (org.mux_senseamp * org.mux_output1 * org.mux_output2)
  # Unselected transistors on a bit line must together leak less than one conducts.
  leaks = ~model.is_sram & model.has_transistor & (p.on_n < org.rows * p.off_n)
  valid = (
    (_bitline_current(model, org.rows) <= p.max_width * p.on_n)
    & (_wordline_current(model, org.columns, written) <= p.max_width * p.on_n)
    & ~leaks
    & model.readable
  )
  # A resistive cell's amplifier does not fit under a single bit line.
  return valid & ((cell.kind != structures.Kind.MEMRISTOR) | (org.mux_senseamp > 1))
