"""`fake_quantize` against a plain NumPy quantizer and against its own definition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax.quant import (
  BITS,
  STEPS,
  fake_quantize,
  gaussian_quantizer,
  quantization_step,
)

KINDS = [
  (bits, levels)
  for bits in BITS
  for levels in ('auto', 'mid_tread', 'mid_rise')
  if (bits, levels) != (1, 'mid_tread')
]


OPTIONS = ('levels', 'step', 'channel_axis')
jitted_quantize = jax.jit(fake_quantize, static_argnames=OPTIONS)
jitted_step = jax.jit(quantization_step, static_argnames=OPTIONS)


def weights(shape=(3, 3, 8, 6), dtype=np.float32, seed=0):
  rng = np.random.default_rng(seed)
  w = rng.standard_t(5, size=shape) * rng.uniform(0.01, 3, size=shape[-1])
  return w.astype(dtype)


def is_mid_rise(bits, levels):
  return levels == 'mid_rise' or (levels == 'auto' and bits <= 2)


def numpy_quantize(w, step, bits, levels):
  """Nearest of the listed levels, weight by weight; ties as in the definition."""
  count = 2**bits if is_mid_rise(bits, levels) else 2**bits - 1
  grid = (np.arange(count) - (count - 1) / 2) * step
  return grid[np.argmin(np.abs(w[..., None] - grid), axis=-1)]


@pytest.mark.parametrize('bits, levels', KINDS)
@pytest.mark.parametrize('step', STEPS)
def test_is_the_nearest_level(bits, levels, step):
  w = weights()
  quantized = jitted_quantize(w, jnp.int32(bits), levels=levels, step=step)
  steps = jitted_step(w, jnp.int32(bits), levels=levels, step=step)
  assert steps.shape == (1, 1, 1, 6)
  for channel in range(6):
    expected = numpy_quantize(
      w[..., channel].astype(np.float64), np.float64(steps[0, 0, 0, channel]), bits, levels
    )
    np.testing.assert_allclose(quantized[..., channel], expected, rtol=1e-6, atol=1e-7)
    assert len(np.unique(quantized[..., channel])) <= 2**bits


@pytest.mark.parametrize('bits, levels', KINDS)
def test_gaussian_step_is_the_table_times_the_root_mean_square(bits, levels):
  w = weights() + 0.3
  steps = quantization_step(w, bits, levels=levels, step='gaussian')
  if bits == 1:
    expected = 2 * np.mean(np.abs(w), (0, 1, 2))
  else:
    kind = 'mid_rise' if is_mid_rise(bits, levels) else 'mid_tread'
    clip = gaussian_quantizer(bits, kind).clip
    half_range = (2**bits - (kind == 'mid_tread') - 1) / 2
    expected = clip / half_range * np.sqrt(np.mean(w**2, (0, 1, 2)))
  np.testing.assert_allclose(steps.ravel(), expected, rtol=1e-5)


def test_gaussian_distortion_is_that_of_the_table():
  w = np.random.default_rng(0).normal(size=(400_000, 1)).astype(np.float32)
  for bits in (1, 2, 3, 4):
    kind = 'mid_rise' if bits <= 2 else 'mid_tread'
    error = np.mean(np.square(fake_quantize(w, bits, step='gaussian') - w))
    np.testing.assert_allclose(error, gaussian_quantizer(bits, kind).distortion, rtol=0.02)


@pytest.mark.parametrize('levels', ['auto', 'mid_tread', 'mid_rise'])
@pytest.mark.parametrize('bits', [2, 3, 5, 8])
def test_mse_step_is_the_best_of_a_fine_search(bits, levels):
  w = weights((300, 3), np.float64)
  found = np.mean(np.square(np.asarray(fake_quantize(w, bits, levels=levels, step='mse')) - w), 0)
  largest = np.abs(w).max(0)
  half_range = (2**bits - (not is_mid_rise(bits, levels)) - 1) / 2
  best = np.full(3, np.inf)
  for share in np.linspace(0.02, 1.2, 600):
    for channel in range(3):
      step = share * largest[channel] / half_range
      q = numpy_quantize(w[:, channel], step, bits, levels)
      best[channel] = min(best[channel], np.mean((q - w[:, channel]) ** 2))
  assert np.all(found <= 1.005 * best)
  for other in ('gaussian', 'absmax'):
    error = np.mean(np.square(np.asarray(fake_quantize(w, bits, levels=levels, step=other)) - w), 0)
    assert np.all(found <= error * (1 + 1e-5))


@pytest.mark.parametrize('step', STEPS)
def test_one_bit_is_sign_times_mean_magnitude(step):
  w = weights()
  w[0, 0] = 0
  expected = np.where(w >= 0, 1, -1) * np.mean(np.abs(w), (0, 1, 2))
  np.testing.assert_allclose(fake_quantize(w, 1, step=step), expected, rtol=1e-6)


def test_golden_values():
  w = jnp.asarray([[-1.0], [-0.4], [0.0], [0.25], [1.0]])
  column = lambda *args, **kwargs: np.asarray(fake_quantize(w, *args, **kwargs))[:, 0]
  third = 1 / 3
  np.testing.assert_allclose(column(2, step='absmax'), [-1, -third, third, third, 1], rtol=1e-6)
  np.testing.assert_allclose(column(2, step='absmax', levels='mid_tread'), [-1, 0, 0, 0, 1])
  np.testing.assert_allclose(column(3, step='absmax'), [-1, -third, 0, third, 1], rtol=1e-6)
  np.testing.assert_allclose(column(1), np.array([-1, -1, 1, 1, 1]) * 0.53, rtol=1e-6)


def test_identity_at_32_bits():
  w = weights()
  for bits in (32, jnp.int32(32)):
    np.testing.assert_array_equal(fake_quantize(w, bits), w)
    np.testing.assert_array_equal(jax.grad(lambda w: fake_quantize(w, bits).sum())(w), 1)  # noqa: B023


@pytest.mark.parametrize('bits', [2, 4, 8])
@pytest.mark.parametrize('step', ['absmax', 'mse'])
def test_quantizing_twice_changes_nothing(bits, step):
  once = fake_quantize(weights(), bits, step=step)
  np.testing.assert_allclose(fake_quantize(once, bits, step=step), once, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('bits', BITS)
def test_odd_symmetry(bits):
  w = weights()
  np.testing.assert_array_equal(fake_quantize(-w, bits), -fake_quantize(w, bits))


@pytest.mark.parametrize('step', STEPS)
def test_error_falls_with_bits(step):
  w = weights((50, 4))
  errors = [
    np.mean(np.square(jitted_quantize(w, jnp.int32(bits), step=step, levels='mid_rise') - w))
    for bits in BITS
  ]
  assert all(a > b for a, b in zip(errors, errors[1:]))


@pytest.mark.parametrize('step', STEPS)
def test_traced_bits_equal_static_bits(step):
  w = weights()
  static = {bits: fake_quantize(w, bits, step=step) for bits in (*BITS, 32)}
  fn = jax.jit(functools.partial(fake_quantize, step=step))
  for bits, expected in static.items():
    np.testing.assert_allclose(fn(w, bits), expected, rtol=1e-6)
  assert fn._cache_size() == 1
  swept = jax.vmap(functools.partial(fake_quantize, step=step), (None, 0))(w, jnp.asarray(BITS))
  for bits, row in zip(BITS, swept, strict=True):
    np.testing.assert_allclose(row, static[bits], rtol=1e-6)


def test_traced_bits_that_are_not_allowed_give_nan():
  traced = jax.jit(fake_quantize, static_argnames='levels')
  for bits in (-1, 0, 9, 16, 31, 33):
    assert np.isnan(traced(weights(), bits)).all(), bits
  assert np.isnan(traced(weights(), 1, levels='mid_tread')).all()


def test_traced_32_bits_leave_every_number_as_it_is():
  w = jnp.asarray([[1.5, np.inf], [-np.inf, np.nan], [-0.0, 3e38]], jnp.float32)
  traced = jax.jit(fake_quantize)
  np.testing.assert_array_equal(traced(w, 32), w)
  grads = jax.grad(lambda w: traced(w, 32)[0].sum())(w)
  np.testing.assert_array_equal(grads, [[1, 1], [0, 0], [0, 0]])


@pytest.mark.parametrize('step', ['gaussian', 'mse', 'absmax'])
@pytest.mark.parametrize('dtype, large', [('float16', 6e4), ('bfloat16', 2e37), ('float32', 2e37)])
def test_levels_stay_within_the_dtype(dtype, large, step):
  w = jnp.asarray([large, -large, large, large / 2], dtype)[:, None]
  for bits in BITS:
    quantized = np.asarray(fake_quantize(w, bits, step=step), np.float64)
    assert np.isfinite(quantized).all(), bits
    assert (np.sign(quantized[:2, 0]) == [1, -1]).all()


def test_what_is_idempotent():
  w = weights()
  for step in ('mse', 'absmax'):
    for bits in BITS:
      once = fake_quantize(w, bits, step=step)
      np.testing.assert_allclose(fake_quantize(once, bits, step=step), once, rtol=1e-5, atol=1e-6)
  gaussian = functools.partial(fake_quantize, step='gaussian')
  once = gaussian(w, 1)
  np.testing.assert_allclose(gaussian(once, 1), once, rtol=1e-6)
  once = gaussian(w, 4)
  assert not np.allclose(gaussian(once, 4), once, rtol=1e-3)  # As its docstring says.


def test_options_that_are_not_allowed_are_refused():
  w = weights()
  for bits in (0, 9, -3, 2.5, 4.0, True, np.True_, jnp.asarray(9), '4'):
    with pytest.raises(ValueError, match='bits=.*allowed: an integer, 1 to 8, or 32'):
      fake_quantize(w, bits)
  for bits in (jnp.asarray([4]), jnp.float32(4), np.zeros((2, 2), np.int32)):
    with pytest.raises(ValueError, match=r'bits is \w+\[.*allowed: an integer'):
      fake_quantize(w, bits)
  with pytest.raises(ValueError, match='bits=1 with levels'):
    fake_quantize(w, 1, levels='mid_tread')
  with pytest.raises(ValueError, match="levels='odd'.*mid_rise"):
    fake_quantize(w, 2, levels='odd')
  with pytest.raises(ValueError, match="step='sigma'.*gaussian"):
    fake_quantize(w, 2, step='sigma')
  with pytest.raises(ValueError, match='channel_axis.*rank 4'):
    fake_quantize(w, 2, channel_axis=4)
  with pytest.raises(AssertionError):
    fake_quantize(np.ones((3, 3), np.int32), 2)


@pytest.mark.parametrize(
  'channel_axis, shape',
  [(None, (1, 1, 1, 1)), ((), (1, 1, 1, 1)), (0, (3, 1, 1, 1)), ((0, -1), (3, 1, 1, 6))],
)
def test_channel_axes(channel_axis, shape):
  w = weights()
  steps = quantization_step(w, 3, channel_axis=channel_axis)
  assert steps.shape == shape
  if shape == (3, 1, 1, 1):
    np.testing.assert_allclose(
      fake_quantize(w, 3, channel_axis=0),
      np.moveaxis(fake_quantize(np.moveaxis(w, 0, -1), 3), -1, 0),
      rtol=1e-6,
    )


@pytest.mark.parametrize('bits', [1, 2, 4, 8, 32])
@pytest.mark.parametrize('step', STEPS)
def test_zero_and_constant_channels_stay_finite(bits, step):
  w = np.stack(
    [np.zeros((3, 3)), np.full((3, 3), 0.7), np.full((3, 3), 1e-30), np.full((3, 3), 1e30)], -1
  ).astype(np.float32)
  for clip_gradient in (False, True):
    fn = functools.partial(fake_quantize, bits=bits, step=step, clip_gradient=clip_gradient)
    assert np.isfinite(fn(w)).all()
    np.testing.assert_array_equal(fn(w)[..., 0], 0)
    grad = jax.grad(lambda w: jnp.sum(fn(w) / jnp.max(jnp.abs(w), (0, 1), initial=1)))(w)  # noqa: B023
    assert np.isfinite(grad).all()


def test_gradient_is_straight_through():
  w = weights()
  ct = weights(seed=1)
  for bits in (1, 2, 4, 8):
    grad = jax.grad(lambda w: jnp.sum(ct * fake_quantize(w, bits)))(w)  # noqa: B023
    np.testing.assert_array_equal(grad, ct)
    tangent = jax.jvp(lambda w: fake_quantize(w, bits), (w,), (ct,))[1]  # noqa: B023
    np.testing.assert_array_equal(tangent, ct)


@pytest.mark.parametrize('bits, levels', KINDS)
def test_clip_mask_is_the_saturated_tail(bits, levels):
  w = weights()
  steps = np.asarray(quantization_step(w, bits, levels=levels))
  count = 2**bits if is_mid_rise(bits, levels) else 2**bits - 1
  grad = jax.grad(lambda w: fake_quantize(w, bits, levels=levels, clip_gradient=True).sum())(w)
  np.testing.assert_array_equal(grad, (np.abs(w) <= count / 2 * steps).astype(np.float32))
  if bits <= 4:
    assert 0 < np.mean(grad) < 1


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16, jnp.float64])
def test_dtypes(dtype):
  with jax.enable_x64(True):
    w = jnp.asarray(weights(), dtype)
    quantized = fake_quantize(w, 3)
    assert quantized.dtype == dtype
    exact = fake_quantize(w.astype(jnp.float64), 3)
    np.testing.assert_allclose(
      quantized.astype(jnp.float64), exact, rtol=float(jnp.finfo(dtype).eps) + 1e-7
    )


def test_spread_of_the_relative_error_falls_with_fan_in():
  """With a step per filter the error's mean does not depend on fan-in d; its std is c / sqrt(d).

  To first order the relative error is the mean of g(x) - D x^2 over the filter, g the squared error
  at x and D its mean: scaling the step with the filter's own root mean square gives the last term.
  """
  x = np.linspace(-10, 10, 400_001)
  density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi) * (x[1] - x[0])
  clip, distortion = gaussian_quantizer(2, 'mid_rise')
  g = (numpy_quantize(x, clip / 1.5, 2, 'mid_rise') - x) ** 2
  constant = np.sqrt(np.sum((g - distortion * x**2) ** 2 * density))
  rng = np.random.default_rng(0)
  for fan_in in (256, 2048):
    w = rng.normal(size=(fan_in, 4000)).astype(np.float32)
    error = np.sum(np.square(fake_quantize(w, 2, step='gaussian') - w), 0) / np.sum(np.square(w), 0)
    np.testing.assert_allclose(np.mean(error), distortion, rtol=0.01)
    # Four standard errors of a standard deviation over 4000 filters.
    np.testing.assert_allclose(np.std(error) * np.sqrt(fan_in), constant, rtol=4 / np.sqrt(8000))
