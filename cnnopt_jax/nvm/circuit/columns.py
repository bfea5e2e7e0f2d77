"""What stands at the foot of the bit lines: precharger, multiplexers, sense amplifiers."""

from typing import NamedTuple

import jax.numpy as jnp

from cnnopt_jax.nvm import structures
from cnnopt_jax.nvm.circuit import drivers
from cnnopt_jax.nvm.technology import devices

Array = structures.Array

# Transistor widths in F (CACTI 6.5).
SENSE_P_F, SENSE_N_F, SENSE_ISOLATION_F, SENSE_ENABLE_F, SENSE_MUX_F = 7.5, 3.75, 12.5, 5.0, 9.0
PRECHARGE_F = 6.0
MUX_F = 6 * devices.LEAST_WIDTH_F
MUX_DROP_TOLERANCE = 0.2  # Of the cell's low resistance.


class SenseAmp(NamedTuple):
  """One sense amplifier.

  Attributes:
    height: um, for the pitch of its bit lines.
    input_cap: fF.
    latency: ps.
    energy: fJ.
    idle_leakage: of the latch, mW.
    converter_leakage: of the current-to-voltage converter, mW.
    valid: whether the pitch leaves room for a folded transistor.
  """

  height: Array
  input_cap: Array
  latency: Array
  energy: Array
  idle_leakage: Array
  converter_leakage: Array
  valid: Array


def sense_amp(
  p: devices.Process,
  tech: structures.Technology,
  pitch: Array,
  sense_voltage: Array,
  senses_current: Array,
  nvsim_compatible: bool,
) -> SenseAmp:
  """A latch (CACTI 6.5), with a current-to-voltage converter where current is sensed.

  Args:
    p: process.
    tech: for the converter.
    pitch: bit-line pitch times bit lines per amplifier, um.
    sense_voltage: V.
    senses_current: boolean.
    nvsim_compatible: multiply the latch's leakage by Vdd twice, as NVSim does.

  Returns:
    The `SenseAmp`.
  """
  f = p.f
  # Laid out sideways: the pitch limits a transistor's width, the amplifier grows in height.
  by_width = lambda *widths: jnp.stack([width * f + 0 * pitch for width in widths])
  heights, widths = devices.transistor_size(
    p, by_width(SENSE_P_F, SENSE_ISOLATION_F, SENSE_N_F, SENSE_ENABLE_F), pitch
  )
  width = heights.max(axis=0)
  height = (
    2 * widths[0]
    + widths[1]
    + 2 * widths[2]
    + widths[3]
    + (4 * devices.GAP_BETWEEN_SAME_TYPE_F + devices.GAP_BETWEEN_N_AND_P_F) * f
  )
  converter_area = jnp.where(senses_current, tech.converter_area_f2 * f**2, 0.0)
  input_cap = amp_input_cap(p, pitch)
  conductance = (p.gm_n * SENSE_N_F + p.gm_p * SENSE_P_F) * f
  latency = input_cap / conductance * jnp.log(p.vdd / sense_voltage)
  idle = SENSE_ENABLE_F * f * p.off_n * p.vdd
  return SenseAmp(
    height=(height * width + converter_area) / pitch,
    input_cap=input_cap,
    latency=latency + jnp.where(senses_current, 1e3 * tech.converter_latency_ns, 0.0),
    energy=(input_cap * p.vdd**2 + jnp.where(senses_current, tech.converter_energy_fj, 0.0)),
    idle_leakage=idle * p.vdd if nvsim_compatible else idle,
    converter_leakage=jnp.where(senses_current, 1e-6 * tech.converter_leakage_nw, 0.0),
    valid=pitch > devices.FOLD_OVERHEAD_F * f * (1 + 1e-9),
  )


def amp_input_cap(p: devices.Process, pitch: Array) -> Array:
  """What a latch puts on a bit line: gates and drains, folded to the pitch, fF."""
  widths = jnp.stack(
    [width * p.f + 0 * pitch for width in (SENSE_N_F, SENSE_P_F, SENSE_ISOLATION_F, SENSE_MUX_F)]
  )
  drains = devices.drain_cap(p, widths, pitch).sum(axis=0)
  return p.gate_cap * (SENSE_P_F + SENSE_N_F) * p.f + drains


