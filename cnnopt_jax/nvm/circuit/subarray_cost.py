"""Delays and energies of one subarray that is laid out.

They need the rise of the predecoded address, which depends on the layout. Bit lines: SRAM by a
Horowitz stage through access and pull-down transistor; current sensing by the distributed-RC
formula of Moon et al. (as in NVSim, "ICCAD 2009 model"); voltage sensing by the time to
`sense_voltage`; 1T1C eDRAM by 90 % of the sharing of charge, gain cells by a Horowitz stage through
the two read transistors. Elementwise over any batch shape.

Multi-level cells and program-and-verify, with s sense steps and n > 1 pulses:

    t_sense = s t_amplifier        t_write = t_address + n (t_pulse + t_bitline + t_sense)
    E_sense = s E_amplifier        E_write = n (E_pulse + E_bitline + E_cell + E_sense)

without the reads in brackets where n = 1.
"""

from typing import NamedTuple

import jax.numpy as jnp

from cnnopt_jax.nvm import structures
from cnnopt_jax.nvm.circuit import cell_model, columns, drivers
from cnnopt_jax.nvm.circuit.subarray import Subarray
from cnnopt_jax.nvm.technology import devices

Array = structures.Array


class SubarrayCost(NamedTuple):
  """Delays in ps, energies in fJ per access, leakage in mW.

  Attributes:
    read, write, set, reset: latencies after the predecoders.
    row_decoder, column_decoder, bitline, sense, mux, precharge, charge: their parts.
    read_energy, write_energy, set_energy, reset_energy: totals of one active subarray.
    row_energy, mux_decoder_energy, cell_read_energy, sense_energy, mux_energy,
      precharge_energy, cell_set_energy, cell_reset_energy: their parts.
    leakage: without the converters.
    refresh_energy: of opening one row and writing it back, without predecoders.
    refresh_time: of doing so, ps.
    converter_leakage: of all current-to-voltage converters.
  """

  read: Array
  write: Array
  set: Array
  reset: Array
  row_decoder: Array
  column_decoder: Array
  bitline: Array
  sense: Array
  mux: Array
  precharge: Array
  charge: Array
  read_energy: Array
  write_energy: Array
  set_energy: Array
  reset_energy: Array
  row_energy: Array
  mux_decoder_energy: Array
  cell_read_energy: Array
  sense_energy: Array
  mux_energy: Array
  precharge_energy: Array
  cell_set_energy: Array
  cell_reset_energy: Array
  leakage: Array
  refresh_energy: Array
  refresh_time: Array
  converter_leakage: Array


def measure_subarray(
  p: devices.Process,
  model: cell_model.CellModel,
  org: structures.Organization,
  sub: Subarray,
  cell: structures.Cell,
  rise: Array,
  nvsim_compatible: bool,
) -> SubarrayCost:
  """Measures a sized subarray whose address lines rise in `rise` ps.

  With `nvsim_compatible`: cell and bit-line write energy is divided by `org.write_share` (else
  only a write into an array that opens the whole set is divided by its ways); a crosspoint's
  write counts its multiplexers twice; a reset contains the set's energy instead of its own.
  """
  row_rise, delays = _delays(p, model, sub, rise)
  bitline = _bitline_delay(p, model, cell, sub, row_rise)
  amps = org.columns / sub.amps_share
  store = model.store + cell_model.LN_10 * sub.bitline_res * sub.bitline_cap / 2
  latencies = _latencies(model, sub, bitline, store, delays)
  return SubarrayCost(
    **delays,
    **latencies,
    **_energies(p, model, org, sub, cell, nvsim_compatible),
    refresh_time=latencies['read'] + store,
    bitline=bitline,
    sense=sub.amp.latency * model.sense_steps,
    leakage=_leakage(model, org, sub),
    converter_leakage=amps * sub.amp.converter_leakage,
  )


def _delays(p, model, sub, rise) -> tuple[Array, dict[str, Array]]:
  """The rise of a word line, ps, and the parts of a latency that decoders and multiplexers take."""
  mux0, mux1, mux2 = sub.muxes
  delays, rises = drivers.decoder_delay(p, sub.decoders, rise)
  pass_res = mux0.pass_res + mux1.pass_res + mux2.pass_res
  pass_cap = mux0.pass_cap + mux1.pass_cap + mux2.pass_cap
  return rises[0], dict(
    row_decoder=delays[0],
    column_decoder=jnp.where(sub.mux_exists, delays[1:4], 0.0).max(axis=0),
    mux=mux0.latency + mux1.latency + mux2.latency,
    precharge=columns.precharge_latency(
      p, model.precharger, _member(sub.decoders, 4), sub.bitline_cap, sub.bitline_res, rise
    ),
    charge=devices.LN_HALF_SQUARED**0.5
    * (pass_res * (pass_cap + sub.bitline_cap) + sub.bitline_res * sub.bitline_cap / 2),
  )


