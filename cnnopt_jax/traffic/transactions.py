"""`predict_traffic`: what a network on a GPU reads and writes in the last-level cache and in DRAM.

No part of this model has been compared with a GPU's counters yet; `experiments.nvm_profile` does so
where there are any. It assumes:

- Kernels: every convolution and matrix product is one implicit GEMM; what lies between them is
  fused as `workload.dataflow` says and moves every array once. Bias, norm and activation are not
  fused into the GEMM.
- Tiles: a thread block computes one tile of the output and reads its rows and columns for the
  whole reduction. Blocks of one column of tiles read the same weights, each for itself: L1 serves a
  block's own reuse (the taps of a window), not that between blocks. The library picks the tile that
  leaves the GPU least idle; where tiles are few, a weight gradient or a matrix product splits its
  reduction, writes the parts and sums them.
- L1 is write-through. Transactions are sectors; a run of pixels may begin anywhere in one.
- Maps are stored as [images, channels, height, width].
- A data gradient reads only the taps that exist (a strided convolution's, phase by phase).
- The optimizer is SGD with momentum: three reads and two writes of every parameter.
- DRAM: the last-level cache is LRU, writes back, and fills a written block without reading it.
  Reuse is that of blocks of a few KB in the order of `stream.py`, in the steady state: one step
  after another, the same buffers. No buffer is shared by arrays that do not live at once.
- Nothing else runs: no data loading, no allocation, no loss beyond its gradient.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from cnnopt_jax import workload
from cnnopt_jax.traffic import implicit_gemm, stream
from cnnopt_jax.traffic.gpus import Gpu
from cnnopt_jax.traffic.reuse import ReuseHistogram, reuse_histogram
from cnnopt_jax.traffic.stack import stack_distances
from cnnopt_jax.workload import KernelLaunch, LayerTable, Schedule

# Fine enough for the maps of a few hundred KB that decide what an L2 of MBs holds, and coarse
# enough that a step of training is a few million accesses.
BLOCK_BYTES = 16 << 10


class Reuse(NamedTuple):
  """Stack distances of a stream in the steady state.

  Attributes:
    read_distances: `[R]`, of every read, in blocks.
    read_launches: `[R]`, index of its launch.
    write_distances: `[W]`: a cache of no more blocks evicts the written block before it is written
      again.
    write_launches: `[W]`, index of its launch.
    block_bytes, sector_bytes, line_bytes: of a block, of a transaction, of a cache line.
  """

  read_distances: np.ndarray
  read_launches: np.ndarray
  write_distances: np.ndarray
  write_launches: np.ndarray
  block_bytes: int
  sector_bytes: int
  line_bytes: int

  def histograms(self) -> tuple[ReuseHistogram, ReuseHistogram]:
    """Of reads and of writes, in sectors."""
    sectors = self.block_bytes // self.sector_bytes

    def histogram(distances):
      return reuse_histogram(distances, np.full(distances.shape, float(sectors)))

    return histogram(self.read_distances), histogram(self.write_distances)


class KernelTraffic(NamedTuple):
  """One kernel's traffic.

  Attributes:
    launch: the kernel.
    l2_reads, l2_writes: transactions with the last-level cache, sectors.
    dram_reads, dram_writes: sectors, at the GPU's own last-level cache.
  """

  launch: KernelLaunch
  l2_reads: float
  l2_writes: float
  dram_reads: float
  dram_writes: float


class Traffic(NamedTuple):
  """Traffic of one inference or training step of a network.

  Attributes:
    rows: one for each kernel, in order.
    reuse: what DRAM accesses follow from.
    macs: multiply-accumulates of the whole batch.
  """

  rows: tuple[KernelTraffic, ...]
  reuse: Reuse
  macs: int

  @property
  def l2_reads(self) -> float:
    """Sectors that L2 delivers."""
    return sum(row.l2_reads for row in self.rows)

  @property
  def l2_writes(self) -> float:
    """Sectors that L2 takes."""
    return sum(row.l2_writes for row in self.rows)

  def dram(self, capacity_bytes, *, ways: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """DRAM reads and writes with a last-level cache of another size.

    Args:
      capacity_bytes: one or more.
      ways: of a set-associative cache; fully associative by default.

    Returns:
      Sectors read and sectors written, in the shape of `capacity_bytes`.
    """
    capacity = np.asarray(capacity_bytes, float)
    block, line = self.reuse.block_bytes, self.reuse.line_bytes

    def misses(histogram):
      if ways is None:
        return histogram.misses(capacity / block)
      sets = capacity / (line * ways)
      return histogram.set_associative_misses(sets, ways, blocks_per_entry=block / line)

    reads, writes = self.reuse.histograms()
    return misses(reads), misses(writes)

  def by_layer(self) -> dict[str, np.ndarray]:
    """`{path: [l2_reads, l2_writes, dram_reads, dram_writes]}`, all passes of a module."""
    sums: dict[str, np.ndarray] = {}
    for row in self.rows:
      sums[row.launch.path] = sums.get(row.launch.path, 0) + np.array(row[1:])
    return sums


def predict_traffic(
  table: LayerTable,
  gpu: Gpu,
  batch: int,
  *,
  training: bool = False,
  weight_bits: Mapping[str, float] | float = 32,
  activation_bits: float = 32,
  block_bytes: int = BLOCK_BYTES,
) -> Traffic:
  """Predicts L2 transactions and DRAM accesses; the module's docstring says how.

  Args:
    table: of one image, from `models.layer_table`; for training preferably with `train=True`, so
      that batch norm's statistics are there.
    gpu: the GPU.
    batch: images.
    training: a training step (forward, gradients, optimizer) instead of inference.
    weight_bits: of stored weights, all or by leaf; of inference only.
    activation_bits: of stored activations.
    block_bytes: resolution of reuse.

  Returns:
    The traffic.

  Raises:
    ValueError: for a batch below 1, weights of few bits in training, or a table without dataflow.
    KeyError: if `weight_bits` has a path that is that of no parameter that a kernel reads.
  """
  if batch < 1:
    raise ValueError(f'batch={batch}; allowed: at least 1')
  if training and (isinstance(weight_bits, Mapping) or weight_bits != 32):
    raise ValueError(
      f'weight_bits={weight_bits!r} in training; allowed: 32, as the optimizer keeps them'
    )
  schedule = workload.schedule(table, training=training)
  sizes = schedule.tensor_bytes(
    batch=batch, weight_bits=weight_bits, activation_bits=activation_bits
  )
  accesses = stream.access_stream(table, schedule, gpu, sizes, batch, block_bytes)
  reuse = _steady_state(accesses, gpu)
  dram_reads, dram_writes = _dram(reuse, gpu, len(schedule.launches))
  rows = tuple(
    KernelTraffic(launch, *_l2(table, launch, schedule, sizes, gpu, batch), float(r), float(w))
    for launch, r, w in zip(schedule.launches, dram_reads, dram_writes)
  )
  return Traffic(rows, reuse, batch * schedule.macs)


def _dram(reuse: Reuse, gpu: Gpu, launches: int) -> tuple[np.ndarray, np.ndarray]:
  """DRAM sectors that each launch reads and writes, `[launches]`, with the GPU's own L2."""
  held = gpu.l2_bytes // reuse.block_bytes
  per_block = reuse.block_bytes / reuse.sector_bytes

  def sectors(launch, distances):
    missed = (distances >= held) | (distances < 0)
    return per_block * np.bincount(launch[missed], minlength=launches)

  return (
    sectors(reuse.read_launches, reuse.read_distances),
    sectors(reuse.write_launches, reuse.write_distances),
  )


