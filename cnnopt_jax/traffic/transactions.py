"""`predict_traffic`: what a network on a GPU reads and writes in the last-level cache and in DRAM.

docs/results/traffic_counters compares it with the counters of a V100. It assumes:

- Kernels: those of a `Library`. What lies between layers is fused as `workload.dataflow` says, or
  runs one by one as `workload.unfused` says; each pass moves every array once. A layer is computed
  by the algorithm of `algorithms.choose`, or by the one asked for.
- Products: a thread block computes one tile of the output and reads its rows and columns for the
  whole reduction. L1 serves a block's own reuse (the taps of a window), and between the blocks that
  follow one another on a multiprocessor what `products.panel_misses` says. The library picks the
  largest tile that leaves the GPU little idle; where tiles are few, a weight gradient or a product
  splits its reduction, whose parts are added up in L2.
- L1 is write-through. Transactions are sectors; a run of pixels may begin anywhere in one.
- Maps are stored as [images, channels, height, width].
- A data gradient computes only the pixels that a tap reaches (a strided convolution's, phase by
  phase).
- The optimizer is SGD with momentum: three reads and two writes of every parameter.
- DRAM: the last-level cache is LRU within its sets, writes back, and fills a written block without
  reading it. Reuse is that of blocks of a few KB in the order of `stream.py`, in the steady state:
  one step after another, the same buffers. Addresses fall into sets at random. Of what blocks that
  run at once read of each other's data a share is read again (`Library.unsynchronised`).
- Nothing else runs: no data loading, no allocation, no loss beyond its gradient.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from cnnopt_jax.traffic import algorithms, geometry, stream
from cnnopt_jax.traffic.checks import check_algorithms
from cnnopt_jax.traffic.gpus import Gpu
from cnnopt_jax.traffic.kernels import Array, Kernel, one_pass
from cnnopt_jax.traffic.libraries import PYTORCH, Library
from cnnopt_jax.traffic.reuse import ReuseHistogram, miss_probability, reuse_histogram
from cnnopt_jax.traffic.stack import stack_distances
from cnnopt_jax.workload import KernelLaunch, LayerTable, Schedule

# Smaller blocks follow the reuse of small maps more closely, and make the stream longer.
BLOCK_BYTES = 16 << 10


class Reuse(NamedTuple):
  """Stack distances of a stream in the steady state.

  Attributes:
    read_distances: `[R]`, of every read, in blocks; -1 where nothing was there before.
    read_sectors: `[R]`, what it moves if it misses.
    read_kernels: `[R]`, index of its kernel.
    write_distances: `[W]`: a cache of no more blocks evicts the written block before another kernel
      writes it again.
    write_sectors, write_kernels: `[W]`, likewise.
    block_bytes, line_bytes: of a block, of a cache line.
    ways: of the GPU's last-level cache.
  """

  read_distances: np.ndarray
  read_sectors: np.ndarray
  read_kernels: np.ndarray
  write_distances: np.ndarray
  write_sectors: np.ndarray
  write_kernels: np.ndarray
  block_bytes: int
  line_bytes: int
  ways: int

  def histograms(self) -> tuple[ReuseHistogram, ReuseHistogram]:
    """Of reads and of writes, in sectors."""
    return (
      reuse_histogram(self.read_distances, self.read_sectors),
      reuse_histogram(self.write_distances, self.write_sectors),
    )


class KernelTraffic(NamedTuple):
  """One kernel's traffic.

  Attributes:
    launch: what it is part of.
    kernel: its own name, such as 'winograd_product'.
    l2_reads, l2_writes: transactions with the last-level cache, sectors.
    dram_reads, dram_writes: sectors, at the GPU's own last-level cache.
    seconds: by the library's roofline.
  """

  launch: KernelLaunch
  kernel: str
  l2_reads: float
  l2_writes: float
  dram_reads: float
  dram_writes: float
  seconds: float


class Traffic(NamedTuple):
  """Traffic of one inference or training step of a network.

  Attributes:
    rows: one for each kernel, in order.
    reuse: what DRAM accesses follow from.
    macs: multiply-accumulates of the whole batch, as the network's definition has them.
    algorithms: `{(path, kind): algorithm}` of its layers.
  """

  rows: tuple[KernelTraffic, ...]
  reuse: Reuse
  macs: int
  algorithms: Mapping[tuple[str, str], str]

  @property
  def l2_reads(self) -> float:
    """Sectors that L2 delivers."""
    return sum(row.l2_reads for row in self.rows)

  @property
  def l2_writes(self) -> float:
    """Sectors that L2 takes."""
    return sum(row.l2_writes for row in self.rows)

  @property
  def seconds(self) -> float:
    """Of all kernels, one after the other, on the GPU with its own last-level cache."""
    return sum(row.seconds for row in self.rows)

  def dram(self, capacity_bytes, *, ways: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """DRAM reads and writes with a last-level cache of another size.

    Args:
      capacity_bytes: one or more.
      ways: of a set-associative cache, the GPU's own by default; 0 for a fully associative one.

    Returns:
      Sectors read and sectors written, in the shape of `capacity_bytes`.
    """
    capacity = np.asarray(capacity_bytes, float)
    block, line = self.reuse.block_bytes, self.reuse.line_bytes
    ways = self.reuse.ways if ways is None else ways

    def misses(histogram):
      if ways == 0:
        return histogram.misses(capacity / block)
      sets = capacity / (line * ways)
      return histogram.set_associative_misses(sets, ways, blocks_per_entry=block / line)

    reads, writes = self.reuse.histograms()
    return misses(reads), misses(writes)

  def by_layer(self) -> dict[str, np.ndarray]:
    """`{path: [l2_reads, l2_writes, dram_reads, dram_writes]}`, all passes of a module."""
    sums: dict[str, np.ndarray] = {}
    for row in self.rows:
      sums[row.launch.path] = sums.get(row.launch.path, 0) + np.array(row[2:6])
    return sums


def predict_traffic(
  table: LayerTable,
  gpu: Gpu,
  batch: int,
  *,
  training: bool = False,
  library: Library = PYTORCH,
  chosen: Mapping[str | tuple[str, str], str] | None = None,
  weight_bits: Mapping[str, float] | float = 32,
  activation_bits: float | None = None,
  block_bytes: int = BLOCK_BYTES,
) -> Traffic:
  """Predicts L2 transactions, DRAM accesses and time; the module's docstring says how.

  Args:
    table: of one image, from `models.layer_table`; for training preferably with `train=True`, so
      that batch norm's statistics are there.
    gpu: the GPU.
    batch: images.
    training: a training step (forward, gradients, optimizer) instead of inference.
    library: what runs it.
    chosen: algorithms, one of `algorithms.ALGORITHMS` by the layer's path or by path and kind of
      launch; the library chooses the others.
    weight_bits: of stored weights, all or by leaf; of inference only.
    activation_bits: of stored activations; as the library's products take them by default.
    block_bytes: resolution of reuse.

  Returns:
    The traffic.

  Raises:
    ValueError: for a batch below 1, weights of few bits in training, a table without dataflow, a
      type that the GPU does not have, a path in `chosen` that is that of no layer, or an algorithm
      that cannot compute its layer.
    KeyError: if `weight_bits` has a path that is that of no parameter that a kernel reads.
  """
  if batch < 1:
    raise ValueError(f'batch={batch}; allowed: at least 1')
  if training and (isinstance(weight_bits, Mapping) or weight_bits != 32):
    raise ValueError(
      f'weight_bits={weight_bits!r} in training; allowed: 32, as the optimizer keeps them'
    )
  gpu.macs(library.math)
  chosen = dict(chosen or {})
  check_algorithms(table, library, chosen, training=training)
  schedule = library.schedule(table, training)
  bits = library.activation_bits if activation_bits is None else activation_bits
  sizes = schedule.tensor_bytes(batch=batch, weight_bits=weight_bits, activation_bits=bits)
  maker = _Maker(table, schedule, sizes, gpu, library, batch, chosen)
  launches: list[KernelLaunch] = []
  kernels: list[Kernel] = []
  for launch in schedule.launches:
    made = maker.kernels(launch)
    kernels += made
    launches += [launch] * len(made)
  accesses = stream.access_stream(
    kernels,
    np.append(sizes, 0),
    [tensor.alias for tensor in schedule.tensors],
    gpu.sector_bytes,
    block_bytes,
  )
  reuse = _steady_state(accesses, gpu, kernels, library.unsynchronised)
  dram_reads, dram_writes = _dram(reuse, gpu, len(kernels))
  rows = tuple(
    KernelTraffic(
      launch,
      kernel.name,
      kernel.reads,
      kernel.writes,
      float(read),
      float(written),
      library.seconds(gpu, kernel, gpu.sector_bytes * float(read + written)),
    )
    for launch, kernel, read, written in zip(launches, kernels, dram_reads, dram_writes)
  )
  return Traffic(rows, reuse, batch * schedule.macs, maker.chosen)


class _Maker:
  """Makes the kernels of launches, and notes which algorithms were chosen."""

  def __init__(
    self,
    table: LayerTable,
    schedule: Schedule,
    sizes: np.ndarray,
    gpu: Gpu,
    library: Library,
    batch: int,
    asked: dict[str | tuple[str, str], str],
  ) -> None:
    self.table, self.schedule, self.sizes = table, schedule, sizes
    self.gpu, self.library, self.batch, self.asked = gpu, library, batch, asked
    self.chosen: dict[tuple[str, str], str] = {}

  def kernels(self, launch: KernelLaunch) -> tuple[Kernel, ...]:
    """The kernels of one launch."""
    arrays = [self._array(t) for t in (*launch.reads, *launch.writes)]
    if launch.layer < 0:
      reads, writes = arrays[: len(launch.reads)], arrays[len(launch.reads) :]
      name = launch.operation or launch.kind
      return (one_pass(name, reads, writes, self.gpu.sector_bytes),)
    source, weight, *added, target = arrays
    if launch.kind == 'weight_gradient':
      source, weight = weight, source
    problem = algorithms.Problem(
      launch.kind,
      geometry.forward_geometry(self.table.layers[launch.layer], self.batch),
      source,
      weight,
      target,
      len(self.sizes),
    )
    name, found = self._computed(launch, problem)
    self.chosen[launch.path, launch.kind] = name
    if added:
      extra = one_pass(found[-1].name, added, (), self.gpu.sector_bytes)
      found = (*found[:-1], found[-1]._replace(accesses=found[-1].accesses + extra.accesses))
    return found

  def _array(self, tensor: int) -> Array:
    described, size = self.schedule.tensors[tensor], int(self.sizes[tensor])
    elements = described.elements * (self.batch if described.batched else 1)
    return Array(tensor, size, size / max(1, elements))

  def _computed(
    self, launch: KernelLaunch, problem: algorithms.Problem
  ) -> tuple[str, tuple[Kernel, ...]]:
    name = self.asked.get((launch.path, launch.kind), self.asked.get(launch.path))
    if name is None:
      return algorithms.choose(self.gpu, self.library, problem)
    return name, algorithms.kernels(self.gpu, problem, name)


def _dram(reuse: Reuse, gpu: Gpu, kernels: int) -> tuple[np.ndarray, np.ndarray]:
  """DRAM sectors that each kernel reads and writes, `[kernels]`, with the GPU's own L2."""
  sets = gpu.l2_bytes / (gpu.line_bytes * gpu.l2_ways)

  def sectors(distances, amounts, kernel):
    known, index = np.unique(distances, return_inverse=True)
    lines = known * (reuse.block_bytes / gpu.line_bytes)
    missed = np.where(known < 0, 1.0, miss_probability(np.maximum(lines, 0), sets, gpu.l2_ways))
    return np.bincount(kernel, amounts * missed[index], minlength=kernels)

  return (
    sectors(reuse.read_distances, reuse.read_sectors, reuse.read_kernels),
    sectors(reuse.write_distances, reuse.write_sectors, reuse.write_kernels),
  )


