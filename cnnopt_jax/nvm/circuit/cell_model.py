"""A cell in a process: its geometry, loads, read levels and write energies.

Charge on a node of `storage_cap_ff`: a 1T1C cell shares it with its bit line, so a read destroys
and restores the whole row; a gain cell's node drives the gate of a read transistor in series with
another. In both a write is a read of the row and a store through the write transistor, as the
other columns of the row are written back. (Facts of DESTINY, github
sparsh0mittal/destiny_3d_cache; the equations are ours.) In an FeFET and a charge-trap transistor
the resistances are those of the transistor itself, nothing is in series, and its gate loads the
word line.
"""

from typing import NamedTuple

import jax.numpy as jnp

from cnnopt_jax.nvm import structures
from cnnopt_jax.nvm.circuit import columns
from cnnopt_jax.nvm.technology import devices

Array = structures.Array
Kind, Access = structures.Kind, structures.Access

# Share of a write's energy that reaches the cell: PCRAM needs shaped pulses (NVSim's constant.h).
PCRAM_SHAPER_EFFICIENCY = 0.2
LN_10 = 2.302585092994046  # Time constants to 90 % of a step.


class CellModel(NamedTuple):
  """What the subarray needs of a cell.

  Attributes:
    width, height: um.
    is_sram, has_transistor, is_crosspoint: booleans.
    senses_current: boolean.
    access_res: of the access transistor, kohm.
    access_cap: of the access device at a bit line, fF.
    wordline_cap: what one cell adds to a word line, fF.
    bitline_cap: what one cell adds to a bit line, fF.
    on_res, off_res: cell with access device, kohm.
    drive_on_res, drive_off_res: what moves the bit line in the two states (voltage sensing), kohm.
    level_on, level_off: bit-line levels of the two states, V.
    precharge: bit-line level before a read, V.
    sense_voltage: V.
    readable: whether such a level exists.
    read_voltage: of current sensing, V.
    read_power: of one cell, mW.
    reset_energy, set_energy: of one bit, fJ.
    reset_voltage, set_voltage: what the bit line is charged to, V.
    reset_pulse, set_pulse: ps.
    reset_current: of a crosspoint's cell, mA.
    idle_current: of a half-selected cell, or of an unselected access device, mA.
    write_current: of a cell with a transistor, mA.
    leakage: of one cell, mW.
    precharger: for bit lines at the cell's pitch.
    is_charge: whether a node's charge is the bit, or an SRAM's: no resistance, no write current.
    is_edram, is_gain: booleans.
    storage_cap: fF.
    read_res: a gain cell's two read transistors, kohm.
    store: time to charge the storage node, ps.
    retention: us, of cells that are refreshed; else 0.
    sense_steps, write_pulses, bits: counts.
  """

  width: Array
  height: Array
  is_sram: Array
  has_transistor: Array
  is_crosspoint: Array
  senses_current: Array
  access_res: Array
  access_cap: Array
  wordline_cap: Array
  bitline_cap: Array
  on_res: Array
  off_res: Array
  drive_on_res: Array
  drive_off_res: Array
  level_on: Array
  level_off: Array
  precharge: Array
  sense_voltage: Array
  readable: Array
  read_voltage: Array
  read_power: Array
  reset_energy: Array
  set_energy: Array
  reset_voltage: Array
  set_voltage: Array
  reset_pulse: Array
  set_pulse: Array
  reset_current: Array
  idle_current: Array
  write_current: Array
  leakage: Array
  precharger: columns.Precharger
  is_charge: Array
  is_edram: Array
  is_gain: Array
  storage_cap: Array
  read_res: Array
  store: Array
  retention: Array
  sense_steps: Array
  write_pulses: Array
  bits: Array


def cells_across(columns_: Array, bits: Array) -> Array:
  """Cells that hold `columns_` bits, `bits` in each."""
  return jnp.ceil(columns_ / bits)


