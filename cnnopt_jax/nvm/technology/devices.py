"""Transistors, gates and wires as resistors and capacitors: NVSim's formula.cpp as equations.

Everything below here computes in one system: um, ps, fF, kohm, mA, V, fJ, mW. Then kohm fF = ps,
V mA = mW, V^2 fF = fJ, and no figure strays far from one.

    R_on(W) = m Vdd / (Ion W)
    g_m(W) = mu Cox / 2 (W / L) min(L v_sat / mu, Vdd - Vth)
    C_gate(W) = (C_ideal + C_overlap + 3 C_fringe) W
    C_drain = area C_j + sidewall C_sw + folds W C_dc, drains folded where W exceeds the row height
    horowitz(tau, beta, rise) = sqrt((ln(1/2) tau)^2 + beta tau rise)

`rise` is the reciprocal of NVSim's input ramp; a stage of delay d hands on `2 d`, a step is 0.
Horowitz, "Timing models for MOS circuits", Stanford SEL 84-004 (1984).
"""

from typing import NamedTuple

import jax.numpy as jnp

from cnnopt_jax.nvm import structures

Array = structures.Array

# Layout rules in F (NVSim's constant.h, from CACTI 6.5).
LEAST_WIDTH_F = 1.5
GAP_BETWEEN_N_AND_P_F = 2.0
GAP_BETWEEN_SAME_TYPE_F = 1.5
GAP_BETWEEN_POLY_F = 1.5
CONTACT_F = 1.0 + 2 * 0.75  # A contact and its gaps to the poly on both sides.
POWER_RAIL_F = 2.0
FOLD_OVERHEAD_F = 3.0
LAYOUT_HEIGHT_F = 40.0  # Transistor region when areas are computed.
ELECTRIC_HEIGHT_F = 20.0  # Transistor region when drains of gates are computed.

SATURATION_VELOCITY_UM_PER_PS = 0.1
NAND_LEAKAGE = (1.0, 1.0, 0.48, 0.31)  # Mean over inputs, by number of inputs (CACTI).
LN_HALF_SQUARED = 0.4804530139182014


class Process(NamedTuple):
  """A `Technology` in the units of this module.

  Attributes:
    f: feature size, um.
    vdd, vth: V.
    gate_cap: fF per um width.
    junction_cap: fF per um^2 of drain.
    sidewall_cap: fF per um of drain edge.
    channel_cap: drain to channel, fF per um width.
    pn: PMOS over NMOS width.
    r_n, r_p: on-resistance times width, kohm um.
    gm_n, gm_p: transconductance per width, mA / (V um).
    on_n, on_p, off_n, off_p: mA per um.
    max_width: um.
    wire_r, wire_c: local wires, kohm / um and fF / um.
    route_r, route_c: wires between mats.
    route_pitch: of them, um.
    route_drive: a `structures.Drive`.
  """

  f: Array
  vdd: Array
  vth: Array
  gate_cap: Array
  junction_cap: Array
  sidewall_cap: Array
  channel_cap: Array
  pn: Array
  r_n: Array
  r_p: Array
  gm_n: Array
  gm_p: Array
  on_n: Array
  on_p: Array
  off_n: Array
  off_p: Array
  max_width: Array
  wire_r: Array
  wire_c: Array
  route_r: Array
  route_c: Array
  route_pitch: Array
  route_drive: Array


def process(tech: structures.Technology) -> Process:
  """Converts units once; junction capacitances follow BSIM4's grading at reverse bias Vdd."""
  length = 1e-3 * tech.gate_length_nm
  bias = 1 + tech.vdd_v / 0.9  # Built-in potential 0.9 V.
  on_n, on_p = 1e-3 * tech.on_n_ua_per_um, 1e-3 * tech.on_p_ua_per_um

  def transconductance(mobility_cm2_per_vs):
    mobility = 1e-4 * mobility_cm2_per_vs  # um^2 / (V ps).
    overdrive = jnp.minimum(
      length * SATURATION_VELOCITY_UM_PER_PS / mobility, tech.vdd_v - tech.vth_v
    )
    return mobility * tech.oxide_cap_ff_per_um2 / (2 * length) * overdrive  # fF/(V ps) = mA/V^2.

  def resistance(on):
    return tech.resistance_multiplier * tech.vdd_v / on

  return Process(
    f=1e-3 * tech.feature_nm,
    vdd=tech.vdd_v,
    vth=tech.vth_v,
    gate_cap=(tech.gate_cap_ff_per_um + tech.overlap_cap_ff_per_um + 3 * tech.fringe_cap_ff_per_um),
    junction_cap=1.0 / bias**0.5,
    sidewall_cap=0.25 / bias**0.33,
    channel_cap=0.05 / bias**0.33,
    pn=tech.pn_ratio,
    r_n=resistance(on_n),
    r_p=resistance(on_p),
    gm_n=transconductance(tech.electron_mobility_cm2_per_vs),
    gm_p=transconductance(tech.hole_mobility_cm2_per_vs),
    on_n=on_n,
    on_p=on_p,
    off_n=1e-6 * tech.off_n_na_per_um,
    off_p=1e-6 * tech.off_p_na_per_um,
    max_width=1e-3 * tech.feature_nm * tech.max_width_f,
    wire_r=1e-3 * tech.local.resistance_ohm_per_um,
    wire_c=tech.local.capacitance_ff_per_um,
    route_r=1e-3 * tech.routing.resistance_ohm_per_um,
    route_c=tech.routing.capacitance_ff_per_um,
    route_pitch=tech.routing.pitch_um,
    route_drive=tech.drive,
  )