def _steady_state(
  accesses: stream.Stream, gpu: Gpu, kernels: list[Kernel], unsynchronised: float
) -> Reuse:
  """Distances with the whole stream before them, and for writes after them."""
  n = len(accesses.blocks)
  blocks = np.tile(accesses.blocks, 2)
  writes = np.tile(accesses.writes, 2)
  # Few distinct lengths, so that few programs are compiled; what is appended is cut off again.
  unit = 1 << max(0, (2 * n).bit_length() - 3)
  appended = np.zeros(-2 * n % unit, np.int32)
  distances = np.array(stack_distances(np.concatenate([blocks, appended])))[: 2 * n]
  second = np.arange(n, 2 * n)
  reads = second[~writes[n:]]
  written = np.flatnonzero(writes[:n])
  kernel = np.concatenate([accesses.kernels, accesses.kernels + len(kernels)])
  evicting = _evictions(blocks, writes, kernel, distances)
  apart = _read_again(accesses, kernels, unsynchronised)
  return Reuse(
    np.concatenate([distances[reads], apart[0]]),
    np.concatenate([accesses.sectors[reads - n], apart[1]]),
    np.concatenate([accesses.kernels[reads - n], apart[2]]),
    evicting[written],
    accesses.sectors[written],
    accesses.kernels[written],
    accesses.block_bytes,
    gpu.line_bytes,
    gpu.l2_ways,
  )


