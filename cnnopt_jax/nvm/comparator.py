"""The tag comparator: four quarter comparators behind one inverter chain each (CACTI 6.5)."""

from typing import NamedTuple

import jax.numpy as jnp

from cnnopt_jax.nvm import devices, structures

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
  chain = [(n * p.f, w * p.f) for n, w in CHAIN_F]
  branch = BRANCH_F * p.f
  input_caps = [p.gate_cap * (n + w) for n, w in chain]
  output_caps = [devices.gate_output_cap(p, 1.0, n, w) for n, w in chain]

  # A branch is two NMOS in series; laid out 40 F high for its load and its area alike.
  layout = devices.LAYOUT_HEIGHT_F * p.f
  branch_cap = devices.stacked_drain_cap(p, branch, layout, 2.0)
  branch_height, branch_width = devices.stacked_size(p, branch, layout, 2.0)

  beta = 1 / (p.r_n * p.gm_n)
  rise, delay, switched = 0.0, 0.0, 0.0
  for i in range(len(chain) - 1):
    load = output_caps[i] + input_caps[i + 1]
    stage = devices.horowitz(p.r_n / chain[i][0] * load, beta, rise)
    delay, rise, switched = delay + stage, 2 * stage, switched + load
  bottom = output_caps[-1] + bits * branch_cap
  top = bits * branch_cap + devices.drain_cap(p, PRECHARGE_F * p.f,
                                              devices.ELECTRIC_HEIGHT_F * p.f)
  bottom_res, top_res = p.r_n / chain[-1][0], 2 * p.r_n / branch
  delay = delay + devices.horowitz(bottom_res * bottom + (bottom_res + top_res) * top, 0.0, rise)

  sizes = [devices.gate_size(p, 1.0, n, w) for n, w in chain]
  height, width = sizes[0][0], sum(size[1] for size in sizes)
  for size in sizes[1:]:
    height = jnp.maximum(height, size[0])
  area = (height + branch_height) * jnp.maximum(width, bits * branch_width) * QUARTERS
  leakage = sum(devices.inverter_leakage(p, n, w) for n, w in chain)
  return Comparator(area, delay, QUARTERS * (switched + bottom + top) * p.vdd**2,
                    QUARTERS * leakage)