def _latencies(model, sub, bitline, store, delays) -> dict[str, Array]:
  """Of a read and of writes, after the predecoders, ps."""
  row, column, charge = (delays[name] for name in ('row_decoder', 'column_decoder', 'charge'))
  sense = sub.amp.latency * model.sense_steps
  read = jnp.maximum(row, column) + bitline + sense + delays['mux']
  address = jnp.maximum(row, column + charge)
  pulses = model.write_pulses
  verify = jnp.where(pulses > 1, pulses * (bitline + sense), 0.0)
  set_, reset = (
    address + pulses * pulse + verify for pulse in (model.set_pulse, model.reset_pulse)
  )
  write = jnp.where(
    model.has_transistor,
    jnp.maximum(set_, reset),
    address + charge + pulses * (model.set_pulse + model.reset_pulse) + verify,
  )
  # The rest of an open row is read and written back.
  write = jnp.where(model.is_edram | model.is_gain, read + store, write)
  return dict(read=read, write=jnp.where(model.is_sram, read, write), set=set_, reset=reset)


def _energies(p, model, org, sub, cell, nvsim_compatible) -> dict[str, Array]:
  """Of one active subarray and of its parts, fJ."""
  mux0, mux1, mux2 = sub.muxes
  amps = org.columns / sub.amps_share
  first = org.columns / org.mux_senseamp
  outputs = first / org.mux_output1
  selected = outputs / org.mux_output2
  line_cap = model.access_cap + sub.bitline_cap + mux0.pass_cap
  sensing = sub.amp.latency * model.sense_steps
  cell_read = jnp.where(model.is_charge, 0.0, 2 * model.read_power * sensing) * selected
  lines = _bitline_read_energy(p, model, sub, mux0, line_cap) * org.columns
  sense_energy = sub.amp.energy * amps * model.sense_steps
  opened = lines + cell_read + sense_energy
  # Of all columns of a row, what is restored by a read apart: in eDRAM the amplifiers have done it.
  stored = (line_cap + model.storage_cap) * p.vdd**2
  restored = jnp.where(model.is_gain, stored * org.columns, 0.0)
  cell_set, cell_reset, cell_write = _cell_write_energies(
    model, org, cell, line_cap, selected, opened, nvsim_compatible
  )
  rewritten = opened + jnp.where(model.is_gain, restored, stored * selected)
  cell_write = jnp.where(model.is_edram | model.is_gain, rewritten, cell_write)

  decoder_energies = sub.decoders.energy
  row_energy = decoder_energies[0]
  mux_decoder_energy = jnp.where(sub.mux_exists, decoder_energies[1:4], 0.0).sum(axis=0)
  mux_energy = mux0.energy * first + mux1.energy * outputs + mux2.energy * selected
  precharge_energy = decoder_energies[4] + model.precharger.inverter_load * p.vdd**2 * org.columns
  around = row_energy + mux_decoder_energy + mux_energy
  write_energy = cell_write + around
  set_energy = cell_set + around
  if nvsim_compatible:
    write_energy = write_energy + jnp.where(model.has_transistor, 0.0, mux_energy)
  return dict(
    read_energy=(lines + cell_read + around + precharge_energy + sense_energy),
    write_energy=write_energy,
    set_energy=set_energy,
    refresh_energy=row_energy + precharge_energy + opened + restored,
    reset_energy=(set_energy if nvsim_compatible else cell_reset) + around,
    row_energy=row_energy,
    mux_decoder_energy=mux_decoder_energy,
    cell_read_energy=cell_read,
    sense_energy=sense_energy,
    mux_energy=mux_energy,
    precharge_energy=precharge_energy,
    cell_set_energy=cell_set,
    cell_reset_energy=cell_reset,
  )


def _cell_write_energies(model, org, cell, line_cap, selected, opened, nvsim_compatible):
  """Of a set, a reset and a write of the selected cells and their bit lines, fJ.

  `opened` is what a verifying read of them costs.
  """
  pulses = model.write_pulses
  cell_set, cell_reset = (
    pulses * ((energy + line_cap * voltage**2) * selected)
    for energy, voltage in (
      (model.set_energy, model.set_voltage),
      (model.reset_energy, model.reset_voltage),
    )
  )
  shaper = jnp.where(cell.kind == structures.Kind.PCRAM, cell_model.PCRAM_SHAPER_EFFICIENCY, 1.0)
  share = org.write_share if nvsim_compatible else org.set_ways
  verify = jnp.where(pulses > 1, pulses * opened, 0.0)
  cell_set, cell_reset = cell_set / shaper / share + verify, cell_reset / shaper / share + verify
  sram_write = line_cap * model.precharge**2 * selected / share
  return (
    cell_set,
    cell_reset,
    jnp.where(model.is_sram, sram_write, jnp.maximum(cell_set, cell_reset)),
  )