def _evictions(blocks, writes, kernels, distances) -> np.ndarray:
  """For every write the largest distance, in blocks, before another kernel writes there.

  A written block is evicted if an access up to then misses. Parts of a block that one kernel writes
  one after the other stay until the last of them is replaced.
  """
  total = len(blocks)
  order = np.argsort(blocks, kind='stable')
  ordered_blocks = blocks[order]
  following = np.append(distances[order][1:], -1)
  last_of_block = np.append(ordered_blocks[1:] != ordered_blocks[:-1], True)
  following[last_of_block] = -1
  starts = np.flatnonzero(writes[order])
  evicting = np.full(total, -1, np.int32)
  if not len(starts):
    return evicting
  # Accesses before a block's first write belong to no interval; those of the block before it do
  # not follow its last write within the block, and end at a mark of -1.
  ends_of_block = (np.flatnonzero(last_of_block) + 1)[
    np.cumsum(last_of_block)[starts] - last_of_block[starts]
  ]
  pairs = np.stack([starts, np.minimum(np.append(starts, total)[1:], ends_of_block)], -1).ravel()
  longest = np.maximum.reduceat(np.append(following, -1), pairs)[::2].astype(np.int64)
  # From each write to the end of its kernel's run of writes to the block.
  owner = np.stack([ordered_blocks[starts], kernels[order[starts]]])
  run = np.cumsum(np.append(True, (owner[:, 1:] != owner[:, :-1]).any(0)))
  lift = (run[-1] - run) * (total + 1)
  evicting[order[starts]] = np.maximum.accumulate((longest + lift)[::-1])[::-1] - lift
  return evicting


def _read_again(
  accesses: stream.Stream, kernels: list[Kernel], share: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Distances, sectors and kernels of what blocks that run at once read for each other."""
  read = np.bincount(accesses.kernels, accesses.sectors * ~accesses.writes, minlength=len(kernels))
  found = []
  for i, kernel in enumerate(kernels):
    left = kernel.reads - read[i]
    for sectors, spread in kernel.shared:
      amount = min(share * sectors, left)
      if amount > 0:
        found.append((int(spread // accesses.block_bytes), amount, i))
        left -= amount
  distances, amounts, indices = zip(*found) if found else ((), (), ())
  return np.array(distances, np.int32), np.array(amounts), np.array(indices, np.int32)
