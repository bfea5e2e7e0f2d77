"""How arrays make a cache, with numbers of one digit."""

import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax import nvm
from cnnopt_jax.nvm import specs
from cnnopt_jax.nvm.circuit import cache

ONE_BANK = cache.Bus(1.0, 1e-6, 1e-3, 1e-2)


def _array(**changes):
  values = dict(
    area_mm2=2.0,
    height_um=100.0,
    width_um=200.0,
    read_latency_ns=5.0,
    write_latency_ns=4.0,
    select_latency_ns=2.0,
    row_latency_ns=3.0,
    read_energy_pj=7.0,
    write_energy_pj=6.0,
    leakage_mw=1.0,
    valid=True,
  )
  return cache.ArrayTotals(**{**values, **changes})


TAG = _array(
  area_mm2=0.5,
  read_latency_ns=1.0,
  write_latency_ns=9.0,
  read_energy_pj=2.0,
  write_energy_pj=1.0,
  leakage_mw=0.25,
)
SLOW_TAG = TAG._replace(read_latency_ns=8.0)


@pytest.mark.parametrize(
  'mode, tag, hit, miss, hit_pj, miss_pj',
  [
    (nvm.Mode.NORMAL, TAG, 3 + 2, 1, 9, 9),
    (nvm.Mode.NORMAL, SLOW_TAG, 8 + 2, 8, 9, 9),
    (nvm.Mode.FAST, TAG, 5, 1, 9, 9),
    (nvm.Mode.FAST, SLOW_TAG, 8, 8, 9, 9),
    (nvm.Mode.SEQUENTIAL, TAG, 1 + 5, 1, 9, 2),
    (nvm.Mode.SEQUENTIAL, SLOW_TAG, 13, 8, 9, 2),
  ],
)
def test_the_three_modes(mode, tag, hit, miss, hit_pj, miss_pj):
  totals = cache.combine(_array(), tag, specs.CACHE_MODES.index(mode), ONE_BANK)
  np.testing.assert_allclose(
    [
      totals.hit_latency_ns,
      totals.miss_latency_ns,
      totals.write_latency_ns,
      1e3 * totals.hit_energy_nj,
      1e3 * totals.miss_energy_nj,
      1e3 * totals.write_energy_nj,
      totals.leakage_mw,
      totals.area_mm2,
    ],
    [hit, miss, 9, hit_pj, miss_pj, 7, 1.25, 2.5],
    rtol=1e-6,
  )


def test_five_banks_in_a_row():
  # Farthest bank two pitches of 100 um away, mean (25 - 1) / 20 = 1.2 pitches.
  totals = cache.combine(
    _array(), TAG, specs.CACHE_MODES.index(nvm.Mode.SEQUENTIAL), ONE_BANK._replace(banks=5.0)
  )
  one_way = 2 * 1e-6 * 100**2
  np.testing.assert_allclose(totals.hit_latency_ns, 6 + 2 * one_way, rtol=1e-6)
  np.testing.assert_allclose(totals.write_latency_ns, 9 + one_way, rtol=1e-6)
  np.testing.assert_allclose(totals.hit_energy_nj, 9e-3 + 120 * (1e-3 + 1e-2), rtol=1e-6)
  np.testing.assert_allclose(totals.miss_energy_nj, 2e-3 + 120 * 1e-3, rtol=1e-6)
  np.testing.assert_allclose([totals.area_mm2, totals.leakage_mw], [12.5, 6.25], rtol=1e-6)


def test_a_cache_needs_both_arrays():
  broken = TAG._replace(valid=jnp.asarray(False))
  assert not cache.combine(_array(), broken, 0, ONE_BANK).valid
