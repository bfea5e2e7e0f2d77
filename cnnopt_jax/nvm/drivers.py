"""Inverter chains, and decoders made of a NAND and a chain per output.

A chain is sized by logical effort (Sutherland, Sproull, Harris, 1999): path effort
F = g C_load / C_in, about log4 F stages, their count made odd because the word line is driven
true, each stage wider than the one before by f = F^(1 / (stages + 1)). Stage j counts from the
load, so its width is w_0 / f^j, never below the least one. The number of stages is data: all
`MAX_STAGES` are computed and those beyond it are masked. All functions are elementwise.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from cnnopt_jax.nvm import devices, structures

Array = structures.Array

MAX_STAGES = 9
OPTIMAL_EFFORT = 4.0


class Chain(NamedTuple):
  """A sized inverter chain.

  Attributes:
    widths: NMOS width of stage j, um, a list of `MAX_STAGES` arrays.
    active: whether stage j exists, likewise.
    input_caps: gate capacitance of stage j, fF.
    output_caps: drain capacitance of stage j, fF.
    first_input_cap: gate capacitance of the first stage, fF.
    load_cap: fF.
    load_res: of the load's wire, kohm.
    valid: whether the transistors fit.
  """
  widths: list[Array]
  active: list[Array]
  input_caps: list[Array]
  output_caps: list[Array]
  first_input_cap: Array
  load_cap: Array
  load_res: Array
  valid: Array


class Decoder(NamedTuple):
  """`copies` outputs, each a NAND (none if `inputs` is 0) and a chain.

  Attributes:
    inputs: 0, 2 or 3.
    copies: outputs.
    chain: the chain of one output.
    nand_output_cap: fF, 0 without a NAND.
    height, width: of all outputs stacked, um.
  """
  inputs: Array
  copies: Array
  chain: Chain
  nand_output_cap: Array
  height: Array
  width: Array


def _stage_count(path_effort):
  """The integer nearest to log4 F, less one: the gate before the chain is a stage too."""
  stages = jnp.floor(jnp.log(path_effort) / np.log(OPTIMAL_EFFORT) + 0.5) - 1
  return jnp.maximum(stages, 0.0)


def size_chain(p: devices.Process, effort: Array, input_cap: Array, load_cap: Array,
               load_res: Array = 0.0, buffering: Array = structures.Buffering.LATENCY,
               least_current: Array = 0.0) -> Chain:
  """Sizes a chain.

  Args:
    p: process.
    effort: logical effort of the gate in front.
    input_cap: its input capacitance, fF.
    load_cap: fF.
    load_res: wire resistance of the load, kohm.
    buffering: a `Buffering`.
    least_current: what the last stage must deliver, mA.

  Returns:
    The `Chain`.
  """
  least = devices.LEAST_WIDTH_F * p.f
  least_last = jnp.maximum(least, least_current / p.on_n)

  # For latency: the last stage's input is the load over f; beyond the widest transistor the
  # taper follows from what that transistor loads.
  effort_to_load = jnp.maximum(1.0, effort * load_cap / input_cap)
  stages = _stage_count(effort_to_load)
  stages = stages + (stages % 2 == 0)
  taper = jnp.exp(jnp.log(effort_to_load) / (stages + 1))
  last = jnp.maximum(least, load_cap / taper / (p.gate_cap * (1 + p.pn)))
  too_wide = last > p.max_width
  widest_effort = effort * p.gate_cap * (1 + p.pn) * p.max_width / input_cap
  taper = jnp.where(too_wide, jnp.exp(jnp.log(widest_effort) / stages), taper)
  last = jnp.minimum(last, p.max_width)

  # Balanced: just wide enough for the current. Also the way out where latency falls short of it.
  effort_to_last = jnp.maximum(1.0, effort * p.gate_cap * (1 + p.pn) * least_last / input_cap)
  balanced_stages = _stage_count(effort_to_last)
  balanced_stages = balanced_stages + balanced_stages % 2 + 1
  balanced_taper = jnp.exp(jnp.log(effort_to_last) / balanced_stages)

  is_area = buffering == structures.Buffering.AREA
  is_balanced = (buffering == structures.Buffering.BALANCED) | (
      (buffering == structures.Buffering.LATENCY) & (last < least_last))
  stages = jnp.where(is_area, 1.0, jnp.where(is_balanced, balanced_stages, stages))
  last = jnp.where(is_area | is_balanced, least_last, last)
  taper = jnp.where(is_balanced, balanced_taper, taper)

  widths, active, first_input_cap = [], [], 0.0
  width = last
  for j in range(MAX_STAGES):
    widths.append(width)
    active.append(j < stages)
    first_input_cap = jnp.where(j == stages - 1, p.gate_cap * (1 + p.pn) * width, first_input_cap)
    width = jnp.maximum(width / taper, least)
  input_caps = [p.gate_cap * (1 + p.pn) * width for width in widths]
  output_caps = [devices.gate_output_cap(p, 1.0, width, p.pn * width) for width in widths]
  return Chain(widths, active, input_caps, output_caps, first_input_cap, load_cap, load_res,
               (least_last <= p.max_width) & (stages <= MAX_STAGES))


def _stage_loads(chain: Chain) -> list[Array]:
  """Capacitance that stage j drives, fF."""
  driven = [chain.load_cap] + chain.input_caps[:-1]
  return [own + next_ for own, next_ in zip(chain.output_caps, driven)]


def chain_delay(p: devices.Process, chain: Chain, rise: Array) -> tuple[Array, Array]:
  """Delay and output rise of a chain, ps."""
  beta = 1 / (p.r_n * p.gm_n)  # Width cancels.
  loads = _stage_loads(chain)
  total = 0.0
  for j in reversed(range(MAX_STAGES)):
    wire = chain.load_cap * chain.load_res / 2 if j == 0 else 0.0
    delay = devices.horowitz(p.r_n / chain.widths[j] * loads[j] + wire, beta, rise)
    total = total + jnp.where(chain.active[j], delay, 0.0)
    rise = jnp.where(chain.active[j], 2 * delay, rise)
  return total, rise


def chain_energy(p: devices.Process, chain: Chain) -> Array:
  """Energy of one transition through the chain and its load, fJ."""
  switched = sum(jnp.where(active, load, 0.0)
                 for active, load in zip(chain.active, _stage_loads(chain)))
  return switched * p.vdd**2


def chain_leakage(p: devices.Process, chain: Chain) -> Array:
  """Standing power, mW."""
  return sum(jnp.where(active, devices.inverter_leakage(p, width, p.pn * width), 0.0)
             for active, width in zip(chain.active, chain.widths))


def chain_size(p: devices.Process, chain: Chain) -> tuple[Array, Array]:
  """Height (of its tallest gate) and width (of all) of a chain, um."""
  height = width = 0.0
  for active, n_width in zip(chain.active, chain.widths):
    stage_height, stage_width = devices.gate_size(p, 1.0, n_width, p.pn * n_width)
    height = jnp.maximum(height, jnp.where(active, stage_height, 0.0))
    width = width + jnp.where(active, stage_width, 0.0)
  return height, width


def size_decoder(p: devices.Process, inputs: Array, copies: Array, load_cap: Array,
                 load_res: Array = 0.0, buffering: Array = structures.Buffering.LATENCY,
                 least_current: Array = 0.0) -> Decoder:
  """Sizes a decoder; `inputs` is an integer array of 0, 2 or 3, the rest as in `size_chain`."""
  n = jnp.maximum(inputs, 1)
  least = devices.LEAST_WIDTH_F * p.f
  width_n, width_p = n * least, p.pn * least
  chain = size_chain(p, (n + p.pn) / (1 + p.pn), p.gate_cap * (width_n + width_p), load_cap,
                     load_res, buffering, least_current)
  nand = inputs > 0
  height, width = chain_size(p, chain)
  nand_height, nand_width = devices.gate_size(p, n, width_n, width_p)
  height = jnp.maximum(height, jnp.where(nand, nand_height, 0.0))
  width = width + jnp.where(nand, nand_width, 0.0)
  output_cap = jnp.where(nand, devices.gate_output_cap(p, n, width_n, width_p), 0.0)
  return Decoder(inputs, copies, chain, output_cap, height * copies, width)


def nand_input_cap(p: devices.Process, inputs: Array) -> Array:
  """Capacitance of one NAND input as the stage before sees it, fF."""
  return p.gate_cap * devices.LEAST_WIDTH_F * p.f * (inputs + p.pn)


def decoder_delay(p: devices.Process, decoder: Decoder, rise: Array) -> tuple[Array, Array]:
  """Delay and output rise, ps."""
  n = jnp.maximum(decoder.inputs, 1)
  resistance = p.r_n / (devices.LEAST_WIDTH_F * p.f)  # n in series, each n times as wide.
  load = decoder.nand_output_cap + decoder.chain.first_input_cap
  delay = devices.horowitz(resistance * load, 1 / (n * p.r_n * p.gm_n), rise)
  nand = decoder.inputs > 0
  chain, rise = chain_delay(p, decoder.chain, jnp.where(nand, 2 * delay, rise))
  return jnp.where(nand, delay, 0.0) + chain, rise


def decoder_energy(p: devices.Process, decoder: Decoder) -> Array:
  """Energy of selecting one output, fJ."""
  load = decoder.nand_output_cap + decoder.chain.first_input_cap
  nand = jnp.where(decoder.inputs > 0, load * p.vdd**2, 0.0)
  return nand + chain_energy(p, decoder.chain)


def decoder_leakage(p: devices.Process, decoder: Decoder) -> Array:
  """Standing power of all outputs, mW."""
  nand = devices.nand_leakage(p, decoder.inputs, p.pn * devices.LEAST_WIDTH_F * p.f)
  return (chain_leakage(p, decoder.chain) + nand) * decoder.copies
