"""Which organisations there are: partitions of a bank enumerated and resolved on the host.

A `Partition` says how often each thing is cut in two; `resolve` derives from it and the memory's
size how many rows and columns a subarray has and how many bits travel, and which partitions make
no sense. Everything is a power of two. Spaces (points before the structural filter):

- `CACTI_SPACE`: what NVSim searches under `UseCactiAssumption`: 1 to 512 mats each way, all
  columns and one row of mats active, mats of 2 x 2 active subarrays, three multiplexers of 1 to
  256: 10 x 10 x 9^3 = 72,900 points for one buffer style.
- `WIDE_SPACE`: without that assumption: any power of two of active mats and 1 or 2 subarrays each
  way, active or not: 55 x 55 x 9 x 9^3 = 19.8 million.
- `TAG_SPACE`: tag arrays, 1 to 64 mats each way, any number of them active, 1 or 2 subarrays, one
  multiplexer of 1 to 64 before the sense amplifiers *or* at the second output, three buffer
  styles: 28 x 28 x 9 x 13 x 3 = 275,184. NVSim opens all three multiplexers (`FULL_TAG_SPACE`,
  7.3 million) but takes no more than one, see `docs/results/nvm_model.md`.

Points come in the order of NVSim's loops: of equal ones the first wins.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cnnopt_jax.nvm import structures
from cnnopt_jax.nvm.circuit import drivers, predecoders
from cnnopt_jax.nvm.specs import CacheSpec, Mode, split_capacity, tag_bits

Buffering = structures.Buffering


class Partition(NamedTuple):
  """Base-two logarithms of the counts in `structures.Organization`, `[N]` integers each."""

  mat_rows: np.ndarray
  mat_columns: np.ndarray
  active_mat_rows: np.ndarray
  active_mat_columns: np.ndarray
  subarray_rows: np.ndarray
  subarray_columns: np.ndarray
  active_subarray_rows: np.ndarray
  active_subarray_columns: np.ndarray
  mux_senseamp: np.ndarray
  mux_output1: np.ndarray
  mux_output2: np.ndarray


class Space(NamedTuple):
  """Ranges to enumerate.

  Attributes:
    max_mats: log2 of the most mats in a direction.
    max_mux: log2 of the highest multiplexer degree.
    cacti: whether CACTI's assumption holds.
    single_mux: whether at most one multiplexer is used, the second output one being left out.
    buffering: styles.
  """

  max_mats: int
  max_mux: int
  cacti: bool
  single_mux: bool = False
  buffering: tuple[int, ...] = (Buffering.LATENCY,)


CACTI_SPACE = Space(max_mats=9, max_mux=8, cacti=True)
WIDE_SPACE = CACTI_SPACE._replace(cacti=False)
TAG_SPACE = Space(max_mats=6, max_mux=6, cacti=False, single_mux=True, buffering=tuple(Buffering))
FULL_TAG_SPACE = TAG_SPACE._replace(single_mux=False)


def partitions(space: Space) -> tuple[Partition, np.ndarray]:
  """All points of a space: a `Partition` of `[N]` arrays, and their buffer style `[N]`."""
  mats = range(space.max_mats + 1)
  # One row per array of mats or subarrays: rows, columns, active columns, active rows.
  if space.cacti:
    banks = [(r, c, c, 0) for r in mats for c in mats]
    mats_ = [(1, 1, 1, 1)]
  else:

    def nested(ranges):
      return [
        (r, c, active_c, active_r)
        for r in ranges
        for c in ranges
        for active_c in range(c + 1)
        for active_r in range(r + 1)
      ]

    banks, mats_ = nested(mats), nested(range(2))
  degrees = range(space.max_mux + 1)
  muxes = [
    mux
    for mux in itertools.product(degrees, repeat=3)
    if not space.single_mux or (sum(map(bool, mux)) <= 1 and not mux[1])
  ]
  return product(banks, mats_, muxes, space.buffering)


def product(
  banks: Sequence[tuple[int, ...]],
  mats: Sequence[tuple[int, ...]],
  muxes: Sequence[tuple[int, ...]],
  buffering: tuple[int, ...],
) -> tuple[Partition, np.ndarray]:
  """All combinations, as `partitions` has them.

  Args:
    banks, mats: log2 of rows, columns, active columns and active rows of mats and of subarrays.
    muxes: log2 of the three degrees.
    buffering: styles.
  """
  axes = [np.array(axis, np.int32) for axis in (banks, mats, muxes)]
  styles = np.array(buffering, np.int32)
  index = np.indices([len(axis) for axis in axes] + [len(styles)], np.int32)
  bank, mat, mux = (axis[i.ravel()].T for axis, i in zip(axes, index[:-1]))
  return Partition(bank[0], bank[1], bank[3], bank[2], mat[0], mat[1], mat[3], mat[2], *mux), (
    styles[index[-1].ravel()]
  )


def data_organizations(
  spec: CacheSpec, mode: Mode, space: Space = CACTI_SPACE, *, nvsim_compatible: bool = False
) -> structures.Organization:
  """The structurally possible data arrays of one bank of a cache, `[N]`."""
  partition, style = partitions(space)
  org, valid = resolve_data(spec, mode, partition, style, nvsim_compatible=nvsim_compatible)
  return select(org, valid)


def tag_organizations(
  spec: CacheSpec, mode: Mode, space: Space = TAG_SPACE, *, nvsim_compatible: bool = False
) -> structures.Organization:
  """The structurally possible tag arrays of one bank of a cache, `[N]`."""
  partition, style = partitions(space)
  org, valid = resolve_tag(spec, mode, partition, style, nvsim_compatible=nvsim_compatible)
  return select(org, valid)


def select(org: structures.Organization, index: np.ndarray | int) -> structures.Organization:
  """Members of a batch of organisations, by mask or index."""
  return structures.Organization(
    **{name: np.asarray(getattr(org, name))[index] for name in org.__dataclass_fields__}
  )


def resolve_data(
  spec: CacheSpec, mode: Mode, partition: Partition, style: np.ndarray, *, nvsim_compatible: bool
) -> tuple[structures.Organization, np.ndarray]:
  """Derives data arrays from partitions.

  Args:
    spec: the cache (its first bank counts).
    mode: access mode.
    partition: `[N]`.
    style: `[N]`, a `Buffering` each.
    nvsim_compatible: in normal mode, count the way-select bits twice when sizing the row
      predecoders, and divide write energy by the associativity.

  Returns:
    Organisations `[N]` and whether each is possible `[N]`.
  """
  _, bank = split_capacity(spec.capacity_bytes)
  ways = spec.associativity
  word = 8 * spec.line_bytes * (ways if mode is Mode.FAST else 1)
  way_bits = _log2(ways) if mode is Mode.NORMAL else 0
  address = _log2(8 * bank // word) - way_bits
  split = partition.active_mat_rows + partition.active_mat_columns
  active = partition.active_subarray_rows + partition.active_subarray_columns
  mat_word = word >> split
  # Ways that share a row need more multiplexing, spread over the three levels.
  extra_output = way_bits // 3
  mux = [
    partition.mux_senseamp + way_bits - 2 * extra_output,
    partition.mux_output1 + extra_output,
    partition.mux_output2 + extra_output,
  ]
  mux_bits = sum(mux)
  local = _local_address_bits(partition, address)
  row_bits = local + way_bits - mux_bits
  decoded = row_bits - way_bits if nvsim_compatible else row_bits
  columns = (mat_word >> active) << mux_bits
  valid = (local >= 1) & (row_bits >= 0) & (decoded >= 0) & (columns >= 1)
  if mode in (Mode.NORMAL, Mode.FAST):
    valid &= columns >= ways
  fast_ways = ways if mode is Mode.FAST else 1
  org = _organization(
    partition,
    mux,
    row_bits,
    columns,
    decoded,
    address,
    word,
    way_bits,
    ways=0.0,
    tag_bits=0.0,
    is_tag=0,
    set_ways=fast_ways,
    write_share=ways if mode in (Mode.NORMAL, Mode.FAST) else 1,
    wire_share=fast_ways,
    style=style,
  )
  return org, valid & _modelled(row_bits, columns)


def resolve_tag(
  spec: CacheSpec, mode: Mode, partition: Partition, style: np.ndarray, *, nvsim_compatible: bool
) -> tuple[structures.Organization, np.ndarray]:
  """Derives tag arrays from partitions; arguments and result as in `resolve_data`."""
  _, bank = split_capacity(spec.capacity_bytes)
  ways = spec.associativity
  address = _log2(bank // spec.line_bytes // ways)
  split = partition.active_mat_rows + partition.active_mat_columns
  active = partition.active_subarray_rows + partition.active_subarray_columns
  parts = 1 << (split + active)
  bits = -(-tag_bits(spec) // parts) * parts  # Rounded up to whole bits in each part.
  mat_ways = ways >> split
  mux = [partition.mux_senseamp, partition.mux_output1, partition.mux_output2]
  local = _local_address_bits(partition, address)
  row_bits = local - sum(mux)
  columns = ((bits >> active) << sum(mux)) * mat_ways
  valid = (local >= 1) & (row_bits >= 0) & (mat_ways >= 1) & (parts <= tag_bits(spec))
  if nvsim_compatible and mode in (Mode.NORMAL, Mode.FAST):
    valid &= columns >= ways  # NVSim applies the data array's rule to tags.
  shared = ways if mode in (Mode.NORMAL, Mode.FAST) else 1
  org = _organization(
    partition,
    mux,
    row_bits,
    columns,
    row_bits,
    address,
    ways,
    bits,
    ways=mat_ways,
    tag_bits=bits,
    is_tag=1,
    set_ways=ways,
    write_share=shared,
    wire_share=ways if nvsim_compatible and mode is Mode.FAST else 1,
    style=style,
  )
  return org, valid & _modelled(row_bits, columns)


def _local_address_bits(partition, address):
  """Address bits that reach an active subarray: H-tree and gating have used the others."""
  chosen = (
    partition.mat_rows
    - partition.active_mat_rows
    + partition.mat_columns
    - partition.active_mat_columns
  )
  gated = (
    partition.subarray_rows
    - partition.active_subarray_rows
    + partition.subarray_columns
    - partition.active_subarray_columns
  )
  return address - chosen - gated


def _modelled(row_bits, columns):
  """Within what predecoders and inverter chains of fixed length can drive."""
  return (row_bits <= 2 * predecoders.MAX_BLOCK_BITS) & (columns <= 4 ** (drivers.MAX_STAGES - 1))


def _organization(
  partition,
  mux,
  row_bits,
  columns,
  decoded,
  address,
  distributed,
  broadcast,
  *,
  ways,
  tag_bits,
  is_tag,
  set_ways,
  write_share,
  wire_share,
  style,
):
  """Counts as float64 (products exceed 32 bits), selectors as integers, all of one shape."""
  shape = np.shape(row_bits)

  def count(bits):
    return np.ldexp(1.0, bits)

  def full(value):
    return np.broadcast_to(np.asarray(value, np.float64), shape)

  def whole(value):
    return np.broadcast_to(np.asarray(value, np.int32), shape)

  names = [name for name in Partition._fields if not name.startswith('mux_')]
  return structures.Organization(
    **{name: count(getattr(partition, name)) for name in names},
    mux_senseamp=count(mux[0]),
    mux_output1=count(mux[1]),
    mux_output2=count(mux[2]),
    rows=count(row_bits),
    columns=full(columns),
    row_address_bits=whole(decoded),
    address_bits=full(address),
    distributed_bits=full(distributed),
    broadcast_bits=full(broadcast),
    ways=full(ways),
    tag_bits=full(tag_bits),
    is_tag=whole(is_tag),
    set_ways=full(set_ways),
    write_share=full(write_share),
    wire_share=full(wire_share),
    buffering=whole(style),
  )


def _log2(power_of_two: int) -> int:
  return int(power_of_two).bit_length() - 1