class Mux(NamedTuple):
  """One multiplexer of NMOS pass transistors; all zero where it has a single input.

  Attributes:
    height: um.
    pass_cap: drain of one pass transistor, fF.
    pass_res: kohm.
    input_load: what a signal sees when it enters, fF.
    latency: ps.
    energy: of one output, fJ.
  """

  height: Array
  pass_cap: Array
  pass_res: Array
  input_load: Array
  latency: Array
  energy: Array


def mux_width(p: devices.Process, cell: structures.Cell, current: Array) -> Array:
  """Width of a pass transistor: it carries `current` mA and hardly divides a cell's voltage."""
  magnetic_or_resistive = ~(
    (cell.kind == structures.Kind.SRAM)
    | (cell.kind == structures.Kind.EDRAM)
    | (cell.kind == structures.Kind.GAIN_CELL)
  )
  low_ohmic = p.r_n / (MUX_DROP_TOLERANCE * 1e-3 * jnp.maximum(cell.resistance_on_ohm, 1e-3))
  width = jnp.maximum(MUX_F * p.f, current / p.on_n)
  return jnp.where(
    magnetic_or_resistive, jnp.maximum(width, jnp.minimum(low_ohmic, p.max_width)), width
  )


class PassTransistor(NamedTuple):
  """What all multiplexers of a subarray are made of: height um, drain fF, resistance kohm."""

  height: Array
  cap: Array
  res: Array


def pass_transistor(p: devices.Process, width: Array) -> PassTransistor:
  """A pass transistor of `width` um."""
  limit = devices.LAYOUT_HEIGHT_F * p.f
  return PassTransistor(
    devices.transistor_size(p, width, limit)[0], devices.drain_cap(p, width, limit), p.r_n / width
  )


def mux(
  p: devices.Process, inputs: Array, unit: PassTransistor, load: Array, next_cap: Array
) -> Mux:
  """A multiplexer of `inputs` to 1 that drives `load` fF, of which `next_cap` costs energy."""
  output = inputs * unit.cap

  def there(value):
    return jnp.where(inputs > 1, value, 0.0)

  return Mux(
    height=there(unit.height),
    pass_cap=there(unit.cap),
    pass_res=there(unit.res),
    input_load=there(output + unit.cap + load),
    latency=there(2.3 * unit.res * (output + load)),
    energy=there((output + next_cap) * p.vdd * (p.vdd - p.vth)),
  )


class Precharger(NamedTuple):
  """Precharge and equalisation of all bit lines of a subarray, without its driver.

  Attributes:
    load_per_column: what the driver sees, fF.
    inverter_load: what each column's inverter drives, fF.
    bitline_cap: what it adds to a bit line, fF.
    height: um.
    leakage_per_column: mW.
  """

  load_per_column: Array
  inverter_load: Array
  bitline_cap: Array
  height: Array
  leakage_per_column: Array


def precharger(p: devices.Process, cell_width: Array) -> Precharger:
  """The precharger for bit lines `cell_width` um apart."""
  least, limit = devices.LEAST_WIDTH_F * p.f, devices.LAYOUT_HEIGHT_F * p.f
  width = PRECHARGE_F * p.f

  def drain(w):
    return devices.drain_cap(p, w, limit)

  def size(w):
    return devices.transistor_size(p, w, limit)

  inverter_height, _ = devices.gate_size(p, 1.0, least, p.pn * least)
  return Precharger(
    load_per_column=p.gate_cap * (1 + p.pn) * least + cell_width * p.wire_c,
    inverter_load=p.gate_cap * (least + 2 * width) + drain(least) + drain(p.pn * least),
    bitline_cap=drain(width) + drain(least),
    height=jnp.maximum(size(width)[0], size(least)[0]) + inverter_height,
    leakage_per_column=(devices.inverter_leakage(p, least, p.pn * least) + width * p.off_p * p.vdd),
  )


def precharge_latency(
  p: devices.Process,
  unit: Precharger,
  driver: drivers.Decoder,
  bitline_cap: Array,
  bitline_res: Array,
  rise: Array,
) -> Array:
  """Time to pull a bit line up once its inverter is told to, ps."""
  least, width = devices.LEAST_WIDTH_F * p.f, PRECHARGE_F * p.f
  _, rise = drivers.decoder_delay(p, driver, rise)
  inverter = devices.horowitz(p.r_n / least * unit.inverter_load, 1 / (p.r_n * p.gm_n), rise)
  tau = p.r_p / width * (bitline_cap + unit.bitline_cap) + bitline_res * bitline_cap / 2
  return devices.horowitz(tau, 1 / (p.r_p * p.gm_p), 2 * inverter)
