"""The H-tree between a bank's port and its mats.

Levels alternate, horizontal first; at each split the data bits halve if both branches work, else
one address bit chooses between them. Wire lengths double from the mats outwards, starting at one
mat's width and half a mat's height. Levels are data: `MAX_LEVELS` are computed in each direction
and those beyond are masked. Bare wires run above the mats; repeaters take area between them, which
lengthens the wires further out.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnnopt_jax.nvm import structures
from cnnopt_jax.nvm.circuit import links
from cnnopt_jax.nvm.technology import devices

Array = structures.Array

MAX_LEVELS = 9  # 512 mats in a direction.


class HTree(NamedTuple):
  """Cost of one crossing.

  Attributes:
    delay: one way, ps.
    energy: of all bits on all active branches, fJ.
    leakage: of all branches, mW.
    height, width: what it adds to the bank, um.
  """

  delay: Array
  energy: Array
  leakage: Array
  height: Array
  width: Array


class Levels(NamedTuple):
  """The wires of one direction, outermost level first, `[MAX_LEVELS, ...]`.

  Attributes:
    exists: whether there is such a level.
    bits: wires in a branch.
    active: branches that carry signals in an access.
    branches: all of them.
    parallel: branches side by side.
    length: from the mats alone, um.
  """

  exists: Array
  bits: Array
  active: Array
  branches: Array
  parallel: Array
  length: Array


def htree(
  p: devices.Process, org: structures.Organization, mat_height: Array, mat_width: Array
) -> HTree:
  """Routes `org`'s address, distributed and broadcast bits to its active mats."""
  horizontal, vertical = _levels(org, mat_height, mat_width)

  def bare(_):
    unit = links.unrepeated(p, jnp.ones_like(mat_width))
    bit_length = sum(
      (jnp.where(way.exists, way.active * way.bits * way.length, 0.0)).sum(axis=0)
      for way in (horizontal, vertical)
    )
    # The squared lengths of a direction's levels are a geometric series of ratio four.
    squares = mat_width**2 * (org.mat_columns**2 - 1) + mat_height**2 / 4 * (org.mat_rows**2 - 1)
    none = jnp.zeros_like(bit_length)
    return HTree(unit.delay * squares / 3, unit.energy * bit_length, none, none, none)

  return jax.lax.cond(
    p.route_drive == structures.Drive.UNREPEATED,
    bare,
    lambda _: _driven(p, org, horizontal, vertical),
    None,
  )


def _levels(org, mat_height, mat_width) -> tuple[Levels, Levels]:
  """Horizontal and vertical levels."""
  splits_h, splits_v = jnp.log2(org.active_mat_columns), jnp.log2(org.active_mat_rows)
  extra = jnp.log2(org.mat_columns) - jnp.log2(org.mat_rows)  # The longer direction goes first.

  def branch(steps_h, steps_v, power_h, power_v):
    """Active branches and the bits of one after so many splits (and 2^them)."""
    active = jnp.minimum(power_h, org.active_mat_columns) * jnp.minimum(
      power_v, org.active_mat_rows
    )
    address = (
      org.address_bits - jnp.maximum(0.0, steps_h - splits_h) - jnp.maximum(0.0, steps_v - splits_v)
    )
    return active, address + jnp.floor(org.distributed_bits / active) + org.broadcast_bits

  # Wire i of a direction lies behind i splits of its own direction (a vertical one behind i + 1),
  # and the port is horizontal.
  level = np.arange(MAX_LEVELS).reshape((-1,) + (1,) * jnp.ndim(mat_width))
  power = np.ldexp(1.0, level)
  port = level == 0
  other = jnp.where(port, 1.0, jnp.maximum(1.0, power * org.mat_rows / org.mat_columns))
  active, bits = branch(level, jnp.where(port, 0.0, jnp.maximum(0.0, level - extra)), power, other)
  # The first level stands alone, then the surplus ones; only pairs have neighbours.
  horizontal = Levels(
    power < org.mat_columns,
    bits,
    active,
    power * other,
    other,
    mat_width * org.mat_columns / 2 / power,
  )
  other = jnp.maximum(1.0, power * org.mat_columns / org.mat_rows)
  active, bits = branch(jnp.maximum(0.0, level + extra), level + 1, other, 2 * power)
  vertical = Levels(
    power < org.mat_rows,
    bits,
    active,
    2 * power * other,
    other,
    mat_height * org.mat_rows / 4 / power,
  )
  return horizontal, vertical


def _driven(p, org, horizontal, vertical) -> HTree:
  """The tree with repeaters, or with a low swing."""
  is_repeated = p.route_drive == structures.Drive.REPEATED
  unit = links.repeater(p)
  # Area that the wires of one branch take, side by side in the shadow of one repeater.

  def track(count):
    return jnp.where(is_repeated, jnp.ceil(count / unit.sharing) * unit.pitch, 0.0)

  rows, cols = jnp.round(jnp.log2(org.mat_rows)), jnp.round(jnp.log2(org.mat_columns))
  more_columns = jnp.maximum(cols - rows, 0.0)
  level = np.arange(MAX_LEVELS).reshape((-1,) + (1,) * (horizontal.bits.ndim - 1))

  def crossing(way, index):
    """Half the track of another direction's level; several levels where a surplus is inside."""
    half = jnp.where(way.exists, track(way.bits) / 2, 0.0)
    picked = jnp.take_along_axis(half, jnp.clip(index, 0, MAX_LEVELS - 1).astype(int), axis=0)
    return jnp.where((index >= 0) & (index < MAX_LEVELS), picked, 0.0), half

  # Level l adds e_l to a wire that is doubled at each level further out.
  shape = np.broadcast_shapes(horizontal.bits.shape, level.shape)
  beside_h, half_v = crossing(vertical, jnp.broadcast_to(level - more_columns, shape))
  inner = jnp.where(level >= cols - 1 - more_columns, half_v, 0.0).sum(axis=0)
  beside_h = jnp.where(level == cols - 1, inner, beside_h)
  beside_v, _ = crossing(horizontal, jnp.broadcast_to(level + 1 + more_columns, shape))
  power = np.ldexp(1.0, level)

  def cost(way, beside):
    added = jnp.where(way.exists, beside * power, 0.0)
    added = jnp.flip(jnp.cumsum(jnp.flip(added, 0), axis=0), 0) / power
    length = jnp.where(way.exists, way.length + added, 1.0)
    link = jax.tree.map(
      lambda a, b: jnp.where(is_repeated, a, b),
      links.repeated(unit, length),
      links.low_swing(p, length),
    )

    def there(values):
      return jnp.where(way.exists, values, 0.0).sum(axis=0)

    return (
      there(link.delay),
      there(link.energy * way.active * way.bits),
      there(link.leakage * way.branches * way.bits),
      there(track(way.bits * way.parallel)),
    )

  (delay_h, energy_h, leak_h, height), (delay_v, energy_v, leak_v, width) = (
    cost(horizontal, beside_h),
    cost(vertical, beside_v),
  )
  return HTree(delay_h + delay_v, energy_h + energy_v, leak_h + leak_v, height, width)
