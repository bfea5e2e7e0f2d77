"""The last step of NVSim's search for a tag array: its winners try other wires.

NVSim searches tags in aggressive bare wires whatever the user asks for. Then the winner of each
target tries the other local wires, and with the better of them every wire and drive between mats
(`LOCALS` and `ROUTINGS`, in this order); a later one is taken if it is strictly better on the
target's own metric. The partition is not searched again.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp

from cnnopt_jax import compilation
from cnnopt_jax.nvm import specs, structures
from cnnopt_jax.nvm.circuit import array, cache
from cnnopt_jax.nvm.search import metrics
from cnnopt_jax.nvm.technology import wires

Array = structures.Array
Drive, WireLayer = structures.Drive, wires.WireLayer

LOCALS = (WireLayer.LOCAL_AGGRESSIVE, WireLayer.LOCAL_CONSERVATIVE)
ROUTINGS = tuple(
  itertools.product(
    (WireLayer.GLOBAL_AGGRESSIVE, WireLayer.GLOBAL_CONSERVATIVE),
    (Drive.UNREPEATED, Drive.LOW_SWING, Drive.REPEATED),
  )
)


def variants(technology: structures.Technology) -> list[structures.Technology]:
  """The technology with every choice of wires; the one of the search comes first."""

  def wire(layer):
    return wires.wire(technology.feature_nm, layer, technology.temperature_k)

  return [
    dataclasses.replace(technology, local=wire(local), routing=wire(routing), drive=int(drive))
    for local in LOCALS
    for routing, drive in ROUTINGS
  ]


def refine(
  cell: structures.Cell, technologies: list[structures.Technology], winners: structures.Organization
) -> tuple[cache.ArrayTotals, Array]:
  """Chooses the wires of each target's winner; call inside `precision.float64()`.

  Args:
    cell: of the tags.
    technologies: `variants`.
    winners: organisation that is best for each target, `[9]`.

  Returns:
    Their totals `[9]`, and the index of their technology `[9]`.
  """
  stacked = jax.tree.map(lambda *leaves: array.as_array(jnp.stack(leaves)), *technologies)
  return _refine(jax.tree.map(array.as_array, cell), stacked, jax.tree.map(array.as_array, winners))


@functools.partial(jax.jit, compiler_options=compilation.QUICKLY)
def _refine(cell, technologies, winners):
  def totals_in(technology):
    ppa = array.array_model(cell, technology, winners, True)
    return cache.array_totals(
      ppa, ppa.breakdown.mat_read_latency_ns, ppa.breakdown.column_decoder_latency_ns
    )

  totals = jax.vmap(totals_in)(technologies)  # [variants, targets]
  targets = jnp.arange(len(specs.Target))
  values = metrics.array_metrics(totals)[targets, :, targets]
  values = values.reshape(-1, len(LOCALS), len(ROUTINGS))
  local = jnp.argmin(values[:, :, 0], axis=1)  # The first of equal ones.
  choice = local * len(ROUTINGS) + jnp.argmin(values[targets, local], axis=1)
  return jax.tree.map(lambda field: field[choice, targets], totals), choice