def cell_model(p: devices.Process, cell: structures.Cell, nvsim_compatible: bool) -> CellModel:
  """Evaluates a cell in a process.

  With `nvsim_compatible`, a current-driven set without an energy takes its supply from whether
  the *reset* voltage is given.
  """
  is_sram = cell.kind == Kind.SRAM
  has_transistor = is_sram | (cell.access == Access.CMOS)
  width = jnp.sqrt(cell.area_f2 / cell.aspect_ratio) * p.f
  height = jnp.sqrt(cell.area_f2 * cell.aspect_ratio) * p.f
  is_edram, is_gain = cell.kind == Kind.EDRAM, cell.kind == Kind.GAIN_CELL
  # Files give such cells widths far below 1 F where they mean that there is no other transistor.
  is_itself = (cell.kind == Kind.FEFET) | (cell.kind == Kind.CTT)
  access_f = jnp.where(is_itself, jnp.maximum(cell.access_width_f, 1.0), cell.access_width_f)
  access_width = jnp.where(has_transistor, access_f, 1.0) * p.f
  access_res = jnp.where(has_transistor & ~is_itself, p.r_n / access_width, 0.0)
  read_f = jnp.where(cell.read_width_f > 0, cell.read_width_f, cell.access_width_f)
  read_width = jnp.where(is_gain, read_f, 1.0) * p.f
  # Read and write lines of a gain cell are alike; the wider transistor counts.
  load_width = jnp.where(is_gain, jnp.maximum(access_width, read_width), access_width)
  access_cap = jnp.where(
    has_transistor, devices.drain_cap(p, load_width, width), cell.capacitance_ff
  )
  gates = jnp.where(is_sram, 2.0, 1.0) * p.gate_cap * load_width
  return CellModel(
    width=width,
    height=height,
    is_sram=is_sram,
    has_transistor=has_transistor,
    is_crosspoint=cell.access == Access.NONE,
    access_res=access_res,
    access_cap=access_cap,
    wordline_cap=jnp.where(has_transistor, gates, cell.capacitance_ff),
    bitline_cap=jnp.where(has_transistor, access_cap / 2, cell.capacitance_ff),
    leakage=jnp.where(is_sram, _sram_leakage(p, cell), 0.0),
    precharger=columns.precharger(p, width),
    is_charge=is_sram | is_edram | is_gain,
    is_edram=is_edram,
    is_gain=is_gain,
    storage_cap=jnp.where(is_edram | is_gain, cell.storage_cap_ff, 0.0),
    read_res=2 * p.r_n / read_width,
    store=jnp.where(is_edram | is_gain, LN_10 * access_res * cell.storage_cap_ff, 0.0),
    retention=jnp.where(is_edram | is_gain, cell.retention_us, 0.0),
    sense_steps=jnp.where(cell.sense_steps > 0, cell.sense_steps, cell.bits_per_cell) * 1.0,
    write_pulses=cell.write_pulses * 1.0,
    bits=cell.bits_per_cell * 1.0,
    **_reading(p, cell, is_sram, is_edram | is_gain, access_res),
    **_write_energies(p, cell, nvsim_compatible),
    **_write_currents(cell),
  )


def _kohm(ohm: Array) -> Array:
  return 1e-3 * ohm


def _positive(value: Array) -> Array:
  """Keeps branches finite that are not taken."""
  return jnp.maximum(value, 1e-12)


def _sram_leakage(p, cell):
  """Of one cell, mW."""
  return (
    p.vdd
    * p.f
    * (
      2 * jnp.maximum(cell.sram_nmos_width_f * p.off_n, cell.sram_pmos_width_f * p.off_p)
      + cell.access_width_f * p.off_n
    )
  )


def _reading(p, cell, is_sram, holds_charge, access_res) -> dict[str, Array]:
  """What a read needs.

  Voltage sensing: either a current is forced, or the cell divides the read voltage with a resistor
  of the geometric mean of its two states.
  """
  on_res, off_res = (
    access_res + _kohm(r) for r in (cell.resistance_on_ohm, cell.resistance_off_ohm)
  )
  forced = cell.read_voltage_v == 0
  series = jnp.sqrt(_positive(on_res * off_res))
  read_current = 1e-3 * cell.read_current_ua
  level_on, level_off = (
    jnp.where(forced, read_current * r, cell.read_voltage_v * r / (r + series))
    for r in (on_res, off_res)
  )
  drive_on_res, drive_off_res = (
    jnp.where(forced, r, r * series / (r + series)) for r in (on_res, off_res)
  )
  sense_voltage = 1e-3 * cell.min_sense_voltage_mv
  precharge = jnp.where(
    is_sram | holds_charge, p.vdd / 2, jnp.minimum(p.vdd, (level_on + level_off) / 2)
  )
  senses_current = ~is_sram & ~holds_charge & (cell.senses_voltage == 0)
  readable = (
    is_sram
    | holds_charge
    | senses_current
    | ((precharge - level_on > sense_voltage) & (level_off - precharge > sense_voltage))
  )
  return dict(
    senses_current=senses_current,
    on_res=on_res,
    off_res=off_res,
    drive_on_res=drive_on_res,
    drive_off_res=drive_off_res,
    level_on=level_on,
    level_off=level_off,
    precharge=precharge,
    sense_voltage=sense_voltage,
    readable=readable,
    read_voltage=cell.read_voltage_v,
    read_power=_read_power(p, cell, forced, read_current),
  )


