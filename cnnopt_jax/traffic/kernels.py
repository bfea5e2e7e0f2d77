"""What a GPU's kernel moves: transactions between its processors and L2, and in which order."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class Array(NamedTuple):
  """A stretch of memory that a kernel reads or writes.

  Attributes:
    tensor: index of the schedule's tensor; one past the last is the workspace that kernels share.
    bytes: its length.
    element_bytes: of one element; a fraction where elements have few bits.
    start: of the stretch within the tensor, bytes.
  """

  tensor: int
  bytes: int
  element_bytes: float = 4.0
  start: int = 0

  def share(self, low: float, high: float) -> tuple[int, int]:
    """The bytes between two shares of it, within the tensor."""
    return self.start + int(self.bytes * low), self.start + int(self.bytes * high)


class Ranges(NamedTuple):
  """Byte ranges of a tensor in the order in which a kernel comes to them.

  Attributes:
    time: `[N]`, within the kernel.
    start, end: `[N]` bytes within the tensor.
    weight: bytes moved for each byte between start and end.
  """

  time: np.ndarray
  start: np.ndarray
  end: np.ndarray
  weight: float = 1.0


class Access(NamedTuple):
  """What a kernel reads from, or writes to, one tensor.

  Attributes:
    tensor: index.
    write: whether it is written.
    sectors: transactions with L2.
    bytes: those that any cache has to fetch or store at least.
    pattern: from the bytes of a block to the ranges touched, in passes between times.
  """

  tensor: int
  write: bool
  sectors: float
  bytes: float
  pattern: Callable[[int], Sequence[Ranges]]


class Kernel(NamedTuple):
  """One launch on the GPU.

  Attributes:
    name: what it does.
    accesses: its reads and writes.
    macs: multiply-accumulates.
    shared: of each operand that several of the thread blocks running at once read: the sectors that
      those after the first one read, and the operand's bytes that these blocks walk through.
  """

  name: str
  accesses: tuple[Access, ...]
  macs: float = 0.0
  shared: tuple[tuple[float, float], ...] = ()

  @property
  def reads(self) -> float:
    """Sectors read from L2."""
    return sum(access.sectors for access in self.accesses if not access.write)

  @property
  def writes(self) -> float:
    """Sectors written to L2."""
    return sum(access.sectors for access in self.accesses if access.write)

  @property
  def bytes(self) -> float:
    """Bytes that reach DRAM where nothing is reused between kernels."""
    return sum(access.bytes for access in self.accesses)


def sweep(extent: tuple[int, int], times: tuple[float, float], block_bytes: int) -> Ranges:
  """One pass over the bytes from the first to one past the last, between two times."""
  begin, finish = times
  low, high = extent
  inner = np.arange((low // block_bytes + 1) * block_bytes, high, block_bytes)
  edges = np.concatenate([[low], inner, [high]]) if high > low else np.zeros(1, np.int64)
  time = begin + (finish - begin) * (np.arange(len(edges) - 1) + 0.5) / max(1, len(edges) - 1)
  return Ranges(time, edges[:-1], edges[1:])


def within(wave: float, shares: tuple[float, float]) -> tuple[float, float]:
  """Two times of a wave, given as shares of it."""
  return wave + shares[0], wave + shares[1]


def once(
  array: Array,
  write: bool,
  *,
  sectors: float | None = None,
  sector_bytes: int,
  times: tuple[float, float] = (0.0, 1.0),
) -> Access:
  """One pass over an array.

  Args:
    array: it.
    write: whether it is written.
    sectors: transactions, where they are not just the array's.
    sector_bytes: of one.
    times: of the kernel, in which the pass lies.

  Returns:
    The access.
  """

  def pattern(block_bytes):
    return [sweep(array.share(0, 1), times, block_bytes)]

  own = array.bytes / sector_bytes
  return Access(array.tensor, write, own if sectors is None else sectors, array.bytes, pattern)


def one_pass(
  name: str,
  reads: Sequence[Array],
  writes: Sequence[Array],
  sector_bytes: int,
  *,
  overlap: float = 1.0,
  macs: float = 0.0,
) -> Kernel:
  """A kernel that goes through all its arrays once, from their starts to their ends.

  Args:
    name: of the kernel.
    reads, writes: arrays.
    sector_bytes: of a transaction.
    overlap: times that each sector of what is read is asked for.
    macs: multiply-accumulates.

  Returns:
    The kernel.
  """
  accesses = [
    once(array, False, sectors=overlap * array.bytes / sector_bytes, sector_bytes=sector_bytes)
    for array in reads
  ]
  accesses += [once(array, True, sector_bytes=sector_bytes) for array in writes]
  return Kernel(name, tuple(accesses), macs)


def run_sectors(length: int, step: int, row: int, element_bytes: float, sector_bytes: int) -> float:
  """Mean sectors that runs of neighbouring elements touch.

  Args:
    length: of a run, elements.
    step: from the start of one run to the next in a row.
    row: elements from one row to the next; runs stand in it one after the other, the first one
      element before it if they overlap.
    element_bytes, sector_bytes: sizes.

  Returns:
    The mean over the runs of all rows.
  """
  per_sector = sector_bytes / element_bytes
  lead = 1 if length > step else 0
  starts = np.arange(-lead, max(1, row - lead), step)
  # Rows differ in where they start within a sector, with a period of at most a sector's elements.
  rows = np.arange(max(1, round(per_sector)))[:, None] * row
  first = np.floor((rows + starts) / per_sector)
  last = np.floor((rows + np.minimum(starts + length, row + lead) - 1) / per_sector)
  return float(np.mean(last - first + 1))
