"""A profile in the model's place: what a step asks of L2 and DRAM, as counters say."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cnnopt_jax.traffic.gpus import Gpu
from cnnopt_jax.traffic.profiles.coverage import missing
from cnnopt_jax.traffic.profiles.launches import LaunchProfile, total_of
from cnnopt_jax.traffic.profiles.metrics import COUNTERS
from cnnopt_jax.traffic.profiles.tables import ProfileError
from cnnopt_jax.traffic.transactions import Traffic

# Sectors: in the tail of a set-associative cache's misses a ratio of two means nothing.
_NOTHING = 0.5


class ProfileDemand(NamedTuple):
  """Accesses of a step, measured.

  Attributes:
    l2_reads, l2_writes, dram_reads, dram_writes: sectors of 32 B.
    seconds: of all launches, s; None where the profile has no times.
    gpu: that it was measured on; DRAM's counts hold for its `l2_bytes` of last-level cache.
  """

  l2_reads: float
  l2_writes: float
  dram_reads: float
  dram_writes: float
  seconds: float | None
  gpu: Gpu

  @property
  def l2_bytes(self) -> int:
    """Last-level cache that it was measured with, bytes."""
    return self.gpu.l2_bytes


def profile_demand(launches: Sequence[LaunchProfile], gpu: Gpu) -> ProfileDemand:
  """Sums a profile into the demand of a step.

  Args:
    launches: of one step. Copies between host and GPU are left out unless they are counted.
    gpu: that it was measured on.

  Raises:
    ProfileError: naming the counter that some launch lacks: a demand of a part would pass for the
      whole.
  """
  kept = [
    one for one in launches if not one.is_copy or any(getattr(one, n) is not None for n in COUNTERS)
  ]
  sums: dict[str, Any] = {name: total_of(kept, name) for name in COUNTERS}
  for name, value in sums.items():
    if value is None:
      raise ProfileError(f'{missing(kept, name)}; allowed: all of {", ".join(COUNTERS)}')
  return ProfileDemand(**sums, seconds=total_of(kept, 'seconds'), gpu=gpu)


class ProfiledTraffic(NamedTuple):
  """A measured demand where a `Traffic` is expected.

  What no counter has seen is scaled by the model: a last-level cache of another capacity,

      dram(capacity) = measured * modelled.dram(capacity) / reference.dram(measured capacity),

  reads and writes each, and weights of few bits or virtual maps by the same ratio of L2's accesses.
  Where the reference has not one DRAM access, what the model has of them is added instead.

  Attributes:
    demand: measured.
    reference: the model's traffic of the step that was measured.
    modelled: the model's traffic of the step that is asked for, perhaps the same.
  """

  demand: ProfileDemand
  reference: Traffic
  modelled: Traffic

  @property
  def macs(self) -> int:
    """Multiply-accumulates of the whole batch."""
    return self.modelled.macs

  @property
  def algorithms(self) -> Mapping[tuple[str, str], str]:
    """Of the modelled step's layers, `{(path, kind): algorithm}`."""
    return self.modelled.algorithms

  @property
  def l2_reads(self) -> float:
    """Sectors that L2 delivers."""
    return _scaled(self.demand.l2_reads, self.modelled.l2_reads, self.reference.l2_reads)

  @property
  def l2_writes(self) -> float:
    """Sectors that L2 takes."""
    return _scaled(self.demand.l2_writes, self.modelled.l2_writes, self.reference.l2_writes)

  def dram(self, capacity_bytes, *, ways: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """DRAM reads and writes with a last-level cache of another size; as `Traffic.dram`."""
    wanted = self.modelled.dram(capacity_bytes, ways=ways)
    base = self.reference.dram(self.demand.l2_bytes, ways=ways)
    measured = self.demand.dram_reads, self.demand.dram_writes
    reads, writes = (
      np.asarray(_scaled(value, new, float(old)))
      for value, new, old in zip(measured, wanted, base, strict=True)
    )
    return reads, writes


def _scaled(measured: float, wanted: Any, reference: float) -> Any:
  if reference < _NOTHING:
    return measured + wanted
  # Exactly the measured figure where nothing differs: the quotient is 1.
  return measured * (wanted / reference)
