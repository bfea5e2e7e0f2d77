"""Ternary weights against the paper's definition, exhaustive search and the Gaussian integral."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

from cnnopt_jax.quant import fake_quantize
from cnnopt_jax.quant.ternary import (
  TERNARY_BITS,
  THRESHOLDS,
  ternary_quantize,
  ternary_threshold,
)

OPTIONS = ('channel_axis', 'threshold')
jitted = jax.jit(ternary_quantize, static_argnames=OPTIONS)
jitted_threshold = jax.jit(ternary_threshold, static_argnames=OPTIONS)


def weights(shape=(3, 3, 8, 6), seed=0):
  return np.random.default_rng(seed).standard_t(5, size=shape)


def numpy_ternary(w, threshold):
  """Of one tensor, by the paper's formulas."""
  kept = np.abs(w) > threshold
  return np.where(kept, np.sign(w) * np.abs(w)[kept].mean(), 0)


def test_bits():
  assert TERNARY_BITS == pytest.approx(1.584962500721156, abs=1e-15)


def test_by_hand():
  w = jnp.asarray([-2.0, -0.5, 0.0, 0.25, 0.75, 1.5])
  # 0.7 * 5 / 6 = 0.583 keeps 2, 1.5 and 0.75: scale 4.25 / 3.
  np.testing.assert_allclose(jitted_threshold(w), [3.5 / 6], rtol=1e-6)
  a = 4.25 / 3
  np.testing.assert_allclose(jitted(w), [-a, 0, 0, 0, a, a], rtol=1e-6)
  # Gains 4, 3.5^2 / 2 = 6.125, 4.25^2 / 3 = 6.02, 4.75^2 / 4 = 5.64, 5: the best keeps two.
  np.testing.assert_array_equal(jitted_threshold(w, threshold='exact'), [0.75])
  exact = jitted(w, threshold='exact')
  np.testing.assert_allclose(exact, [-1.75, 0, 0, 0, 0, 1.75], rtol=1e-6)


@pytest.mark.parametrize('channel_axis', [None, -1, (0, 3)])
def test_mean_threshold_is_the_papers(channel_axis):
  with jax.enable_x64(True):
    w = weights()
    q = np.asarray(jitted(w, channel_axis=channel_axis))
    kept = {None: (), -1: (3,), (0, 3): (0, 3)}[channel_axis]
    for index in np.ndindex(*(w.shape[axis] for axis in kept)):
      place = [slice(None)] * 4
      for axis, i in zip(kept, index):
        place[axis] = i
      channel = w[tuple(place)]
      expected = numpy_ternary(channel, 0.7 * np.abs(channel).mean())
      np.testing.assert_allclose(q[tuple(place)], expected, rtol=1e-12)


@pytest.mark.parametrize('channel_axis', [None, 0, -1, (0, -1)])
def test_exact_threshold_is_the_best_of_all(channel_axis):
  with jax.enable_x64(True):
    w = weights((7, 5, 6))
    q = np.asarray(jitted(w, channel_axis=channel_axis, threshold='exact'))
    axes = {None: (), 0: (0,), -1: (2,), (0, -1): (0, 2)}[channel_axis]
    shape = jitted_threshold(w, channel_axis=channel_axis, threshold='exact').shape
    assert shape == tuple(w.shape[i] if i in axes else 1 for i in range(3))
    for index in np.ndindex(*(w.shape[axis] for axis in axes)):
      place = [slice(None)] * 3
      for axis, i in zip(axes, index):
        place[axis] = i
      channel = w[tuple(place)]
      candidates = [
        numpy_ternary(channel, t) for t in (0, *np.abs(channel).ravel()) if t < abs(channel).max()
      ]
      best = min(candidates, key=lambda c: np.sum((c - channel) ** 2))
      np.testing.assert_allclose(q[tuple(place)], best, rtol=1e-12)


def test_exact_threshold_with_ties_and_zeros():
  for w, limit, scale in [
    ([0.0, 0.0, 0.0, 0.0], 0, 0),
    ([1.0, -1.0, 1.0, 1.0], 0, 1),
    ([3.0, -3.0, 0.0, 0.0], 0, 3),
    ([5.0, 1.0, 1.0, 1.0], 1, 5),
    ([-4.0, 3.0, 3.0, 0.0], 0, 10 / 3),
    ([2.0], 0, 2),
  ]:
    w = np.asarray(w, np.float32)
    np.testing.assert_array_equal(jitted_threshold(w, threshold='exact'), [limit])
    expected = np.where(np.abs(w) > limit, np.sign(w) * scale, 0)
    np.testing.assert_allclose(jitted(w, threshold='exact'), expected, rtol=1e-6)
  for threshold in THRESHOLDS:
    np.testing.assert_array_equal(jitted(jnp.zeros((4, 2)), threshold=threshold), 0)


