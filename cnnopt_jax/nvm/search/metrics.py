"""What each `Target` minimises, for arrays and caches, and the products of energy, delay and area.

Every product of this package is computed here. That of a *workload* on a cache, energy times the
time of all its accesses, is another quantity: `system_totals` has it as `edp_js`.
"""

from typing import Any

import jax.numpy as jnp

from cnnopt_jax.nvm import structures
from cnnopt_jax.nvm.circuit import cache

Array = structures.Array


def _energy_delay(read_energy, write_energy, read_latency, write_latency) -> Any:
  """Mean energy of a read and a write times their mean latency."""
  return (read_energy + write_energy) * (read_latency + write_latency) / 4


def edp(totals: cache.CacheTotals) -> Any:
  """Energy-delay product of a cache's access, reads and writes in equal parts, nJ ns."""
  return _energy_delay(
    totals.hit_energy_nj, totals.write_energy_nj, totals.hit_latency_ns, totals.write_latency_ns
  )


def edap(totals: cache.CacheTotals) -> Any:
  """Energy-delay-area product of a cache's access, reads and writes in equal parts, nJ ns mm^2."""
  return edp(totals) * totals.area_mm2


def array_metrics(totals: cache.ArrayTotals) -> Array:
  """Targets of an array on its own, `[9, ...]`; infinite where it cannot be built."""
  return _metrics(
    totals.read_latency_ns,
    totals.write_latency_ns,
    totals.read_energy_pj,
    totals.write_energy_pj,
    totals.leakage_mw,
    totals.area_mm2,
    totals.valid,
  )


def cache_metrics(totals: cache.CacheTotals) -> Array:
  """Targets of a cache, `[9, ...]`; infinite where it cannot be built."""
  return _metrics(
    totals.hit_latency_ns,
    totals.write_latency_ns,
    totals.hit_energy_nj,
    totals.write_energy_nj,
    totals.leakage_mw,
    totals.area_mm2,
    totals.valid,
  )


def _metrics(read_latency, write_latency, read_energy, write_energy, leakage, area, valid) -> Array:
  """In the order of `Target`, stacked on a leading axis."""
  values = jnp.stack(
    [
      read_latency,
      write_latency,
      read_energy,
      write_energy,
      read_latency * read_energy,
      write_latency * write_energy,
      leakage,
      area,
      _energy_delay(read_energy, write_energy, read_latency, write_latency) * area,
    ]
  )
  return jnp.where(valid, values, jnp.inf)
