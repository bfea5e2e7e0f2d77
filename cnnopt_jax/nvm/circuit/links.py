"""What wires between mats cost: unrepeated, with repeaters, or with a low swing.

unrepeated:  delay 2.3 R' C' L^2 / 2, energy C' L Vdd^2, no leakage;
repeated:    linear in L. Repeaters h times the least inverter (R, C_in, C_out), l apart:
             h = sqrt(R C' / (C_in R')), l = sqrt(2 R (C_in + C_out) / (R' C'));
low swing:   a NAND, an inverter and a driver sized for eight fan-out-of-four delays charge
             the wire by 0.1 V (Ho, Mai, Horowitz, "The future of wires", 2001, as in CACTI
             6.5). As in NVSim, the receiver loads the wire and costs nothing itself.
"""

from typing import NamedTuple

import jax.numpy as jnp

from cnnopt_jax.nvm import structures
from cnnopt_jax.nvm.circuit import columns
from cnnopt_jax.nvm.technology import devices

Array = structures.Array

NO_FOLD_F = 1e9  # A layout region so high that nothing is folded.
DRIVER_DELAY_FO4 = 8.0
DRIVER_RESISTANCE_FACTOR = 8.6
WIDEST_DRIVER_F = 100.0
SWING_V, OVERDRIVE_V = 0.1, 0.4


class Link(NamedTuple):
  """One wire of some length: ps, fJ of one transition, mW."""

  delay: Array
  energy: Array
  leakage: Array


class Repeater(NamedTuple):
  """The fastest repeaters; delay, energy and leakage per um, sizes in um.

  Attributes:
    delay, energy, leakage: of a wire with them, per um.
    pitch: of such a wire.
    sharing: wires side by side within the length of one repeater spacing.
  """

  delay: Array
  energy: Array
  leakage: Array
  pitch: Array
  sharing: Array


def unrepeated(p: devices.Process, length: Array) -> Link:
  """A bare wire, driven at one end."""
  return Link(
    2.3 / 2 * p.route_r * p.route_c * length**2,
    p.route_c * length * p.vdd**2,
    jnp.zeros_like(length),
  )


def repeater(p: devices.Process) -> Repeater:
  """Sizes repeaters for the wires between mats."""
  least_n = devices.LEAST_WIDTH_F * p.f
  no_fold = NO_FOLD_F * p.f

  def inverter(size):
    """Input and output capacitance, and the resistance of both transistors."""
    n, p_ = size * least_n, size * p.pn * least_n
    return (
      p.gate_cap * (n + p_),
      devices.drain_cap(p, n, no_fold) + devices.drain_cap(p, p_, no_fold),
      p.r_n / n + p.r_p / p_,
    )

  cap_in, cap_out, res = inverter(1.0)
  size = jnp.sqrt(res * p.route_c / (cap_in * p.route_r))
  spacing = jnp.sqrt(2 * res * (cap_out + cap_in) / (p.route_r * p.route_c))
  cap_in, cap_out, res = inverter(size)
  wire_c, wire_r = p.route_c * spacing, p.route_r * spacing
  tau = res * (cap_in + cap_out + wire_c) + wire_r * (cap_out + wire_c / 2)
  n, p_ = size * least_n, size * p.pn * least_n
  sides = jnp.stack(devices.gate_size(p, 1.0, n, p_, NO_FOLD_F))
  return Repeater(
    delay=0.693 * tau / spacing,
    energy=(cap_in + cap_out + wire_c) * p.vdd**2 / spacing,
    leakage=devices.inverter_leakage(p, n, p_) / spacing,
    pitch=p.route_pitch + sides.max(axis=0),
    sharing=jnp.floor(spacing / sides.min(axis=0)),
  )


def repeated(unit: Repeater, length: Array) -> Link:
  """A wire with repeaters."""
  return Link(unit.delay * length, unit.energy * length, unit.leakage * length)


def low_swing(p: devices.Process, length: Array) -> Link:
  """A wire that moves by `SWING_V`; `length` must be positive."""
  n = devices.LEAST_WIDTH_F * p.f
  p_ = p.pn * n
  layout = devices.LAYOUT_HEIGHT_F
  beta = 1 / (p.r_n * p.gm_n)
  least_in, least_out = p.gate_cap * (n + p_), devices.gate_output_cap(p, 1.0, n, p_)
  rise = 2 * devices.horowitz(p.r_p / p_ * (least_in + least_out), 1 / (p.r_p * p.gm_p), 0.0)
  rise = 2 * devices.horowitz(p.r_n / n * (least_in + least_out), beta, rise)
  fo4 = devices.horowitz(p.r_n / n * (least_out + 4 * least_in), beta, 0.0)

  wire_c, wire_r = p.route_c * length, p.route_r * length
  target = DRIVER_DELAY_FO4 * fo4
  driver = p.r_n * wire_c * jnp.log(2.0) * DRIVER_RESISTANCE_FACTOR / target
  driver = jnp.where(
    wire_r * wire_c > target, p.max_width, jnp.clip(driver, n, WIDEST_DRIVER_F * p.f)
  )
  driver_in = p.gate_cap * driver
  effort = (2 + p.pn) / (1 + p.pn)
  size = jnp.maximum(jnp.sqrt(effort * driver_in * 2 * least_in) / least_in, 1.0)

  nand_load = devices.gate_output_cap(p, 2.0, 2 * n, p_, layout) + size * least_in
  first = devices.horowitz(2 * p.r_n / n * nand_load, beta / 2, rise)
  inverter_load = devices.gate_output_cap(p, 1.0, size * n, size * p_, layout) + driver_in
  second = devices.horowitz(p.r_n / (size * n) * inverter_load, size * beta, 2 * first)
  drain = 2 * devices.drain_cap(p, driver, layout * p.f)
  far = columns.amp_input_cap(p, NO_FOLD_F * p.f)
  tau = (
    p.r_n / driver * DRIVER_RESISTANCE_FACTOR * (wire_c + drain)
    + wire_c * wire_r / 2
    + (p.r_n / driver + wire_r) * far
  )
  third = devices.horowitz(tau, beta, 2 * second)
  # Two wires, each with a driver of two transistors at both ends of the supply.
  leakage = 4 * (
    devices.inverter_leakage(p, size * n, size * p_)
    + devices.nand_leakage(p, 2, p_)
    + p.vdd * driver * p.off_n
  )
  return Link(
    first + second + third,
    2 * ((nand_load + inverter_load) * p.vdd**2 + (wire_c + drain + far) * SWING_V * OVERDRIVE_V),
    leakage,
  )
