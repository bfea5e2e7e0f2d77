"""Lifetimes by hand: 1 MiB are 16,384 lines of 64 B, a year has 31,557,600 s."""

import math

import pytest

from cnnopt_jax import nvm

CELL = nvm.CELLS['stt'].replace(endurance_writes=31_557_600.0)


def test_levelled_wear_is_shared_by_all_lines():
  # A write a second to each line takes a year.
  assert nvm.lifetime(CELL, 1 << 20, 16384.0) == pytest.approx(1, rel=1e-12)
  assert nvm.lifetime(CELL, 2 << 20, 16384.0) == pytest.approx(2, rel=1e-12)
  assert nvm.lifetime(CELL, 1 << 20, 16384.0, line_bytes=128) == pytest.approx(0.5, rel=1e-12)


def test_the_hottest_line_goes_first():
  assert nvm.lifetime(CELL, 1 << 20, 8.0, hottest_share=0.25) == pytest.approx(0.5, rel=1e-12)
  even = nvm.lifetime(CELL, 1 << 20, 8.0, hottest_share=1 / 16384)
  assert even == nvm.lifetime(CELL, 1 << 20, 8.0)


def test_what_does_not_wear():
  assert nvm.lifetime(nvm.CELLS['sram'], 1 << 20, 1e9, hottest_share=1.0) == math.inf
  assert nvm.lifetime(CELL, 1 << 20, 0.0) == math.inf


@pytest.mark.parametrize(
  'arguments, named',
  [
    ({'hottest_share': 1e-6}, 'hottest_share=1e-06; allowed: 6.1e-05'),
    ({'hottest_share': 1.5}, 'hottest_share=1.5'),
    ({'writes_per_s': math.inf}, 'writes_per_s=inf'),
    ({'capacity_bytes': 32}, 'capacity_bytes=32'),
  ],
)
def test_refusals(arguments, named):
  values = {'capacity_bytes': 1 << 20, 'writes_per_s': 1.0, **arguments}
  with pytest.raises(ValueError, match=named):
    nvm.lifetime(CELL, **values)
