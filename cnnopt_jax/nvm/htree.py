"""The H-tree between a bank's port and its mats.

Levels alternate, horizontal first; at each split the data bits halve if both branches work, else
one address bit chooses between them. Wire lengths double from the mats outwards, starting at one
mat's width and half a mat's height. Levels are data: `MAX_LEVELS` are computed in each direction
and those beyond are masked.
"""

from typing import NamedTuple

import jax.numpy as jnp

from cnnopt_jax.nvm import devices, structures

Array = structures.Array

MAX_LEVELS = 9  # 512 mats in a direction.


class HTree(NamedTuple):
  """Cost of one crossing.

  Attributes:
    delay: one way, ps.
    energy: of all bits on all active branches, fJ.
  """
  delay: Array
  energy: Array


def wire_delay(p: devices.Process, length: Array) -> Array:
  """90 % delay of an unrepeated wire driven at one end, ps."""
  return 2.3 / 2 * p.route_r * p.route_c * length**2


def wire_energy(p: devices.Process, length: Array) -> Array:
  """Energy of one transition on a wire, fJ."""
  return p.route_c * length * p.vdd**2


def htree(p: devices.Process, org: structures.Organization, mat_height: Array,
          mat_width: Array) -> HTree:
  """Routes `org`'s address, distributed and broadcast bits to its active mats."""
  horizontal, vertical = _log2(org.mat_columns), _log2(org.mat_rows)
  splits_h, splits_v = _log2(org.active_mat_columns), _log2(org.active_mat_rows)

  def bits(steps_h, steps_v):
    """Bits on all active wires after so many horizontal and vertical splits."""
    shared_h, shared_v = jnp.minimum(steps_h, splits_h), jnp.minimum(steps_v, splits_v)
    active = jnp.exp2(shared_h + shared_v)
    address = org.address_bits - (steps_h - shared_h) - (steps_v - shared_v)
    data = jnp.floor(org.distributed_bits / active)
    return active * (address + data + org.broadcast_bits)

  delay = energy = 0.0
  for level in range(MAX_LEVELS):
    # The longer direction goes first: this many splits of the other lie before this level.
    before = jnp.where(level == 0, 0.0, jnp.maximum(0.0, level - (horizontal - vertical)))
    length = mat_width * jnp.exp2(horizontal - 1 - level)
    here = level < horizontal
    delay = delay + jnp.where(here, wire_delay(p, length), 0.0)
    energy = energy + jnp.where(here, wire_energy(p, length) * bits(level, before), 0.0)

    before = jnp.maximum(0.0, level + horizontal - vertical)
    length = mat_height / 2 * jnp.exp2(vertical - 1 - level)
    here = level < vertical
    delay = delay + jnp.where(here, wire_delay(p, length), 0.0)
    energy = energy + jnp.where(here, wire_energy(p, length) * bits(before, level + 1), 0.0)
  return HTree(delay, energy)


def _log2(power_of_two: Array) -> Array:
  """Exact for the powers of two up to 2^24 that organisations hold."""
  return jnp.round(jnp.log2(power_of_two))
