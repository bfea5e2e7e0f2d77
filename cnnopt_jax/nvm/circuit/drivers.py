"""Inverter chains, and decoders made of a NAND and a chain per output.

A chain is sized by logical effort (Sutherland, Sproull, Harris, 1999): path effort
F = g C_load / C_in, about log4 F stages, their count made odd because the word line is driven
true, each stage wider than the one before by f = F^(1 / (stages + 1)). Stage j counts from the
load, so its width is w_0 / f^j, never below the least one. The number of stages is data: all
`max_stages` are computed and those beyond it are masked. Sizing a decoder yields a record of time
constants, energy, leakage and size; only its delay waits for the rise of its inputs. All
functions are elementwise.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnnopt_jax.nvm import structures
from cnnopt_jax.nvm.technology import devices

Array = structures.Array

MAX_STAGES = 9
OPTIMAL_EFFORT = 4.0


class Decoder(NamedTuple):
  """A sized decoder: `copies` outputs, each a NAND (none for 0 inputs) and a chain.

  Attributes:
    nand_tau: time constant of the NAND, ps, 0 without one.
    nand_beta: its Horowitz beta.
    stage_tau: time constant of stage j of the chain, ps, `[max_stages, ...]`.
    stages: stages of the chain.
    energy: of selecting one output, fJ.
    leakage: of all outputs, mW.
    height, width: of all outputs stacked, um.
    first_cap: input and output capacitance of the first stage, fF.
    valid: whether the transistors fit.
  """

  nand_tau: Array
  nand_beta: Array
  stage_tau: Array
  stages: Array
  energy: Array
  leakage: Array
  height: Array
  width: Array
  first_cap: Array
  valid: Array


def _stage_count(path_effort):
  """The integer nearest to log4 F, less one: the gate before the chain is a stage too."""
  stages = jnp.floor(jnp.log(path_effort) / np.log(OPTIMAL_EFFORT) + 0.5) - 1
  return jnp.maximum(stages, 0.0)


def _size_chain(p, effort, input_cap, load_cap, buffering, least_current):
  """Stages, width of the last one in um, taper, and whether the widths are allowed."""
  least = devices.LEAST_WIDTH_F * p.f
  least_last = jnp.maximum(least, least_current / p.on_n)

  # For latency: the last stage's input is the load over f; beyond the widest transistor the
  # taper follows from what that transistor loads.
  to_load = jnp.maximum(1.0, effort * load_cap / input_cap)
  stages = _stage_count(to_load)
  stages = stages + (stages % 2 == 0)
  taper = jnp.exp(jnp.log(to_load) / (stages + 1))
  last = jnp.maximum(least, load_cap / taper / (p.gate_cap * (1 + p.pn)))
  to_widest = effort * p.gate_cap * (1 + p.pn) * p.max_width / input_cap
  taper = jnp.where(last > p.max_width, jnp.exp(jnp.log(to_widest) / stages), taper)
  last = jnp.minimum(last, p.max_width)

  # Balanced: just wide enough for the current. Also the way out where latency falls short of it.
  to_last = jnp.maximum(1.0, effort * p.gate_cap * (1 + p.pn) * least_last / input_cap)
  balanced_stages = _stage_count(to_last)
  balanced_stages = balanced_stages + balanced_stages % 2 + 1
  balanced_taper = jnp.exp(jnp.log(to_last) / balanced_stages)

  is_area = buffering == structures.Buffering.AREA
  is_balanced = (buffering == structures.Buffering.BALANCED) | (
    (buffering == structures.Buffering.LATENCY) & (last < least_last)
  )
  return (
    jnp.where(is_area, 1.0, jnp.where(is_balanced, balanced_stages, stages)),
    jnp.where(is_area | is_balanced, least_last, last),
    jnp.where(is_balanced, balanced_taper, taper),
    least_last <= p.max_width,
  )


def size_decoder(
  p: devices.Process,
  inputs: Array,
  copies: Array,
  load_cap: Array,
  load_res: Array = 0.0,
  buffering: Array = structures.Buffering.LATENCY,
  least_current: Array = 0.0,
  *,
  max_stages: int = MAX_STAGES,
) -> Decoder:
  """Sizes a decoder.

  Args:
    p: process.
    inputs: of the NAND: 0, 2 or 3, integers.
    copies: outputs.
    load_cap: of one output, fF.
    load_res: wire resistance of that load, kohm.
    buffering: a `Buffering`.
    least_current: what an output must deliver, mA.
    max_stages: computed; a decoder that needs more is not valid.

  Returns:
    The `Decoder`, of the arguments' common batch shape.
  """
  inputs, copies, load_cap, load_res, buffering, least_current = jnp.broadcast_arrays(
    inputs, copies, load_cap, load_res, buffering, least_current
  )
  n = jnp.maximum(inputs, 1)
  nand = inputs > 0
  least = devices.LEAST_WIDTH_F * p.f
  nand_n, nand_p = n * least, p.pn * least
  stages, last, taper, fits = _size_chain(
    p, (n + p.pn) / (1 + p.pn), p.gate_cap * (nand_n + nand_p), load_cap, buffering, least_current
  )
  widths = [last]
  for _ in range(max_stages - 1):
    widths.append(jnp.maximum(widths[-1] / taper, least))
  # The NAND is one more gate on the stage axis. The barrier keeps the recurrence above from being
  # fused, and so recomputed, into everything below.
  widths_n = jax.lax.optimization_barrier(jnp.stack([*widths, nand_n]))
  gate_inputs = jnp.stack([jnp.ones_like(n)] * max_stages + [n])
  widths_p = jnp.concatenate([p.pn * widths_n[:-1], jnp.broadcast_to(nand_p, n.shape)[None]])
  output_caps = devices.gate_output_cap(p, gate_inputs, widths_n, widths_p)
  heights, gate_widths = devices.gate_size(p, gate_inputs, widths_n, widths_p)
  leakages = devices.inverter_leakage(p, widths_n[:-1], widths_p[:-1])

  stage = jnp.arange(max_stages).reshape((-1,) + (1,) * stages.ndim)

  def active(values):
    return jnp.where(stage < stages, values, 0.0)

  def first(values):
    return jnp.where(stage == stages - 1, values, 0.0).sum(axis=0)

  def there(value):
    return jnp.where(nand, value, 0.0)

  input_caps = p.gate_cap * (1 + p.pn) * widths_n[:-1]
  loads = output_caps[:-1] + jnp.concatenate([load_cap[None], input_caps[:-1]])
  nand_load = output_caps[-1] + first(input_caps)
  wire_tau = jnp.where(stage == 0, load_cap * load_res / 2, 0.0)  # Behind the last stage.
  return Decoder(
    nand_tau=there(p.r_n / least * nand_load),  # n in series, each n times as wide.
    nand_beta=1 / (n * p.r_n * p.gm_n),
    stage_tau=p.r_n / widths_n[:-1] * loads + wire_tau,
    stages=stages,
    energy=(there(nand_load) + active(loads).sum(axis=0)) * p.vdd**2,
    leakage=(active(leakages).sum(axis=0) + devices.nand_leakage(p, inputs, nand_p)) * copies,
    height=jnp.maximum(active(heights[:-1]).max(axis=0), there(heights[-1])) * copies,
    width=active(gate_widths[:-1]).sum(axis=0) + there(gate_widths[-1]),
    first_cap=first(input_caps + output_caps[:-1]),
    valid=fits & (stages <= max_stages),
  )


def nand_input_cap(p: devices.Process, inputs: Array) -> Array:
  """Capacitance of one NAND input as the stage before sees it, fF."""
  return p.gate_cap * devices.LEAST_WIDTH_F * p.f * (inputs + p.pn)


def decoder_delay(p: devices.Process, decoder: Decoder, rise: Array) -> tuple[Array, Array]:
  """Delay and output rise for inputs that rise in `rise` ps, ps."""
  nand = decoder.nand_tau > 0
  delay = devices.horowitz(jnp.where(nand, decoder.nand_tau, 1.0), decoder.nand_beta, rise)
  total = jnp.where(nand, delay, 0.0)
  rise = jnp.where(nand, 2 * delay, rise)
  beta = 1 / (p.r_n * p.gm_n)  # Width cancels.

  def stage(state, inputs):
    total, rise = state
    tau, j = inputs
    delay = devices.horowitz(tau, beta, rise)
    active = j < decoder.stages
    return (total + jnp.where(active, delay, 0.0), jnp.where(active, 2 * delay, rise)), None

  start = jax.tree.map(
    lambda x: jnp.broadcast_to(x, jnp.broadcast_shapes(x.shape, decoder.stage_tau.shape[1:])),
    (total, rise),
  )
  stages = jnp.arange(decoder.stage_tau.shape[0])
  # A scan, so that the stages compile once; the first stage of a chain is its last index.
  return jax.lax.scan(stage, start, (decoder.stage_tau, stages), reverse=True)[0]
