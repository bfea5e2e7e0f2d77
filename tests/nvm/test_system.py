"""The system model by hand, batched, differentiated; the recalled table's ratios."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax import nvm
from cnnopt_jax.nvm.validation import published

DEMAND = nvm.Demand(l2_reads=3e9, l2_writes=1e9, dram_accesses=2e9)
CACHE = nvm.CacheFigures(
  read_ns=2.0, write_ns=5.0, read_nj=0.5, write_nj=1.0, leakage_mw=100.0, area_mm2=4.0
)


def test_by_hand():
  found = nvm.system_totals(DEMAND, CACHE)
  # 3 x 0.5 + 1 x 1 J; 3 x 2 + 1 x 5 s; 0.1 W for 11 s.
  np.testing.assert_allclose(found, [2.5, 1.1, 0, 3.6, 11, 39.6, 4], rtol=1e-12)
  with_dram = nvm.system_totals(DEMAND, CACHE, nvm.Dram(access_nj=4.0, access_ns=10.0))
  # 8 J and 20 s more, during which the cache leaks.
  np.testing.assert_allclose(with_dram, [2.5, 3.1, 8, 13.6, 31, 421.6, 4], rtol=1e-12)


def test_grid_is_the_single_evaluations_and_compiles_once():
  rng = np.random.default_rng(0)
  demand = nvm.Demand(*rng.uniform(1, 9, (2, 3)), rng.uniform(1, 9, (3, 4)))
  caches = nvm.CacheFigures(*rng.uniform(1, 9, (6, 4)))
  drams = nvm.Dram(*rng.uniform(1, 9, (2, 2)))
  traces = []

  @jax.jit
  def grid(*args):
    traces.append(1)
    return nvm.system_totals_grid(*args)

  with nvm.float64():
    found = grid(demand, caches, drams)
    grid(demand, caches, drams)
    assert len(traces) == 1
    for w, c, d in np.ndindex(3, 4, 2):
      one = nvm.system_totals(
        nvm.Demand(demand.l2_reads[w], demand.l2_writes[w], demand.dram_accesses[w, c]),
        nvm.CacheFigures(*(x[c] for x in caches)),
        nvm.Dram(*(x[d] for x in drams)),
      )
      np.testing.assert_allclose(found.edp_js[w, c, d], one.edp_js, rtol=1e-12)
      np.testing.assert_allclose(found.dram_energy_j[w, c, d], one.dram_energy_j, rtol=1e-12)


def test_gradient_of_edp():
  edp = lambda leakage: nvm.system_totals(DEMAND, CACHE._replace(leakage_mw=leakage)).edp_js
  assert jax.grad(edp)(jnp.float32(100.0)) == pytest.approx(1e-3 * 11**2)


def test_dram_constants():
  # 32 B at 14 and 3.92 pJ a bit.
  assert nvm.GDDR5X.access_nj == pytest.approx(3.584) and nvm.HBM.access_nj == pytest.approx(
    1.0035, abs=1e-4
  )
  assert 1 < nvm.GDDR5X.access_ns < 2 < nvm.HBM.access_ns < 3


def test_recalled_table_has_the_ratios_of_the_abstract():
  """The recollection is tested against the abstract's area and capacity, not the reverse."""
  table = published.RECALLED_CACHES
  area = lambda name: table['sram', 3].area_mm2 / table[name, 3].area_mm2
  claims = {
    (c.technology, c.figure): c.value
    for c in published.HEADLINES
    if c.paper.startswith('DeepNVM++')
  }
  for name, mib in (('stt', 7), ('sot', 10)):
    assert area(name) == pytest.approx(claims[name, 'area'], rel=0.02)
    assert mib / 3 == pytest.approx(claims[name, 'capacity'], rel=0.02)
    assert table[name, mib].area_mm2 == pytest.approx(table['sram', 3].area_mm2, rel=0.1)
