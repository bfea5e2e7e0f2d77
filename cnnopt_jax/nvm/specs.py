"""What a cache is asked to be: capacity, line, ways, mode, and what a search minimises."""

import enum
from typing import NamedTuple


class Mode(enum.Enum):
  """How a cache finds its way.

  RAM is no cache: one array without tags.
  """

  RAM = 'RAM'
  NORMAL = 'Normal'  # Tag and data at once, the hit selects the way inside the data array.
  FAST = 'Fast'  # Tag and data at once, all ways travel, the hit selects at the port.
  SEQUENTIAL = 'Sequential'  # The data array waits for the tag.


class CacheSpec(NamedTuple):
  """A cache to build.

  Attributes:
    capacity_bytes: of data.
    line_bytes: of a line, a power of two.
    associativity: ways, a power of two.
    physical_address_bits: for the width of a tag.
  """

  capacity_bytes: int
  line_bytes: int = 64
  associativity: int = 16
  physical_address_bits: int = 48


class Target(enum.IntEnum):
  """What a search minimises; the first eight are NVSim's."""

  READ_LATENCY = 0
  WRITE_LATENCY = 1
  READ_ENERGY = 2
  WRITE_ENERGY = 3
  READ_EDP = 4
  WRITE_EDP = 5
  LEAKAGE = 6
  AREA = 7
  EDAP = 8  # Mean of read and write energy times mean latency times area.


CACHE_MODES = (Mode.NORMAL, Mode.FAST, Mode.SEQUENTIAL)


def split_capacity(capacity_bytes: int) -> tuple[int, int]:
  """Writes a capacity as odd times a power of two: the number of banks and bytes in each.

  The stated rule for capacities that are no power of two: 3 MB is three banks of 1 MB, 7 MB seven
  of 1 MB, 10 MB five of 2 MB. Each bank is a cache of its own with a share of the sets.
  """
  bank = capacity_bytes & -capacity_bytes
  return capacity_bytes // bank, bank


def validate_spec(spec: CacheSpec) -> None:
  """Raises ValueError, naming the field, if no cache of this shape can be enumerated."""
  for name in ('line_bytes', 'associativity'):
    value = getattr(spec, name)
    if value < 1 or value & (value - 1):
      raise ValueError(f'{name}={value}; allowed: a power of two')
  _, bank = split_capacity(spec.capacity_bytes) if spec.capacity_bytes > 0 else (0, 0)
  least = 4 * spec.line_bytes * spec.associativity
  if bank < least:
    raise ValueError(
      f'capacity_bytes={spec.capacity_bytes}; allowed: an odd number times a power '
      f'of two of at least {least} (4 sets)'
    )


def fitting_ways(capacity_bytes: int, line_bytes: int = 64, associativity: int = 16) -> int:
  """The most ways, up to `associativity`, that leave a cache 4 sets; 1 KiB of 64 B has 4 ways."""
  _, bank = split_capacity(capacity_bytes)
  ways = associativity
  while ways > 1 and bank < 4 * line_bytes * ways:
    ways //= 2
  return ways


def tag_bits(spec: CacheSpec) -> int:
  """Width of one tag with its valid and dirty bits, from the sets of one bank."""
  _, bank = split_capacity(spec.capacity_bytes)
  index = _log2(bank // spec.line_bytes // spec.associativity)
  return spec.physical_address_bits - index - _log2(spec.line_bytes) + 2


def _log2(power_of_two: int) -> int:
  return int(power_of_two).bit_length() - 1