def horowitz(tau: Array, beta: Array, rise: Array) -> Array:
  """Delay of a stage, ps. `tau` must be positive for finite gradients."""
  return jnp.sqrt(LN_HALF_SQUARED * tau**2 + beta * tau * rise)


def _folds(p: Process, width: Array, limit: Array) -> tuple[Array, Array]:
  """Fingers of a transistor in a region `limit` high, and the height of its drain, um."""
  folded = width >= limit
  usable = jnp.maximum(limit - FOLD_OVERHEAD_F * p.f, 1e-3 * p.f)
  # Less a hair, so that a transistor of exactly four fingers has four in any unit.
  fingers = jnp.where(folded, jnp.ceil(width / usable - 1e-9), 1.0)
  return fingers, jnp.where(folded, limit, width)


def _regions(p: Process, width_n: Array, width_p: Array, height: Array) -> tuple[Array, Array]:
  """Heights of the N and the P region of a gate, um."""
  limit_p = width_p / (width_p + width_n) * (height - GAP_BETWEEN_N_AND_P_F * p.f)
  return limit_p * width_n / width_p, limit_p


def _drain(p: Process, fingers, drain_height, in_series, in_parallel):
  """Drain capacitance of `in_series` stacked or `in_parallel` side-by-side transistors, fF."""
  length = p.f * (
    in_parallel * CONTACT_F
    + (in_series * in_parallel * (fingers - 1) + in_series - 1) * GAP_BETWEEN_POLY_F
  )
  edges = 2 * length + jnp.where(fingers % 2 == 0, 0.0, drain_height)
  return (
    length * drain_height * p.junction_cap
    + edges * p.sidewall_cap
    + fingers * drain_height * p.channel_cap
  )


def drain_cap(p: Process, width: Array, limit: Array) -> Array:
  """Drain capacitance of one transistor in a region `limit` um high, fF."""
  fingers, drain_height = _folds(p, width, limit)
  return _drain(p, fingers, drain_height, 1.0, 1.0)


def stacked_drain_cap(p: Process, width: Array, limit: Array, in_series: Array) -> Array:
  """Drain capacitance of equal transistors in series, without a complement, fF."""
  return _drain(p, *_folds(p, width, limit), in_series, 1.0)


def gate_output_cap(
  p: Process, inputs: Array, width_n: Array, width_p: Array, height_f: float = ELECTRIC_HEIGHT_F
) -> Array:
  """Output capacitance of a NAND (an inverter for `inputs` = 1) `height_f` F high, fF."""
  limit_n, limit_p = _regions(p, width_n, width_p, height_f * p.f)
  return _drain(p, *_folds(p, width_n, limit_n), inputs, 1.0) + _drain(
    p, *_folds(p, width_p, limit_p), 1.0, inputs
  )


def gate_size(
  p: Process, inputs: Array, width_n: Array, width_p: Array, height_f: float = LAYOUT_HEIGHT_F
) -> tuple[Array, Array]:
  """Height and width of a NAND (an inverter for `inputs` = 1), um."""
  limit_n, limit_p = _regions(p, width_n, width_p, height_f * p.f)
  fingers_n, height_n = _folds(p, width_n, limit_n)
  fingers_p, height_p = _folds(p, width_p, limit_p)

  def unit(fingers):
    return fingers + (fingers - 1) * GAP_BETWEEN_POLY_F

  n = unit(fingers_n) * inputs + (inputs - 1) * GAP_BETWEEN_POLY_F
  p_ = unit(fingers_p) * inputs + (inputs - 1) * CONTACT_F
  width = p.f * (2 * CONTACT_F + jnp.maximum(n, p_))
  height = height_n + height_p + p.f * (GAP_BETWEEN_N_AND_P_F + 2 * POWER_RAIL_F)
  return height, width


def transistor_size(p: Process, width: Array, limit: Array) -> tuple[Array, Array]:
  """Height and width of a lone transistor in a region `limit` um high, um."""
  fingers, height = _folds(p, width, limit)
  return height, p.f * (2 * CONTACT_F + fingers + (fingers - 1) * GAP_BETWEEN_POLY_F)


def stacked_size(p: Process, width: Array, limit: Array, in_series: Array) -> tuple[Array, Array]:
  """Height and width of equal transistors in series, laid out as a NAND without PMOS, um."""
  fingers, height = _folds(p, width, limit)
  unit = fingers + (fingers - 1) * GAP_BETWEEN_POLY_F
  n = unit * in_series + (in_series - 1) * GAP_BETWEEN_POLY_F
  return height, p.f * (2 * CONTACT_F + jnp.maximum(n, (in_series - 1) * CONTACT_F))


def nand_leakage(p: Process, inputs: Array, width_p: Array) -> Array:
  """Standing power of a NAND of two or three inputs, mW."""
  return jnp.asarray(NAND_LEAKAGE)[inputs] * inputs * width_p * p.off_p * p.vdd


def inverter_leakage(p: Process, width_n: Array, width_p: Array) -> Array:
  """Standing power of an inverter, mW."""
  return jnp.maximum(width_n * p.off_n, width_p * p.off_p) * p.vdd
