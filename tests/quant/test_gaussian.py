"""Minimum-MSE quantizers of a Gaussian, against published and brute-force figures."""

import numpy as np
import pytest

from cnnopt_jax.quant import gaussian_quantizer

# (clip, distortion). Even level counts: Max (1960), table II, step times half the level count.
MID_RISE = {
  1: (0.7979, 0.3634),
  2: (1.4935, 0.1188),
  3: (2.0511, 0.03744),
  4: (2.5140, 0.01154),
  6: (3.2780, 0.00104),
  8: (3.9222, 9e-5),
}
MID_TREAD = {
  2: (1.2240, 0.1902),
  3: (1.9523, 0.0469),
  4: (2.4739, 0.0129),
  6: (3.2701, 0.00107),
  8: (3.9205, 9e-5),
}


@pytest.mark.parametrize('levels, table', [('mid_rise', MID_RISE), ('mid_tread', MID_TREAD)])
def test_reproduces_the_table(levels, table):
  for bits, (clip, distortion) in table.items():
    found = gaussian_quantizer(bits, levels)
    assert round(found.clip, 4) == clip
    np.testing.assert_allclose(found.distortion, distortion, rtol=0.04)


def test_one_bit_is_the_mean_absolute_value():
  np.testing.assert_allclose(gaussian_quantizer(1, 'mid_rise').clip, np.sqrt(2 / np.pi), rtol=1e-6)
  np.testing.assert_allclose(gaussian_quantizer(1, 'mid_rise').distortion, 1 - 2 / np.pi)


@pytest.mark.parametrize('bits, levels', [(2, 'mid_tread'), (3, 'mid_rise'), (5, 'mid_tread')])
def test_distortion_is_that_of_the_integral_and_least(bits, levels):
  """A Riemann sum over the density, at the clip and beside it."""
  x = np.linspace(-12, 12, 2_000_001)
  density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi) * (x[1] - x[0])
  count = 2**bits - (levels == 'mid_tread')

  def distortion(clip):
    grid = np.linspace(-clip, clip, count)
    nearest = grid[np.clip(np.rint((x - grid[0]) / (grid[1] - grid[0])), 0, count - 1).astype(int)]
    return np.sum((x - nearest) ** 2 * density)

  found = gaussian_quantizer(bits, levels)
  np.testing.assert_allclose(distortion(found.clip), found.distortion, rtol=1e-6)
  assert distortion(found.clip) < min(distortion(0.99 * found.clip), distortion(1.01 * found.clip))
