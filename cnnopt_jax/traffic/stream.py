"""The order in which kernels touch memory, block by block of a few KB.

Tensors lie one after the other in the order of their first use, each in a buffer of its own, but
those that take over another's. Those of a block and more begin with a block.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cnnopt_jax.traffic.kernels import Access, Kernel

_ALIGNMENT = 256  # Bytes, as cudaMalloc aligns.


class Stream(NamedTuple):
  """Accesses in order of time.

  Attributes:
    blocks: `[N]` int32, block addresses.
    writes: `[N]` bool.
    kernels: `[N]` int32, index of the kernel.
    sectors: `[N]` float32, those of the block that the access moves.
    block_bytes: of a block.
  """

  blocks: np.ndarray
  writes: np.ndarray
  kernels: np.ndarray
  sectors: np.ndarray
  block_bytes: int


def access_stream(
  kernels: Sequence[Kernel],
  tensor_bytes: np.ndarray,
  aliases: Sequence[int],
  sector_bytes: int,
  block_bytes: int,
) -> Stream:
  """Lists the block accesses of kernels that run one after another.

  Args:
    kernels: in order.
    tensor_bytes: `[tensors]`; the last is the workspace, as large as what is written to it.
    aliases: for each tensor the one whose memory it takes over, or -1.
    sector_bytes: of a transaction.
    block_bytes: of a block.

  Returns:
    The stream. The sectors of a kernel's accesses to a tensor are never more than those it moves
    between L1 and L2.
  """
  found = [[_touched(a, block_bytes) for a in k.accesses] for k in kernels]
  sizes = np.array(tensor_bytes)
  for kernel, parts in zip(kernels, found):
    for access, (_, _, end, _) in zip(kernel.accesses, parts):
      if access.tensor == len(sizes) - 1 and len(end):
        sizes[-1] = max(sizes[-1], end.max())
  bases = _bases(kernels, sizes, aliases, block_bytes)
  ordered = [
    _blocks(k.accesses, parts, bases, sector_bytes, block_bytes) for k, parts in zip(kernels, found)
  ]
  return Stream(
    np.concatenate([blocks for blocks, _, _ in ordered]).astype(np.int32),
    np.concatenate([writes for _, writes, _ in ordered]),
    np.repeat(np.arange(len(ordered), dtype=np.int32), [len(b) for b, _, _ in ordered]),
    np.concatenate([sectors for _, _, sectors in ordered]).astype(np.float32),
    block_bytes,
  )


def _bases(kernels, sizes: np.ndarray, aliases: Sequence[int], block_bytes: int) -> np.ndarray:
  """Addresses of the tensors."""

  def owner(tensor):
    while tensor < len(aliases) and aliases[tensor] >= 0:
      tensor = aliases[tensor]
    return tensor

  bases, used = np.full(len(sizes), -1, np.int64), 0
  for kernel in kernels:
    for access in kernel.accesses:
      own = owner(access.tensor)
      if bases[own] < 0:
        bases[own] = used
        size = -(-int(sizes[own]) // _ALIGNMENT) * _ALIGNMENT
        if size >= block_bytes:
          bases[own] = used = -(-used // block_bytes) * block_bytes
        used += size
      bases[access.tensor] = bases[own]
  return bases


def _touched(access: Access, block_bytes: int) -> tuple[np.ndarray, ...]:
  """Time, start, end and weight of all ranges of an access."""
  parts = [part for part in access.pattern(block_bytes) if len(part.time)]
  if not parts:
    return tuple(np.zeros(0) for _ in range(4))
  return (
    np.concatenate([p.time for p in parts]),
    np.concatenate([p.start for p in parts]).astype(np.int64),
    np.concatenate([p.end for p in parts]).astype(np.int64),
    np.repeat([p.weight for p in parts], [len(p.time) for p in parts]),
  )


def _blocks(accesses, parts, bases, sector_bytes: int, block_bytes: int):
  """One kernel's accesses in order: blocks, whether written, and sectors moved."""
  columns = []
  for access, ranges in zip(accesses, parts):
    if not len(ranges[0]):
      continue
    time, blocks, sectors = _of_access(ranges, bases[access.tensor], sector_bytes, block_bytes)
    if (total := sectors.sum()) > access.sectors:
      sectors = sectors * (access.sectors / total)
    columns.append((time, blocks, np.full(len(time), access.write), sectors))
  if not columns:
    return np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(0)
  time, blocks, writes, sectors = map(np.concatenate, zip(*columns))
  order = np.argsort(time, kind='stable')
  return blocks[order], writes[order], sectors[order]


def _of_access(ranges, base: int, sector_bytes: int, block_bytes: int):
  """Times, blocks and sectors of an access in order; parts of a block in a row are one."""
  time, start, end, weight = ranges
  order = np.argsort(time, kind='stable')
  time, start, end, weight = time[order], base + start[order], base + end[order], weight[order]
  first = start // block_bytes
  counts = (end - 1) // block_bytes - first + 1
  offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
  blocks = np.repeat(first, counts) + offsets
  inside = np.minimum(np.repeat(end, counts), (blocks + 1) * block_bytes)
  inside = inside - np.maximum(np.repeat(start, counts), blocks * block_bytes)
  new = np.flatnonzero(np.append(True, blocks[1:] != blocks[:-1]))
  moved = np.minimum(np.add.reduceat(inside, new), block_bytes)
  sectors = moved * np.repeat(weight, counts)[new] / sector_bytes
  return np.repeat(time, counts)[new], blocks[new], sectors