def _read_power(p, cell, forced, read_current):
  """Of one cell, mW; where it is not given, that of the current which the cell lets through."""
  low = _kohm(_positive(cell.resistance_on_ohm))
  series = jnp.sqrt(low * _kohm(_positive(cell.resistance_off_ohm)))
  available = cell.read_voltage_v - cell.access_drop_v
  derived = jnp.where(
    cell.senses_voltage == 0,
    available / low,
    jnp.where(forced, read_current, available / (low + series)),
  )
  return jnp.where(cell.read_power_uw == 0, p.vdd * derived, 1e-3 * cell.read_power_uw)


def _write_energies(p, cell, nvsim_compatible) -> dict[str, Array]:
  """What a set and a reset need of voltage, time and energy."""
  reset_energy = _write_energy(
    p,
    cell,
    cell.reset_energy_pj,
    cell.resets_by_voltage,
    cell.reset_voltage_v,
    cell.reset_current_ua,
    cell.reset_pulse_ns,
    cell.resistance_on_at_reset_ohm,
    cell.reset_voltage_v != 0,
  )
  set_energy = _write_energy(
    p,
    cell,
    cell.set_energy_pj,
    cell.sets_by_voltage,
    cell.set_voltage_v,
    cell.set_current_ua,
    cell.set_pulse_ns,
    cell.resistance_on_at_set_ohm,
    (cell.reset_voltage_v if nvsim_compatible else cell.set_voltage_v) != 0,
  )
  return dict(
    reset_energy=reset_energy,
    set_energy=set_energy,
    reset_voltage=jnp.where(cell.resets_by_voltage == 1, cell.reset_voltage_v, p.vdd),
    set_voltage=jnp.where(cell.sets_by_voltage == 1, cell.set_voltage_v, p.vdd),
    reset_pulse=1e3 * cell.reset_pulse_ns,
    set_pulse=1e3 * cell.set_pulse_ns,
  )


def _write_energy(
  p, cell, energy_pj, by_voltage, voltage, current_ua, pulse_ns, at_voltage_ohm, supply_given
):
  """Of one bit, fJ: as given, or from the voltage or the current of its pulse."""
  volts = jnp.abs(voltage)
  at_voltage = jnp.where(
    (cell.kind == Kind.MEMRISTOR) & (cell.access == Access.NONE),
    at_voltage_ohm,
    cell.resistance_on_ohm,
  )
  driven = volts * (volts - cell.access_drop_v) / _kohm(_positive(at_voltage))
  forced = jnp.where(supply_given, volts, p.vdd) * jnp.abs(1e-3 * current_ua)
  derived = jnp.where(by_voltage == 1, driven, forced) * 1e3 * pulse_ns
  return jnp.where(energy_pj == 0, derived, 1e3 * energy_pj)


def _write_currents(cell) -> dict[str, Array]:
  """What a write draws, and what leaks beside it."""
  at_reset = _kohm(_positive(cell.resistance_on_at_reset_ohm))
  reset_current = jnp.where(
    cell.reset_current_ua == 0,
    (jnp.abs(cell.reset_voltage_v) - cell.access_drop_v) / at_reset,
    1e-3 * cell.reset_current_ua,
  )
  half_selected = reset_current * at_reset / (2 * _kohm(_positive(cell.resistance_half_reset_ohm)))
  return dict(
    reset_current=reset_current,
    idle_current=jnp.where(
      cell.access == Access.NONE, half_selected, 1e-3 * cell.access_leakage_ua
    ),
    write_current=1e-3 * jnp.maximum(cell.reset_current_ua, cell.set_current_ua),
  )
