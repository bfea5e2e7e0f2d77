"""Energy, delay and their product of a workload on a last-level cache, with and without DRAM."""

from typing import NamedTuple

import chex
import jax

from cnnopt_jax.nvm.circuit.cache import CacheTotals

# DRAM constants, our own choice: DeepNVM's are not published in its abstracts. All in one place.
#
# Energy of a bit, array and interface: GDDR5 14.0 pJ, HBM2 3.92 pJ (M. O'Connor et al.,
# Fine-Grained DRAM, MICRO 2017, recalled from its section 2). GDDR5X is taken as GDDR5.
# Time of an access: DeepNVM charges every cache access its latency, one after another. DRAM is
# charged in the same way, for one channel: the burst of a sector, and the sector's share of opening
# a row (tRP + tRCD + CL), as the accesses that miss come in long runs. GDDR5X: 32 B at 44 GB/s and
# 36 ns for 64 sectors of 2 KB; HBM2: 32 B at 32 GB/s and 42 ns for 32 sectors of 1 KB (timings
# recalled from data sheets, not read). With all channels busy a sector takes 0.07 ns (484 GB/s);
# alone, with its row closed, it takes 25 ns, and a program sees ten times that. The reports of
# `experiments.nvm_eval` show what the choice moves.
_GDDR5_PJ_PER_BIT, _GDDR5X_ACCESS_NS = 14.0, 32 / 44 + 36 / 64
_HBM_PJ_PER_BIT, _HBM_ACCESS_NS = 3.92, 32 / 32 + 42 / 32
SECTOR_BITS = 8 * 32


class Demand(NamedTuple):
  """What a workload asks of the memory system; fields broadcast.

  Attributes:
    l2_reads, l2_writes: accesses to the last-level cache.
    dram_accesses: reads and writes of DRAM, at the capacity of the cache it is evaluated with.
  """

  l2_reads: chex.Numeric
  l2_writes: chex.Numeric
  dram_accesses: chex.Numeric


class CacheFigures(NamedTuple):
  """What the system sees of a cache; fields broadcast.

  Attributes:
    read_ns, write_ns: latency of an access.
    read_nj, write_nj: energy of an access.
    leakage_mw: mW.
    area_mm2: mm^2.
  """

  read_ns: chex.Numeric
  write_ns: chex.Numeric
  read_nj: chex.Numeric
  write_nj: chex.Numeric
  leakage_mw: chex.Numeric
  area_mm2: chex.Numeric

  @classmethod
  def of(cls, totals: CacheTotals) -> 'CacheFigures':
    """Of a modelled cache: a read is a hit."""
    return cls(
      totals.hit_latency_ns,
      totals.write_latency_ns,
      totals.hit_energy_nj,
      totals.write_energy_nj,
      totals.leakage_mw,
      totals.area_mm2,
    )


class Dram(NamedTuple):
  """Off-chip memory; fields broadcast.

  Attributes:
    access_nj: energy of an access of one sector.
    access_ns: time of one.
  """

  access_nj: chex.Numeric
  access_ns: chex.Numeric


GDDR5X = Dram(1e-3 * SECTOR_BITS * _GDDR5_PJ_PER_BIT, _GDDR5X_ACCESS_NS)
HBM = Dram(1e-3 * SECTOR_BITS * _HBM_PJ_PER_BIT, _HBM_ACCESS_NS)
NO_DRAM = Dram(0.0, 0.0)
DRAMS = {'none': NO_DRAM, 'gddr5x': GDDR5X, 'hbm': HBM}


class SystemTotals(NamedTuple):
  """Figures of a workload on a memory system.

  Attributes:
    dynamic_energy_j: of the cache's accesses.
    leakage_energy_j: of the cache, during `delay_s`.
    dram_energy_j: of DRAM's accesses.
    total_energy_j: their sum.
    delay_s: all accesses one after the other.
    edp_js: energy-delay product.
    area_mm2: of the cache.
  """

  dynamic_energy_j: chex.Numeric
  leakage_energy_j: chex.Numeric
  dram_energy_j: chex.Numeric
  total_energy_j: chex.Numeric
  delay_s: chex.Numeric
  edp_js: chex.Numeric
  area_mm2: chex.Numeric


def system_totals(traffic: Demand, cache: CacheFigures, dram: Dram = NO_DRAM) -> SystemTotals:
  """DeepNVM's system model (arXiv 2012.04559), pure and elementwise.

      E_dynamic = N_read E_read + N_write E_write        D = N_read t_read + N_write t_write
      E_leakage = P_leakage D                            EDP = (E_dynamic + E_leakage) D

  With DRAM, E gains N_dram E_dram and D gains N_dram t_dram, during which the cache leaks too.

  Args:
    traffic: accesses.
    cache: the last-level cache.
    dram: `NO_DRAM` leaves it out.

  Returns:
    Totals in the broadcast shape; `jax.vmap` and `jax.grad` apply.
  """
  dynamic = 1e-9 * (traffic.l2_reads * cache.read_nj + traffic.l2_writes * cache.write_nj)
  delay = 1e-9 * (
    traffic.l2_reads * cache.read_ns
    + traffic.l2_writes * cache.write_ns
    + traffic.dram_accesses * dram.access_ns
  )
  if isinstance(delay, jax.Array):
    # XLA would fold the two unit factors of power times time into one, which rounds differently.
    delay = jax.lax.optimization_barrier(delay)
  leakage = 1e-3 * cache.leakage_mw * delay
  off_chip = 1e-9 * traffic.dram_accesses * dram.access_nj
  total = dynamic + leakage + off_chip
  return SystemTotals(dynamic, leakage, off_chip, total, delay, total * delay, cache.area_mm2)


def system_totals_grid(traffic: Demand, caches: CacheFigures, drams: Dram) -> SystemTotals:
  """All workloads on all caches with all DRAMs.

  Args:
    traffic: `[W]`, `dram_accesses` `[W, C]`: they depend on the cache's capacity.
    caches: `[C]`.
    drams: `[D]`.

  Returns:
    Totals `[W, C, D]`.
  """
  per_dram = jax.vmap(system_totals, (None, None, 0))
  per_cache = jax.vmap(per_dram, (Demand(None, None, 0), 0, None))
  return jax.vmap(per_cache, (Demand(0, 0, 0), None, None))(traffic, caches, drams)
