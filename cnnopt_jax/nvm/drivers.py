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
  """A sized inverter chain; `S` is `MAX_STAGES`.

  Attributes:
    widths: NMOS width of stage j, um, `[S, ...]`.
    active: whether stage j exists, `[S, ...]`.
    output_caps: drain capacitance of stage j, fF, `[S, ...]`.
    first_input_cap, first_output_cap: of the first stage, fF.
    load_cap: fF.
    load_res: of the load's wire, kohm.
    valid: whether the transistors fit.
  """
  widths: Array
  active: Array
  output_caps: Array
  first_input_cap: Array
  first_output_cap: Array
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

  widths = [last]
  for _ in range(MAX_STAGES - 1):
    widths.append(jnp.maximum(widths[-1] / taper, least))
  widths = jnp.stack(widths)
  stage = jnp.arange(MAX_STAGES).reshape((-1,) + (1,) * stages.ndim)
  is_first = stage == stages - 1
  output_caps = devices.gate_output_cap(p, 1.0, widths, p.pn * widths)
  first = lambda caps: jnp.where(is_first, caps, 0.0).sum(axis=0)
  return Chain(widths, stage < stages, output_caps, first(_input_caps(p, widths)),
               first(output_caps), load_cap, load_res,
               (least_last <= p.max_width) & (stages <= MAX_STAGES))


def _input_caps(p: devices.Process, widths: Array) -> Array:
  """Gate capacitance of inverters, fF."""
  return p.gate_cap * (1 + p.pn) * widths


def _stage_loads(p: devices.Process, chain: Chain) -> Array:
  """Capacitance that stage j drives, fF, `[S, ...]`."""
  load_cap = jnp.broadcast_to(chain.load_cap, chain.widths.shape[1:])
  driven = jnp.concatenate([load_cap[None], _input_caps(p, chain.widths[:-1])])
  return chain.output_caps + driven


def chain_delay(p: devices.Process, chain: Chain, rise: Array) -> tuple[Array, Array]:
  """Delay and output rise of a chain, ps."""
  beta = 1 / (p.r_n * p.gm_n)  # Width cancels.
  tau = p.r_n / chain.widths * _stage_loads(p, chain)
  total = 0.0
  for j in reversed(range(MAX_STAGES)):
    wire = chain.load_cap * chain.load_res / 2 if j == 0 else 0.0
    delay = devices.horowitz(tau[j] + wire, beta, rise)
    total = total + jnp.where(chain.active[j], delay, 0.0)
    rise = jnp.where(chain.active[j], 2 * delay, rise)
  return total, rise


def chain_energy(p: devices.Process, chain: Chain) -> Array:
  """Energy of one transition through the chain and its load, fJ."""
  return jnp.where(chain.active, _stage_loads(p, chain), 0.0).sum(axis=0) * p.vdd**2


def chain_leakage(p: devices.Process, chain: Chain) -> Array:
  """Standing power, mW."""
  leakage = devices.inverter_leakage(p, chain.widths, p.pn * chain.widths)
  return jnp.where(chain.active, leakage, 0.0).sum(axis=0)


def chain_size(p: devices.Process, chain: Chain) -> tuple[Array, Array]:
  """Height (of its tallest gate) and width (of all) of a chain, um."""
  height, width = devices.gate_size(p, 1.0, chain.widths, p.pn * chain.widths)
  return (jnp.where(chain.active, height, 0.0).max(axis=0),
          jnp.where(chain.active, width, 0.0).sum(axis=0))


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
