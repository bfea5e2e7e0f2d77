"""The H-tree between a bank's port and its mats.

Levels alternate, horizontal first; at each split the data bits halve if both branches work, else
one address bit chooses between them. Wire lengths double from the mats outwards, starting at one
mat's width and half a mat's height. Levels are data: `MAX_LEVELS` are computed in each direction
and those beyond are masked.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

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
  splits_h, splits_v = jnp.log2(org.active_mat_columns), jnp.log2(org.active_mat_rows)
  extra = jnp.log2(org.mat_columns) - jnp.log2(org.mat_rows)  # The longer direction goes first.

  def bits(steps_h, steps_v, power_h, power_v):
    """Bits on all active wires after so many horizontal and vertical splits (and 2^them)."""
    active = (jnp.minimum(power_h, org.active_mat_columns)
              * jnp.minimum(power_v, org.active_mat_rows))
    address = (org.address_bits - jnp.maximum(0.0, steps_h - splits_h)
               - jnp.maximum(0.0, steps_v - splits_v))
    return active * (address + jnp.floor(org.distributed_bits / active) + org.broadcast_bits)

  # All levels on a leading axis; wire i of a direction lies behind i splits of its own direction
  # (a vertical one behind i + 1), and the port is horizontal.
  level = np.arange(MAX_LEVELS).reshape((-1,) + (1,) * jnp.ndim(mat_width))
  power = np.ldexp(1.0, level)
  port = level == 0
  horizontal = bits(
      level, jnp.where(port, 0.0, jnp.maximum(0.0, level - extra)), power,
      jnp.where(port, 1.0, jnp.maximum(1.0, power * org.mat_rows / org.mat_columns)))
  vertical = bits(
      jnp.maximum(0.0, level + extra), level + 1,
      jnp.maximum(1.0, power * org.mat_columns / org.mat_rows), 2 * power)
  length_h, length_v = mat_width * org.mat_columns / 2, mat_height * org.mat_rows / 4
  bit_length = (jnp.where(power < org.mat_columns, horizontal * length_h / power, 0.0)
                + jnp.where(power < org.mat_rows, vertical * length_v / power, 0.0)).sum(axis=0)
  # The squared lengths of a direction's levels are a geometric series of ratio four.
  squares = (mat_width**2 * (org.mat_columns**2 - 1) + mat_height**2 / 4 * (org.mat_rows**2 - 1))
  return HTree(wire_delay(p, 1.0) * squares / 3, wire_energy(p, bit_length))