def _leakage(model, org, sub):
  """Without the converters, mW."""
  leakages = sub.decoders.leakage
  return (
    leakages[0]
    + jnp.where(sub.mux_exists, leakages[1:4], 0.0).sum(axis=0)
    + leakages[4]
    + org.columns * model.precharger.leakage_per_column
    + org.columns / sub.amps_share * sub.amp.idle_leakage
    + org.rows * org.columns * model.leakage
  )


def _bitline_delay(p, model, cell, sub, rise):
  """Time from a rising word line to a level the amplifier can tell, ps."""
  cap, res = sub.bitline_cap, sub.bitline_res
  load = jnp.where(model.is_edram, sub.amp.input_cap, sub.muxes[0].input_load)

  def line(drive):
    return drive * (model.access_cap + cap + load) + res * (load + cap / 2)

  pull_down_width = jnp.where(model.is_sram, cell.sram_nmos_width_f, 1.0) * p.f
  pull_down = p.r_n / pull_down_width
  access_gm = p.gm_n * jnp.where(model.is_sram, cell.access_width_f, 1.0) * p.f
  swing = jnp.where(model.is_sram, model.sense_voltage / 2, p.vdd / 8)  # One line rises, one falls.
  tau = line(model.access_res + pull_down) * -jnp.log1p(-swing / (p.vdd / 2))
  sram = devices.horowitz(tau, 1 / (pull_down * access_gm), rise)

  off_res = jnp.where(model.is_sram, 1.0, model.off_res)
  tau = res * cap / 2 * (off_res + res / 3) / (off_res + res)
  current = devices.LN_HALF_SQUARED**0.5 * tau

  # The storage node and the line share their charge through the access transistor.
  together = model.storage_cap * (cap + load) / (model.storage_cap + cap + load)
  sharing = cell_model.LN_10 * (model.access_res + res / 2) * together
  tau = line(model.read_res) * -jnp.log1p(-model.sense_voltage / (p.vdd / 2))
  read_gm = 2 * p.r_n * p.gm_n / model.read_res  # Of one of the two transistors in series.
  gain = devices.horowitz(tau, 1 / (model.read_res * read_gm), rise)

  usable = ~model.is_charge & ~model.senses_current & model.readable
  sense = jnp.where(usable, model.sense_voltage, 0.5)
  below = jnp.where(usable, model.precharge - model.level_on, 1.0)
  above = jnp.where(usable, model.level_off - model.precharge, 1.0)
  voltage = jnp.maximum(
    -line(model.drive_on_res) * jnp.log1p(-sense / below),
    -line(model.drive_off_res) * jnp.log1p(-sense / above),
  )
  resistive = jnp.where(model.senses_current, current, voltage)
  charge = jnp.where(model.is_edram, sharing, gain)
  return jnp.where(
    model.is_sram, sram, jnp.where(model.is_edram | model.is_gain, charge, resistive)
  )


def _bitline_read_energy(p, model, sub, mux0, line_cap):
  """Energy of moving one bit line in a read, fJ."""
  sram = line_cap * model.precharge**2
  # Current sensing: the line carries a voltage gradient between the multiplexer and the cell.
  loop = mux0.pass_res + sub.bitline_res + jnp.where(model.is_sram, 1.0, model.on_res)
  near = model.read_voltage * mux0.pass_res / loop
  far = model.read_voltage * (mux0.pass_res + sub.bitline_res) / loop
  current = (
    model.access_cap * far**2
    + mux0.pass_cap * near**2
    + sub.bitline_cap * (far**2 + near**2 + far * near) / 3
  )
  voltage = line_cap * (model.precharge**2 - model.level_on**2)
  # The amplifier pulls a line from Vdd / 2 to Vdd, and its complement to ground.
  edram = (line_cap + model.storage_cap) * p.vdd**2 / 2
  resistive = jnp.where(model.senses_current, current, voltage)
  return jnp.where(model.is_sram | model.is_gain, sram, jnp.where(model.is_edram, edram, resistive))


def _member(stack: drivers.Decoder, index: int) -> drivers.Decoder:
  """One driver of a stack."""
  part = {name: getattr(stack, name)[index] for name in stack._fields if name != 'stage_tau'}
  return drivers.Decoder(stage_tau=stack.stage_tau[:, index], **part)
