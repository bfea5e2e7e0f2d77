"""Predecoders: two blocks share an address, each turns its bits into one-hot lines.

A block of up to three bits is a decoder. More bits are split into groups of two and three, and a
second level of NANDs joins two or three groups. Only the last level sees a wire; what precedes
it depends on the technology and the number of bits alone and is tabulated once per technology.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnnopt_jax.nvm import structures
from cnnopt_jax.nvm.circuit import drivers
from cnnopt_jax.nvm.technology import devices

Array = structures.Array

MAX_STAGES = 7  # Drives 4^8 times the input of a NAND, wires of several centimetres.
MAX_BLOCK_BITS = 9  # Two blocks of nine bits: 2^18 word lines.

# By number of bits: NAND inputs of the last level.
_LAST_INPUTS = np.array([0, 0, 2, 3, 2, 2, 2, 3, 3, 3])
# Of the first level: groups of 2 bits, groups of 3 bits, last-level inputs that a line of each
# drives (every combination of the other groups).
_TWOS = np.array([0, 0, 0, 0, 2, 1, 0, 2, 1, 0])
_THREES = np.array([0, 0, 0, 0, 0, 1, 2, 1, 2, 3])
_TWOS_FANOUT = np.array([0, 0, 0, 0, 4, 8, 0, 32, 64, 0])
_THREES_FANOUT = np.array([0, 0, 0, 0, 0, 4, 8, 16, 32, 64])


class FirstLevel(NamedTuple):
  """The first level by number of bits, each `[MAX_BLOCK_BITS + 1]`, zero where there is none.

  Attributes:
    main_delay, main_rise: of the groups that come first, ps.
    other_delay, other_rise: of the groups of three where both sizes occur, ps.
    energy: fJ.
    leakage: mW.
    height, width: um.
  """

  main_delay: Array
  main_rise: Array
  other_delay: Array
  other_rise: Array
  energy: Array
  leakage: Array
  height: Array
  width: Array


class Block(NamedTuple):
  """Cost of one block: ps, ps, fJ, mW, um, um."""

  delay: Array
  rise: Array
  energy: Array
  leakage: Array
  height: Array
  width: Array


def tables(p: devices.Process, nvsim_compatible: bool) -> tuple[FirstLevel, Block]:
  """What depends on the technology alone: first levels, and whole blocks without a wire.

  With `nvsim_compatible`, energy and leakage count one group of each size however many there are,
  and the groups of three are credited with the delay of the groups of two.
  """
  # Groups of two bits, groups of three, and last levels, by the number of bits in the block.
  bits = np.broadcast_to([[2], [3], [0]], (3, MAX_BLOCK_BITS + 1))
  count = np.stack([_TWOS, _THREES])
  fanout = np.stack([_TWOS_FANOUT, _THREES_FANOUT, 0 * _TWOS_FANOUT])
  inputs = np.where(bits > 0, bits, _LAST_INPUTS)
  copies = np.where(bits > 0, 2.0**bits, 2.0 ** np.arange(MAX_BLOCK_BITS + 1))
  decoders = drivers.size_decoder(
    p, inputs, copies, fanout * drivers.nand_input_cap(p, _LAST_INPUTS)
  )
  groups = jax.tree.map(lambda x: x[..., :2, :], decoders)
  last = jax.tree.map(lambda x: x[..., 2, :], decoders)

  delay, rise = drivers.decoder_delay(p, groups, 0.0)
  some = count > 0
  counted = some if nvsim_compatible else count

  # The groups that come first are those of two bits, where there are any.
  def leading(values):
    return jnp.where(some.any(axis=0), jnp.where(some[0], values[0], values[1]), 0.0)

  other_delay = delay[0] if nvsim_compatible else delay[1]
  first = FirstLevel(
    main_delay=leading(delay),
    main_rise=leading(rise),
    other_delay=jnp.where(some.all(axis=0), other_delay, 0.0),
    other_rise=jnp.where(some.all(axis=0), rise[1], 0.0),
    energy=(groups.energy * counted).sum(axis=0),
    leakage=(groups.leakage * counted).sum(axis=0),
    height=(groups.height * count).sum(axis=0),
    width=jnp.where(some, groups.width, 0.0).max(axis=0),
  )
  return first, _join(p, first, last, np.arange(MAX_BLOCK_BITS + 1))


def block(p: devices.Process, table: FirstLevel, bits: Array, load_cap: Array) -> Block:
  """One block of `bits` bits whose outputs drive `load_cap` fF; all zero for 0 bits."""
  last = drivers.size_decoder(
    p, jnp.asarray(_LAST_INPUTS)[bits], 2.0**bits, load_cap, max_stages=MAX_STAGES
  )
  return _join(p, jax.tree.map(lambda column: column[bits], table), last, bits)


def _join(p, first, last, bits):
  """A first level and the last one behind it."""
  # Both sizes of groups arrive at the last level, each at its own time.
  both = jnp.asarray((_TWOS > 0) & (_THREES > 0))[bits]
  delays, rises = drivers.decoder_delay(p, last, jnp.stack([first.main_rise, first.other_rise]))
  delay = jnp.maximum(
    first.main_delay + delays[0], jnp.where(both, first.other_delay + delays[1], 0.0)
  )
  rise = jnp.where(both, rises.min(axis=0), rises[0])
  # A single bit drives one line true and the other through the first inverter of its chain.
  inverter = jnp.where(bits == 1, last.first_cap * p.vdd**2, 0.0)
  cost = Block(
    delay,
    rise,
    first.energy + last.energy + inverter,
    first.leakage + last.leakage,
    jnp.maximum(first.height, last.height),
    first.width + last.width,
  )
  return jax.tree.map(lambda value: jnp.where(bits > 0, value, 0.0), cost)


def split_bits(bits: Array) -> tuple[Array, Array]:
  """How an address is shared between two blocks: one alone does up to three bits."""
  second = jnp.where(bits > 3, bits // 2, 0)
  return bits - second, second
