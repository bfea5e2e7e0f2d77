"""Predecoders: two blocks share an address, each turns its bits into one-hot lines.

A block of up to three bits is a decoder. More bits are split into groups of two and three, and a
second level of NANDs joins two or three groups. Only the last level sees a wire; what precedes
it depends on the technology and the number of bits alone and is tabulated once per technology.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnnopt_jax.nvm import devices, drivers, structures

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


def first_level(p: devices.Process, nvsim_compatible: bool) -> FirstLevel:
  """Tabulates the first level of blocks of 0 to `MAX_BLOCK_BITS` bits.

  With `nvsim_compatible`, energy and leakage count one group of each size however many there are,
  and the groups of three are credited with the delay of the groups of two.
  """
  last_cap = drivers.nand_input_cap(p, _LAST_INPUTS)

  def group(bits, count, fanout):
    decoder = drivers.size_decoder(p, jnp.full(count.shape, bits), 2**bits, fanout * last_cap)
    delay, rise = drivers.decoder_delay(p, decoder, 0.0)
    some = count > 0
    counted = some if nvsim_compatible else count
    return [jnp.where(some, value, 0.0) for value in (
        delay, rise, decoder.energy * counted, decoder.leakage * counted, decoder.height * count,
        decoder.width)]

  twos = group(2, _TWOS, _TWOS_FANOUT)
  threes = group(3, _THREES, _THREES_FANOUT)
  both = (_TWOS > 0) & (_THREES > 0)
  main = [jnp.where(_TWOS > 0, a, b) for a, b in zip(twos, threes)]
  other = [jnp.where(both, b, 0.0) for b in threes]
  return FirstLevel(
      main_delay=main[0], main_rise=main[1],
      other_delay=jnp.where(both, twos[0] if nvsim_compatible else threes[0], 0.0),
      other_rise=other[1], energy=twos[2] + threes[2], leakage=twos[3] + threes[3],
      height=twos[4] + threes[4], width=jnp.maximum(twos[5], threes[5]))


def block(p: devices.Process, table: FirstLevel, bits: Array, load_cap: Array) -> Block:
  """One block of `bits` bits whose outputs drive `load_cap` fF; all zero for 0 bits."""
  first = jax.tree.map(lambda column: column[bits], table)
  last = drivers.size_decoder(p, jnp.asarray(_LAST_INPUTS)[bits], 2.0**bits, load_cap,
                              max_stages=MAX_STAGES)
  main, main_rise = drivers.decoder_delay(p, last, first.main_rise)
  other, other_rise = drivers.decoder_delay(p, last, first.other_rise)
  both = jnp.asarray((_TWOS > 0) & (_THREES > 0))[bits]
  delay = jnp.maximum(first.main_delay + main, jnp.where(both, first.other_delay + other, 0.0))
  rise = jnp.where(both, jnp.minimum(main_rise, other_rise), main_rise)
  # A single bit drives one line true and the other through the first inverter of its chain.
  inverter = jnp.where(bits == 1, last.first_cap * p.vdd**2, 0.0)
  cost = Block(delay, rise, first.energy + last.energy + inverter, first.leakage + last.leakage,
               jnp.maximum(first.height, last.height), first.width + last.width)
  return jax.tree.map(lambda value: jnp.where(bits > 0, value, 0.0), cost)


def split_bits(bits: Array) -> tuple[Array, Array]:
  """How an address is shared between two blocks: one alone does up to three bits."""
  second = jnp.where(bits > 3, bits // 2, 0)
  return bits - second, second
