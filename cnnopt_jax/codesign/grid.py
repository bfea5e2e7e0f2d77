"""A report: the figures of every combination of choices, as arrays."""

import dataclasses
import itertools
from typing import Any

import numpy as np

from cnnopt_jax.quant import ModelSize

# The choices of which a list makes an axis, in the order of the arrays' axes.
AXES = ('bits', 'plan', 'cache', 'batch', 'dram')


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class CodesignReport:
  """What a network costs under every combination of choices.

  All arrays have one shape: one axis for each choice that was a list, in the order of `AXES`; `[]`
  if none was. They are read-only. Energy, delay and their product are the memory system's,
  last-level cache and DRAM; what arithmetic costs is not in them.

  Attributes:
    network: its name, or 'table'.
    gpu: whose tiles and transactions were assumed.
    library: that ran the network, and chose the algorithms that were not asked for.
    training: whether a training step was evaluated rather than an inference.
    accounting: what `size` counts, a key of `quant.ACCOUNTINGS`.
    axes: names of the arrays' axes, some of `AXES`.
    labels: for each of `AXES` what was chosen: one label for each entry of an axis, otherwise one.
    size: bits of the stored parameters by term, int64.
    macs: multiply-accumulates of one image's forward pass, int64.
    l2_reads, l2_writes: sectors that the last-level cache delivers and takes, the whole batch.
    dram_accesses: sectors read from and written to DRAM, at the cache's capacity.
    dynamic_energy_j: of the cache's accesses, J.
    leakage_energy_j: of the cache, during `delay_s`, J.
    dram_energy_j: of DRAM's accesses, J.
    total_energy_j: their sum.
    delay_s: all accesses one after the other, s.
    edp_js: `total_energy_j` times `delay_s`, J s.
    area_mm2: of the cache, mm^2.
    traffic: `traffic.Traffic` objects that the accesses follow from: by layer, or at any other
      capacity; `traffic.ProfiledTraffic`, without layers, where a profile was given.
  """

  network: str
  gpu: str
  library: str
  training: bool
  accounting: str
  axes: tuple[str, ...]
  labels: dict[str, tuple[int | str, ...]]
  size: ModelSize
  macs: np.ndarray
  l2_reads: np.ndarray
  l2_writes: np.ndarray
  dram_accesses: np.ndarray
  dynamic_energy_j: np.ndarray
  leakage_energy_j: np.ndarray
  dram_energy_j: np.ndarray
  total_energy_j: np.ndarray
  delay_s: np.ndarray
  edp_js: np.ndarray
  area_mm2: np.ndarray
  traffic: np.ndarray

  @property
  def shape(self) -> tuple[int, ...]:
    """Of all arrays."""
    return self.edp_js.shape

  @property
  def size_bits(self) -> np.ndarray:
    """Bits of all stored parameters."""
    return np.asarray(self.size.total)

  def figure(self, name: str) -> np.ndarray:
    """One figure by name.

    Args:
      name: one of `FIGURES`.

    Raises:
      ValueError: for another name.
    """
    if name not in FIGURES:
      raise ValueError(f'figure={name!r}; allowed: {", ".join(FIGURES)}')
    return getattr(self, name)

  def rows(self) -> list[dict[str, Any]]:
    """One dict for each combination, in the arrays' order: its choices, then all figures."""
    choices = itertools.product(*(self.labels[axis] for axis in AXES))
    columns = {name: self.figure(name).ravel().tolist() for name in FIGURES}
    return [
      {**dict(zip(AXES, chosen)), **dict(zip(columns, values))}
      for chosen, values in zip(choices, zip(*columns.values()), strict=True)
    ]


FIGURES = (
  'size_bits',
  'macs',
  'l2_reads',
  'l2_writes',
  'dram_accesses',
  'dynamic_energy_j',
  'leakage_energy_j',
  'dram_energy_j',
  'total_energy_j',
  'delay_s',
  'edp_js',
  'area_mm2',
)
