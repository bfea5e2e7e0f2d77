"""Closed forms of quantization errors by fan-in against sampled filters."""

import jax
import numpy as np
import pytest

from cnnopt_jax import quant


def sampled(bits, fan_in, granularity, filters=20_000, **options):
  w = np.random.default_rng(fan_in).normal(size=(fan_in, filters)).astype(np.float32)
  return quant.filter_errors(w, bits, (1,), granularity, step='gaussian', **options)


@pytest.mark.parametrize('granularity', quant.GRANULARITIES)
@pytest.mark.parametrize('bits', [1, 2, 3, 4, 8])
@pytest.mark.parametrize('fan_in', [2, 4, 9, 64])
def test_expectations_are_those_of_sampled_filters(granularity, bits, fan_in):
  if granularity == 'layer' and fan_in == 2:
    if bits <= 2:
      assert quant.expected_relative_error(bits, fan_in, granularity) == np.inf
    return  # Of infinite variance.
  errors = np.asarray(sampled(bits, fan_in, granularity).weight, np.float64)
  standard_error = errors.std() / len(errors) ** 0.5
  closed = quant.expected_relative_error(bits, fan_in, granularity)
  # A layer of finitely many filters has a step of its own chance: 0.3 %.
  assert abs(errors.mean() - closed) < 5 * standard_error + 3e-3 * closed


def test_wide_filters_have_the_distortion_of_the_gaussian():
  for levels, bits in (('mid_tread', 2), ('mid_rise', 2), ('mid_tread', 4), ('mid_rise', 1)):
    limit = quant.gaussian_quantizer(bits, levels).distortion
    for granularity in quant.GRANULARITIES:
      found = quant.expected_relative_error(bits, 10**6, granularity, levels)
      assert found == pytest.approx(limit, rel=1e-4)


def test_one_step_a_layer_costs_small_filters_more_and_own_steps_do_not():
  for bits in (2, 4):
    own, shared = (
      [quant.expected_relative_error(bits, d, kind) for d in (9, 36, 288, 4608)]
      for kind in quant.GRANULARITIES
    )
    assert shared == sorted(shared, reverse=True) and shared[0] > 1.05 * shared[-1]
    assert own == sorted(own)


@pytest.mark.parametrize('bits', [1, 2, 3, 4])
def test_the_spread_falls_as_the_root_of_the_fan_in(bits):
  for fan_in in (256, 1024):
    spread = np.asarray(sampled(bits, fan_in, 'channel', 8_000).weight).std() * fan_in**0.5
    assert spread == pytest.approx(quant.relative_error_spread(bits), rel=0.06)


def test_outputs_by_brute_force():
  w = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
  found = quant.filter_errors(w, 2, (1,), step='gaussian')
  q = np.asarray(quant.fake_quantize(w, 2, step='gaussian'))
  x = np.maximum(np.random.default_rng(1).normal(size=(100_000, 9)), 0)
  want = ((x @ (w - q)) ** 2).mean(0) / ((x @ w) ** 2).mean(0)
  np.testing.assert_allclose(found.output, want, rtol=0.03)
  np.testing.assert_allclose(found.variance, (x @ q).var(0) / (x @ w).var(0), rtol=0.03)
  same = jax.jit(lambda w, b: quant.filter_errors(w, b, (1,), step='gaussian'))(w, 2)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), same, found)


def test_what_is_not_allowed_is_refused():
  with pytest.raises(ValueError, match='fan_in=0'):
    quant.expected_relative_error(2, 0)
  with pytest.raises(ValueError, match="bits=1, levels='mid_tread'"):
    quant.relative_error_spread(1, 'mid_tread')
  with pytest.raises(ValueError, match="granularity='filter'"):
    quant.expected_relative_error(2, 9, 'filter')