def test_exact_thresholds_beat_the_approximation_and_two_bit_mid_tread():
  """Both are three symmetric levels, so neither may have a smaller error than the optimum."""
  w = weights((200, 8))
  mse_quantize = jax.jit(functools.partial(fake_quantize, levels='mid_tread', step='mse'))
  with jax.enable_x64(True):
    error = lambda q: np.sum((np.asarray(q) - w) ** 2, 0)
    exact = error(jitted(w, channel_axis=-1, threshold='exact'))
    mse = error(mse_quantize(w, 2))
    mean = error(jitted(w, channel_axis=-1))
  assert np.all(exact <= mse * (1 + 1e-12)) and np.all(exact <= mean * (1 + 1e-12))
  assert np.all(mean <= 1.1 * exact)


def test_thresholds_of_known_distributions():
  """A third of the range for uniform weights; for Gaussian ones, where the gain is greatest.

  The gain of a threshold t is (2 phi(t))^2 / (2 Q(t)); the paper gives t = 0.6 sigma.
  """
  n = 20_001
  uniform = np.linspace(-1, 1, n)
  normal = stats.norm.ppf((np.arange(n) + 0.5) / n)
  gain = lambda t: -(stats.norm.pdf(t) ** 2) / stats.norm.sf(t)
  best = optimize.minimize_scalar(gain, bounds=(0, 2), method='bounded').x
  assert best == pytest.approx(0.612, abs=1e-3)
  for w, expected in ((uniform, 1 / 3), (normal, best)):
    found = float(jitted_threshold(w.astype(np.float32), threshold='exact')[0])
    # The gain is flat at its top: single precision moves the threshold by about sqrt(eps).
    assert found == pytest.approx(expected, abs=3e-3)
  mean = float(jitted_threshold(normal.astype(np.float32))[0])
  assert mean == pytest.approx(0.7 * np.sqrt(2 / np.pi), rel=1e-3)


def test_gradient_is_straight_through():
  w, ct = weights().astype(np.float32), weights(seed=1).astype(np.float32)
  for threshold in THRESHOLDS:
    fn = functools.partial(ternary_quantize, channel_axis=-1, threshold=threshold)
    np.testing.assert_array_equal(jax.jit(jax.grad(lambda w: jnp.sum(ct * fn(w))))(w), ct)  # noqa: B023
    np.testing.assert_array_equal(jax.jvp(jax.jit(fn), (w,), (ct,))[1], ct)


def test_vmap_over_tensors():
  w = weights((4, 9, 5)).astype(np.float32)
  for threshold in THRESHOLDS:
    rows = jax.jit(jax.vmap(functools.partial(ternary_quantize, threshold=threshold)))(w)
    together = jitted(w, channel_axis=0, threshold=threshold)
    np.testing.assert_allclose(rows, together, rtol=1e-6)


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64])
def test_dtypes(dtype):
  with jax.enable_x64(True):
    w = jnp.asarray(weights(), dtype)
    for threshold in THRESHOLDS:
      q = jitted(w, channel_axis=-1, threshold=threshold)
      assert q.dtype == dtype
      limit = jax.eval_shape(functools.partial(ternary_threshold, threshold=threshold), w)
      assert limit.dtype == (jnp.float64 if dtype == jnp.float64 else jnp.float32)
      exact = jitted(w.astype(jnp.float64), channel_axis=-1, threshold=threshold)
      np.testing.assert_allclose(
        q.astype(jnp.float64), exact, rtol=float(jnp.finfo(dtype).eps) + 1e-6
      )


@pytest.mark.parametrize('scale', [2.0**-100, 2.0**100])
def test_scales_with_the_weights(scale):
  """Squares of such weights are beyond float32."""
  w = weights((50,)).astype(np.float32)
  for threshold in THRESHOLDS:
    found = jitted(np.float32(scale) * w, threshold=threshold)
    np.testing.assert_allclose(found / np.float32(scale), jitted(w, threshold=threshold), rtol=1e-6)


def test_what_is_not_allowed():
  with pytest.raises(ValueError, match="threshold='median'; allowed: mean, exact"):
    ternary_quantize(weights(), threshold='median')
  with pytest.raises(ValueError, match='w.dtype=int32; allowed: a floating'):
    ternary_quantize(np.ones(3, np.int32))
  with pytest.raises(ValueError, match='channel_axis=4; allowed.*rank 4'):
    ternary_quantize(weights(), channel_axis=4)
