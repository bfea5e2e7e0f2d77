"""The tag comparator: four quarter comparators behind one inverter chain each (CACTI 6.5)."""

from typing import NamedTuple

import jax.numpy as jnp

from cnnopt_jax.nvm import structures
from cnnopt_jax.nvm.technology import devices

Array = structures.Array

# NMOS and PMOS widths of the chain in F, then of a compare branch and its precharger.
CHAIN_F = ((7.5, 12.5), (15.0, 25.0), (30.0, 50.0), (50.0, 100.0))
BRANCH_F, PRECHARGE_F = 12.5, 37.5
QUARTERS = 4


class Comparator(NamedTuple):
  """Cost for one way: um^2, ps, fJ, mW."""

  area: Array
  delay: Array
  energy: Array
  leakage: Array


def comparator(p: devices.Process, tag_bits: Array) -> Comparator:
  """Compares `tag_bits` bits (whole quarters count) with an address that arrives as a step."""
  bits = jnp.floor(tag_bits / QUARTERS)
  widths_n, widths_p = (p.f * jnp.asarray(widths) for widths in zip(*CHAIN_F))
  branch = BRANCH_F * p.f
  output_caps = devices.gate_output_cap(p, 1.0, widths_n, widths_p)

  # A branch is two NMOS in series; laid out 40 F high for its load and its area alike.
  layout = devices.LAYOUT_HEIGHT_F * p.f
  branch_cap = devices.stacked_drain_cap(p, branch, layout, 2.0)
  branch_height, branch_width = devices.stacked_size(p, branch, layout, 2.0)

  loads = output_caps[:-1] + p.gate_cap * (widths_n + widths_p)[1:]
  taus = p.r_n / widths_n[:-1] * loads
  rise, delay = 0.0, 0.0
  for i in range(len(CHAIN_F) - 1):
    stage = devices.horowitz(taus[i], 1 / (p.r_n * p.gm_n), rise)
    delay, rise = delay + stage, 2 * stage
  bottom = output_caps[-1] + bits * branch_cap
  top = bits * branch_cap + devices.drain_cap(p, PRECHARGE_F * p.f, devices.ELECTRIC_HEIGHT_F * p.f)
  bottom_res, top_res = p.r_n / widths_n[-1], 2 * p.r_n / branch
  delay = delay + devices.horowitz(bottom_res * bottom + (bottom_res + top_res) * top, 0.0, rise)

  heights, widths = devices.gate_size(p, 1.0, widths_n, widths_p)
  area = (heights.max() + branch_height) * jnp.maximum(widths.sum(), bits * branch_width)
  leakage = devices.inverter_leakage(p, widths_n, widths_p).sum()
  return Comparator(
    QUARTERS * area, delay, QUARTERS * (loads.sum() + bottom + top) * p.vdd**2, QUARTERS * leakage
  )