def _l2(
  table: LayerTable,
  launch: KernelLaunch,
  schedule: Schedule,
  sizes: np.ndarray,
  gpu: Gpu,
  batch: int,
) -> implicit_gemm.Sectors:
  """L2 sectors of one kernel."""
  sectors = sizes / gpu.sector_bytes
  if launch.layer < 0:
    return implicit_gemm.Sectors(
      sum(sectors[t] for t in launch.reads), sum(sectors[t] for t in launch.writes)
    )

  def element_bytes(t):
    tensor = schedule.tensors[t]
    return sizes[t] / (tensor.elements * (batch if tensor.batched else 1))

  geometry = implicit_gemm.forward_geometry(table.layers[launch.layer], batch)
  first, second, *added = launch.reads
  first, second, written = map(element_bytes, (first, second, launch.writes[0]))
  if launch.kind == 'weight_gradient':
    found = implicit_gemm.weight_product(gpu, geometry, (second, written, first))
  else:
    geometry = geometry.transposed() if launch.kind == 'data_gradient' else geometry
    found = implicit_gemm.map_product(gpu, geometry, (first, second, written))
  return found._replace(reads=found.reads + sum(sectors[t] for t in added))


def _steady_state(accesses: stream.Stream, gpu: Gpu) -> Reuse:
  """Distances with the whole stream before them, and for writes after them."""
  n = len(accesses.blocks)
  blocks = np.tile(accesses.blocks, 2)
  writes = np.tile(accesses.writes, 2)
  # Few distinct lengths, so that few programs are compiled; what is appended is cut off again.
  unit = 1 << max(0, (2 * n).bit_length() - 3)
  appended = np.zeros(-2 * n % unit, np.int32)
  distances = np.array(stack_distances(np.concatenate([blocks, appended])))[: 2 * n]
  # A written block is evicted in between if any access up to the next write misses.
  order = np.argsort(blocks, kind='stable')
  ordered_writes, ordered_blocks = writes[order], blocks[order]
  following = np.append(distances[order][1:], -1)
  following[np.append(ordered_blocks[1:] != ordered_blocks[:-1], True)] = -1
  starts = np.flatnonzero(ordered_writes)
  # Accesses before a block's first write belong to no interval; those of the block before it do
  # not follow its last write within the block, and end at a mark of -1.
  evicting = np.full(2 * n, -1, np.int32)
  if len(starts):
    bounds = np.append(starts, 2 * n)
    ends_of_block = np.searchsorted(ordered_blocks, ordered_blocks[starts], side='right')
    pairs = np.stack([starts, np.minimum(bounds[1:], ends_of_block)], -1).ravel()
    padded = np.append(following, -1)
    evicting[order[starts]] = np.maximum.reduceat(padded, pairs)[::2]
  second = np.arange(n, 2 * n)
  reads = second[~writes[n:]]
  written = np.flatnonzero(writes[:n])
  return Reuse(
    distances[reads],
    accesses.launches[reads - n],
    evicting[written],
    accesses.launches[written],
    accesses.block_bytes,
    gpu.sector_bytes,
    gpu.line_bytes,
  )
