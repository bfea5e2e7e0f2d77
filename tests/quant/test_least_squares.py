"""`least_squares_step` against an enumeration of all assignments of codes, in NumPy and float64."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax.quant import gaussian_quantizer, least_squares
from cnnopt_jax.quant.least_squares import least_squares_step

KINDS = [(bits, mid_rise) for bits in range(2, 9) for mid_rise in (False, True)]

jitted = jax.jit(least_squares_step, static_argnames='axes')


def half_range(bits, mid_rise):
  return (2**bits - 2 + mid_rise) / 2


def squared_errors(x, steps, n, mid_rise):
  """Of `x` [size] rounded to the nearest of all levels, at each of the steps, [steps]."""
  levels = np.arange(-n, n + 1)
  x, steps = np.asarray(x, np.float64), np.asarray(steps, np.float64)[:, None]
  # The levels below and above, of those that there are.
  index = np.clip(np.floor(x / steps + n), 0, len(levels) - 1).astype(int)
  above = np.minimum(index + 1, len(levels) - 1)
  residuals = [np.abs(x - steps * levels[i]) for i in (index, above)]
  return np.sum(np.minimum(*residuals) ** 2, 1)


def least_error(x, n, mid_rise):
  """The least squared error of `x` [size] over all steps.

  As the step falls, the codes of the magnitudes rise one by one. With codes c the best step is
  <x, c> / <c, c>, and leaves |x|^2 - <x, c>^2 / <c, c>.
  """
  x = np.abs(np.asarray(x, np.float64))
  after = np.arange(0.5 if mid_rise else 0, n) + 1
  before = after - 1
  threshold = (before + after) / 2
  step = np.outer(x, 1 / threshold).ravel()
  order = np.argsort(-step)
  rise_of_product = np.repeat(x, len(after))[order]
  rise_of_norm = np.tile(after**2 - before**2, len(x))[order]
  first = before[0]
  product = np.cumsum(np.concatenate([[first * np.sum(x)], rise_of_product]))
  norm = np.cumsum(np.concatenate([[first**2 * len(x)], rise_of_norm]))
  best = np.argmax(np.where(norm > 0, product**2 / np.where(norm > 0, norm, 1), -1))
  if norm[best] == 0:
    return 0.0
  # Rounded to these very codes or to better ones; the difference above would cancel near zero.
  return squared_errors(x, [product[best] / norm[best]], n, mid_rise)[0]


def channels(size, seed=0, dtype=np.float32):
  """Channels of many distributions, [size, channels], each with max|x| = 1."""
  rng = np.random.default_rng(seed)
  sign = rng.choice([-1, 1], size)
  x = [
    rng.normal(size=size),
    rng.normal(size=size) + 0.5,
    rng.laplace(size=size),
    rng.uniform(-1, 1, size),
    rng.standard_t(2, size),
    rng.normal(size=size) * (rng.uniform(size=size) < 0.1),
    sign * (1 + 0.05 * rng.normal(size=size)),
    sign * np.where(rng.uniform(size=size) < 0.5, 1, 0.4),
    np.full(size, 0.7),
    1 + 1e-4 * rng.uniform(size=size),
    np.round(20 * rng.normal(size=size)),
    np.clip(np.round(40 * rng.normal(size=size)), -127, 127),
    np.append(1000.0, rng.normal(size=size - 1)),
    np.append(20.0, rng.normal(size=size - 1)),
  ]
  x = np.stack(x, 1)
  x[0] = np.where(np.any(x, 0), x[0], 1)
  return (x / np.abs(x).max(0)).astype(dtype)


def rule_steps(x, bits, mid_rise):
  """The steps of the 'absmax' and the 'gaussian' rule, each [1, channels]."""
  n = half_range(bits, mid_rise)
  clip = gaussian_quantizer(bits, 'mid_rise' if mid_rise else 'mid_tread').clip
  rms = np.sqrt(np.mean(np.square(x, dtype=np.float64), 0, keepdims=True))
  return np.full_like(rms, 1 / n).astype(x.dtype), (clip / n * rms).astype(x.dtype)


def check(x, steps, bits, mid_rise):
  """Compares `steps` [channels] for `x` [size, channels] with the enumeration."""
  n = half_range(bits, mid_rise)
  steps = np.asarray(steps)
  assert np.all(np.isfinite(steps)) and np.all(steps > 0)
  for channel, step in zip(x.T, steps, strict=True):
    error = squared_errors(channel, [step], n, mid_rise)[0]
    rounding = (12 * np.finfo(x.dtype).eps) ** 2 * np.sum(np.square(channel, dtype=np.float64))
    assert error <= 1.001 * least_error(channel, n, mid_rise) + rounding


def test_the_enumeration_finds_what_a_fine_grid_of_steps_finds():
  for (bits, mid_rise), size in itertools.product([(2, True), (3, False), (3, True)], (2, 3, 20)):
    n = half_range(bits, mid_rise)
    for channel in channels(size).T:
      on_grid = squared_errors(channel, np.linspace(0.02, 3, 20_000) / n, n, mid_rise).min()
      least = least_error(channel, n, mid_rise)
      assert least <= on_grid * (1 + 1e-9) + 1e-12
      assert on_grid <= least * 1.01 + 1e-6 * size


@pytest.mark.parametrize('size, draws', [(1, 2), (2, 9), (3, 9), (9, 9), (40, 4), (300, 2)])
def test_error_is_the_least_there_is(size, draws):
  x = np.concatenate([channels(size, seed) for seed in range(draws)], 1)
  for bits, mid_rise in KINDS:
    _, gaussian = rule_steps(x, bits, mid_rise)
    steps = jitted(x, half_range(bits, mid_rise), mid_rise, axes=(0,), start=gaussian)
    assert steps.shape == (1, x.shape[1])
    check(x, steps[0], bits, mid_rise)


@pytest.mark.parametrize(
  'size, every, kinds',
  [(1000, 1, [(2, True), (4, False), (6, True), (8, True)]), (5000, 2, [(3, False), (8, False)])],
)
def test_error_of_large_channels_is_the_least_there_is(size, every, kinds):
  x = channels(size)[:, ::every]
  for bits, mid_rise in kinds:
    _, gaussian = rule_steps(x, bits, mid_rise)
    steps = jitted(x, half_range(bits, mid_rise), mid_rise, axes=(0,), start=gaussian)
    check(x, steps[0], bits, mid_rise)


def test_error_is_at_most_that_of_the_other_rules():
  x = np.concatenate([channels(40, seed) for seed in range(4)], 1)
  for bits, mid_rise in KINDS:
    n = half_range(bits, mid_rise)
    absmax, gaussian = rule_steps(x, bits, mid_rise)
    steps = jitted(x, n, mid_rise, axes=(0,), start=gaussian)
    for channel, step, *others in zip(x.T, steps[0], absmax[0], gaussian[0]):
      error, *theirs = squared_errors(channel, [step, *others], n, mid_rise)
      assert error <= min(theirs) * (1 + 1e-5) + 1e-12 * np.sum(channel**2)


def test_holds_without_a_start():
  x = channels(40)
  for bits, mid_rise in [(2, False), (2, True), (5, False), (8, True)]:
    check(x, jitted(x, half_range(bits, mid_rise), mid_rise, axes=(0,))[0], bits, mid_rise)


@pytest.mark.parametrize('size', [2, 30])
def test_float64(size):
  with jax.enable_x64(True):
    x = np.concatenate([channels(size, seed, np.float64) for seed in range(5)], 1)
    for bits, mid_rise in [(2, True), (3, False), (8, False), (8, True)]:
      steps = jitted(x, half_range(bits, mid_rise), mid_rise, axes=(0,))
      assert steps.dtype == np.float64
      check(x, steps[0], bits, mid_rise)


def test_one_bit_is_twice_the_mean_magnitude():
  x = channels(40)
  steps = jitted(x, 0.5, True, axes=(0,))
  np.testing.assert_allclose(steps, 2 * np.mean(np.abs(x), 0, keepdims=True), rtol=1e-6)


def test_one_weight_is_exact():
  x = np.array([[1, -1, 1]], np.float32)
  for bits, mid_rise in KINDS:
    n = half_range(bits, mid_rise)
    np.testing.assert_allclose(n * jitted(x, n, mid_rise, axes=(0,)), 1, rtol=3e-7)


def test_weights_on_a_grid_are_exact():
  rng = np.random.default_rng(0)
  for bits, mid_rise in KINDS:
    n = half_range(bits, mid_rise)
    x = rng.choice(np.arange(-n, n + 1), (30, 5))
    x = (x / np.abs(x).max(0)).astype(np.float32)
    for channel, step in zip(x.T, jitted(x, n, mid_rise, axes=(0,))[0]):
      assert squared_errors(channel, [step], n, mid_rise)[0] < 1e-12 * np.sum(channel**2)


def test_zeros_and_nan():
  x = np.zeros((5, 2), np.float32)
  np.testing.assert_allclose(jitted(x, 7.0, False, axes=(0,)), np.full((1, 2), 1 / 7))
  assert np.isnan(jitted(channels(5), np.nan, False, axes=(0,))).all()
  assert np.isfinite(jitted(channels(5), 7.0, False, axes=(0,), start=np.zeros((1, 14)))).all()
  assert np.isfinite(jitted(np.full((2, 3), np.nan, np.float32), 7.0, True, axes=(0,))).all()
  assert jitted(np.zeros((3, 0), np.float32), 7.0, False, axes=(0,)).shape == (1, 0)
  assert jitted(np.zeros((0, 3), np.float32), 7.0, False, axes=(0,)).shape == (1, 3)


@pytest.mark.parametrize('axes', [(), (1,), (0, 2), (-1, 0), (0, 1, 2)])
def test_axes(axes):
  x = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
  x /= np.abs(x).max(axes, keepdims=True)
  steps = jitted(x, half_range(4, False), False, axes=axes)
  inside = [axis % 3 for axis in axes]
  assert steps.shape == tuple(1 if axis in inside else x.shape[axis] for axis in range(3))
  outside = [axis for axis in range(3) if axis not in inside]
  flat = x.transpose(inside + outside).reshape(-1, steps.size)
  check(flat, steps.ravel(), 4, False)


def test_more_channels_than_are_searched_together():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(9, 600)).astype(np.float32)
  x /= np.abs(x).max(0)
  _, gaussian = rule_steps(x, 4, False)
  check(x, jitted(x, half_range(4, False), False, axes=(0,), start=gaussian)[0], 4, False)


def test_vmap_over_bits_and_over_leading_axes():
  x = np.stack([channels(30, seed) for seed in range(3)])
  n = jnp.asarray([half_range(*kind) for kind in KINDS], jnp.float32)
  mid_rise = jnp.asarray([kind[1] for kind in KINDS])
  one = functools.partial(least_squares_step, axes=(0,))
  over_weights = jax.vmap(one, (0, None, None))
  steps = jax.jit(jax.vmap(over_weights, (None, 0, 0)))(x, n, mid_rise)
  assert steps.shape == (len(KINDS), 3, 1, x.shape[-1])
  for (bits, rise), of_kind in zip(KINDS, steps, strict=True):
    for weights, found in zip(x, of_kind, strict=True):
      check(weights, found[0], bits, rise)


def test_both_ways_to_sum_agree():
  for size, count in ((7, 3), (300, 20), (64, 300)):
    x = np.abs(np.random.default_rng(0).uniform(size=(size, count))).astype(np.float32)
    point = np.random.default_rng(1).uniform(2, 9, size=(8, count)).astype(np.float32)
    for n, mid_rise in ((7.0, False), (3.5, True)):
      by_row = jax.jit(least_squares._errors_by_row)(x, point, n, mid_rise)
      at_once = jax.jit(least_squares._errors_at_once)(x, point, n, mid_rise)
      np.testing.assert_allclose(by_row, at_once, rtol=1e-4)
      for worker, channel in itertools.product(range(8), range(3)):
        expected = squared_errors(x[:, channel], [1 / point[worker, channel]], n, mid_rise)
        np.testing.assert_allclose(by_row[worker, channel], expected[0], rtol=1e-4)


def test_lowers_for_other_platforms():
  x = jax.ShapeDtypeStruct((40, 3), jnp.float32)
  for platform in ('cuda', 'tpu'):
    jitted.trace(x, 7.0, False, axes=(0,)).lower(lowering_platforms=(platform,))


def test_has_no_gradient():
  gradient = jax.grad(lambda x: jnp.sum(least_squares_step(x, 7.0, False, (0,), x[:1])))
  np.testing.assert_array_equal(jax.jit(gradient)(channels(9)), 0)


def test_memory_is_a_fraction_of_the_weights():
  x = jax.ShapeDtypeStruct((4096, 4096), jnp.float32)
  start = jax.ShapeDtypeStruct((1, 4096), jnp.float32)
  program = jitted.lower(x, 127.0, False, axes=(0,), start=start).compile()
  assert program.memory_analysis().temp_size_in_bytes < 64 * 2**20
