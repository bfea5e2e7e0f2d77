"""LSQ and EWGS against their papers' formulas, written out in NumPy and by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnopt_jax import quant
from cnnopt_jax.quant import BITS
from cnnopt_jax.quant.learned import (
  LEARNED_LEVELS,
  element_wise_gradient_scaling,
  initial_step,
  learned_quantize,
  level_range,
  step_gradient_scale,
)

fake_quantize = functools.partial(quant.fake_quantize, step='gaussian')
quantization_step = functools.partial(quant.quantization_step, step='gaussian')

# The paper's two grids, and those of `fake_quantize` by their definition: lowest and highest level.
RANGES = {
  'twos_complement': lambda b: (-(2 ** (b - 1)), 2 ** (b - 1) - 1),
  'unsigned': lambda b: (0, 2**b - 1),
  'mid_tread': lambda b: (-(2 ** (b - 1)) + 1, 2 ** (b - 1) - 1),
  'mid_rise': lambda b: (-(2**b - 1) / 2, (2**b - 1) / 2),
  'auto': lambda b: RANGES['mid_rise' if b <= 2 else 'mid_tread'](b),
}
GRIDS = [
  (bits, levels)
  for bits in BITS
  for levels in LEARNED_LEVELS
  if bits > 1 or levels not in ('twos_complement', 'mid_tread')
]

jitted = jax.jit(learned_quantize, static_argnames='levels')
jitted_start = jax.jit(initial_step, static_argnames=('channel_axis', 'levels'))


@functools.partial(jax.jit, static_argnames='levels')
def value_and_gradients(w, step, bits, ct, **options):
  """Quantized weights, and the gradients to weights and step for a cotangent."""
  q, vjp = jax.vjp(lambda w, step: learned_quantize(w, step, bits, **options), w, step)
  return q, *vjp(ct)


def weights(shape=(3, 3, 8, 6), dtype=np.float64, seed=0):
  return np.random.default_rng(seed).standard_t(5, size=shape).astype(dtype)


def numpy_lsq(w, s, low, high, ct):
  """Forward, gradient to w and plain gradient to each s: as recalled, equations 1 to 3 and 5."""
  x = np.asarray(w, np.float64) / s
  half = low % 1
  code = np.clip(np.round(x - half) + half, low, high)
  below, above = x <= low, x >= high
  inside = ~below & ~above
  slope = np.where(inside, code - x, 0) + low * below + high * above
  reduced = tuple(i for i, size in enumerate(s.shape) if size == 1)
  return code * s, ct * inside, np.sum(ct * slope, reduced, keepdims=True)


def test_ranges_are_the_papers():
  assert level_range(2) == (-2, 1)
  assert level_range(3) == (-4, 3)
  assert level_range(8) == (-128, 127)
  assert level_range(1, 'unsigned') == (0, 1)
  assert level_range(4, 'unsigned') == (0, 15)
  assert level_range(2, 'mid_tread') == (-1, 1)
  assert level_range(2, 'auto') == (-1.5, 1.5)
  for bits, levels in GRIDS:
    assert level_range(jnp.int32(bits), levels) == RANGES[levels](bits)


def test_by_hand():
  """Two bits, s = 1/2: levels -1, -1/2, 0, 1/2; three elements in the range's open inside."""
  w = jnp.asarray([-1.5, -1.0, -0.7, 0.2, 0.3, 0.5, 0.9])
  q, to_w, to_step = value_and_gradients(w, 0.5, 2, jnp.ones(7), gradient_scale=1)
  np.testing.assert_array_equal(q, [-1.0, -1.0, -0.5, 0.0, 0.5, 0.5, 0.5])
  np.testing.assert_array_equal(to_w, [0, 0, 1, 1, 1, 0, 0])
  # -2 twice below; -1 + 1.4, 0 - 0.4, 1 - 0.6 inside; 1 twice above.
  np.testing.assert_allclose(to_step, -2 - 2 + 0.4 - 0.4 + 0.4 + 1 + 1, rtol=1e-6)
  _, _, to_step = value_and_gradients(w, 0.5, 2, jnp.ones(7))
  np.testing.assert_allclose(to_step, -1.6 / np.sqrt(7 * 1), rtol=1e-6)


@pytest.mark.parametrize('step_shape', [(1, 1, 1, 1), (1, 1, 1, 6), (3, 1, 1, 6)])
@pytest.mark.parametrize('levels', LEARNED_LEVELS)
def test_is_the_papers_definition(levels, step_shape):
  with jax.enable_x64(True):
    w, ct = weights(), weights(seed=1)
    s = np.random.default_rng(2).uniform(0.1, 0.6, step_shape)

    before = value_and_gradients._cache_size()
    for bits in (bits for bits, kind in GRIDS if kind == levels):
      low, high = RANGES[levels](bits)
      q, to_w, to_s = value_and_gradients(w, s, bits, ct, levels=levels)
      expected_q, expected_w, expected_s = numpy_lsq(w, s, low, high, ct)
      np.testing.assert_allclose(q, expected_q, rtol=1e-14)
      np.testing.assert_array_equal(to_w, expected_w)
      g = 1 / np.sqrt(w.size / s.size * high)
      np.testing.assert_allclose(to_s, g * expected_s, rtol=1e-9, atol=1e-9)
    assert value_and_gradients._cache_size() == before + 1


@pytest.mark.parametrize('levels', ['auto', 'mid_tread', 'mid_rise'])
def test_with_the_step_of_fake_quantize_it_is_fake_quantize(levels):
  w = weights(dtype=np.float32)
  w[..., 0] = 0
  of_step = jax.jit(quantization_step, static_argnames='levels')
  of_weights = jax.jit(fake_quantize, static_argnames='levels')
  for bits in (1, 2, 3, 8):
    if (bits, levels) != (1, 'mid_tread'):
      step = of_step(w, bits, levels=levels)
      np.testing.assert_array_equal(
        jitted(w, step, bits, levels=levels), of_weights(w, bits, levels=levels)
      )


def test_start_and_gradient_scale_are_the_papers():
  w = weights(dtype=np.float32)
  for bits in (2, 4, 8):
    half = 2 ** (bits - 1) - 1
    np.testing.assert_allclose(
      jitted_start(w, bits), [[[[2 * np.mean(np.abs(w)) / np.sqrt(half)]]]], rtol=1e-6
    )
    np.testing.assert_allclose(
      jitted_start(w, bits, channel_axis=-1).ravel(),
      2 * np.mean(np.abs(w), (0, 1, 2)) / np.sqrt(half),
      rtol=1e-6,
    )
    np.testing.assert_allclose(
      jitted_start(w, bits, levels='unsigned').ravel(),
      2 * np.mean(np.abs(w)) / np.sqrt(2**bits - 1),
      rtol=1e-6,
    )
    np.testing.assert_allclose(
      step_gradient_scale(w.size, bits), 1 / np.sqrt(w.size * half), rtol=1e-6
    )
  np.testing.assert_allclose(jitted_start(jnp.asarray([1.0, -3.0]), 3), [4 / np.sqrt(3)], rtol=1e-6)


def test_vmap_over_bits_and_steps():
  w, ct = weights(dtype=np.float32), weights(dtype=np.float32, seed=1)
  bits = (2, 3, 5, 8, 32)
  start = jax.vmap(jitted_start, (None, 0))(w, jnp.asarray(bits))
  assert start.shape == (5, 1, 1, 1, 1) and np.isfinite(start).all()
  swept = jax.vmap(value_and_gradients, (None, 0, 0, None))(w, start, jnp.asarray(bits), ct)
  for i, b in enumerate(bits):
    for many, one in zip(swept, value_and_gradients(w, start[i], b, ct)):
      np.testing.assert_allclose(many[i], one, rtol=1e-4, atol=1e-5)
  q, to_w, to_step = (many[-1] for many in swept)
  np.testing.assert_array_equal(q, w)
  np.testing.assert_array_equal(to_w, ct)
  np.testing.assert_array_equal(to_step, 0)
  np.testing.assert_array_equal(learned_quantize(w, start[0], 32), w)


def test_tangents_are_those_of_the_gradient():
  w, step, tangent = weights(dtype=np.float32), np.float32(0.4), np.float32(0.25)
  fn = jax.jit(functools.partial(learned_quantize, w, bits=3))
  _, forward = jax.jvp(fn, (step,), (tangent,))
  np.testing.assert_allclose(
    np.sum(forward), tangent * jax.grad(lambda s: jnp.sum(fn(s)))(step), rtol=1e-4
  )


@pytest.mark.parametrize('levels', LEARNED_LEVELS)
def test_a_step_of_zero_gives_zeros_and_can_grow_again(levels):
  w = jnp.asarray([-2.0, 0.0, 0.5, 3.0])
  low, high = RANGES[levels](3)
  # A step for each weight tells their gradients apart.
  q, to_w, to_step = value_and_gradients(
    w, jnp.zeros(4), 3, jnp.ones(4), levels=levels, gradient_scale=1
  )
  np.testing.assert_array_equal(q, 0)
  np.testing.assert_array_equal(to_w, [0, float(low < 0), 0, 0])
  np.testing.assert_array_equal(to_step, [low, 0.5 if levels == 'mid_rise' else 0, high, high])


def test_at_32_bits_the_step_does_not_matter():
  w = jnp.asarray([-2.0, 0.0, 3.0])
  for step in (0.0, -1.0, 1e-30, np.nan):
    q, to_w, to_step = value_and_gradients(w, step, 32, jnp.ones(3))
    np.testing.assert_array_equal(q, w)
    np.testing.assert_array_equal(to_w, 1)
    assert to_step == 0


def test_extreme_weights_stay_finite():
  w = jnp.asarray([0.0, 1e-30, -1e30, np.inf, -np.inf], jnp.float32)
  for step in (1e-20, 1.0, 1e20):
    for found in value_and_gradients(w, step, 4, jnp.ones(5)):
      assert np.isfinite(found).all()


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64])
def test_dtypes(dtype):
  with jax.enable_x64(True):
    w, ct = (jnp.asarray(weights(seed=seed), dtype) for seed in (0, 1))
    step = jnp.full((1, 1, 1, 6), 0.375, dtype)  # Exact in every type.
    q, to_w, to_s = value_and_gradients(w, step, 4, ct)
    assert (q.dtype, to_w.dtype, to_s.dtype) == (dtype,) * 3
    assert jax.eval_shape(initial_step, w, 4).dtype == (
      jnp.float64 if dtype == jnp.float64 else jnp.float32
    )
    exact = numpy_lsq(
      np.asarray(w, np.float64), np.full((1, 1, 1, 6), 0.375), -8, 7, np.asarray(ct, np.float64)
    )
    np.testing.assert_array_equal(q.astype(jnp.float64), exact[0])
    np.testing.assert_array_equal(to_w.astype(jnp.float64), exact[1])
    # Sums are taken in float32 at least, so what remains is the rounding of the result.
    g = 1 / np.sqrt(72 * 7)
    np.testing.assert_allclose(
      to_s.astype(jnp.float64), g * exact[2], rtol=float(jnp.finfo(dtype).eps) + 1e-4
    )


def test_what_is_not_allowed():
  w = weights(dtype=np.float32)
  for bits in (0, 9, 16, 2.5, True):
    with pytest.raises(ValueError, match='bits=.*allowed: an integer, 1 to 8, or 32'):
      learned_quantize(w, 1.0, bits)
  for levels in ('twos_complement', 'mid_tread'):
    with pytest.raises(ValueError, match=f"bits=1 with levels='{levels}'.*allowed: 2 to 8"):
      learned_quantize(w, 1.0, 1, levels=levels)
  with pytest.raises(ValueError, match="levels='even'.*twos_complement, unsigned, auto"):
    initial_step(w, 2, levels='even')
  with pytest.raises(ValueError, match=r'step.shape=\(8,\); allowed.*\(3, 3, 8, 6\)'):
    learned_quantize(w, np.ones(8, np.float32), 2)
  with pytest.raises(ValueError, match='w.dtype=int32; allowed: a floating'):
    learned_quantize(np.ones(3, np.int32), 1.0, 2)
  with pytest.raises(ValueError, match='step.dtype=int32; allowed: a floating'):
    learned_quantize(w, np.int32(1), 2)
  with pytest.raises(ValueError, match=r'bits.shape=\(2,\); allowed: \(\)'):
    learned_quantize(w, 1.0, jnp.asarray([2, 3]))
  for bits in (-1, 0, 1, 9, 31, 2.5, np.nan):
    assert np.isnan(jitted(w, 1.0, jnp.asarray(bits))).all(), bits


def test_element_wise_gradient_scaling_by_hand():
  x, rounded = jnp.asarray([0.4, 0.4, 0.6, 0.6, 0.5]), jnp.asarray([0.0, 0.0, 1.0, 1.0, 0.0])
  g = jnp.asarray([2.0, -2.0, 2.0, -2.0, 0.0])

  @jax.jit
  def value_and_gradients(x, rounded):
    y, vjp = jax.vjp(lambda x, q: element_wise_gradient_scaling(x, q, 0.5), x, rounded)
    return y, *vjp(g)

  y, to_x, to_rounded = value_and_gradients(x, rounded)
  np.testing.assert_array_equal(y, rounded)
  # 2 (1 + 0.5 * 0.4), -2 (1 - 0.5 * 0.4), 2 (1 - 0.5 * 0.4), -2 (1 + 0.5 * 0.4)
  np.testing.assert_allclose(to_x, [2.4, -1.6, 1.6, -2.4, 0], rtol=1e-6)
  np.testing.assert_array_equal(to_rounded, 0)


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64])
def test_element_wise_gradient_scaling_is_the_papers(dtype):
  with jax.enable_x64(True):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.uniform(size=(4, 50)), dtype)
    g = jnp.asarray(rng.normal(size=(4, 50)), dtype)
    rounded = jnp.round(3 * x) / 3  # Two bits of [0, 1].

    @jax.jit
    def gradient(delta):
      return jax.vjp(lambda x: element_wise_gradient_scaling(x, rounded, delta), x)[1](g)[0]

    deltas = jnp.asarray([0.0, 1e-3, 0.2])
    found = jax.vmap(gradient)(deltas)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found[0], g)  # Delta 0 is straight through.
    error = np.asarray(x, np.float64) - np.asarray(rounded, np.float64)
    exact_g = np.asarray(g, np.float64)
    for delta, row in zip(deltas, found):
      expected = exact_g * (1 + float(delta) * np.sign(exact_g) * error)
      np.testing.assert_allclose(
        row.astype(jnp.float64), expected, rtol=float(jnp.finfo(dtype).eps) + 1e-15
      )
    per_row = gradient(deltas[jnp.asarray([0, 0, 1, 2])][:, None])
    by_row = np.stack([found[0, 0], found[0, 1], found[1, 2], found[2, 3]])
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(per_row.astype(float), by_row.astype(float), rtol=eps)


def test_element_wise_gradient_scaling_has_no_gradient_but_that_of_x():
  x = jnp.asarray([0.2, 0.9])
  to_q, to_delta = jax.grad(
    lambda q, d: jnp.sum(element_wise_gradient_scaling(x, q, d) ** 2), (0, 1)
  )(jnp.round(x), jnp.float32(0.1))
  np.testing.assert_array_equal(to_q, 0)
  assert to_delta == 0
  with pytest.raises(ValueError, match=r'quantized=float32\[3\]; allowed: as x, float32\[2\]'):
    element_wise_gradient_scaling(x, jnp.ones(3), 0.1)
  with pytest.raises(ValueError, match=r'delta.shape=\(3,\)'):
    element_wise_gradient_scaling(x, x, jnp.ones(3))


def test_learned_steps_fit_better_than_gaussian_ones():
  """Regression on 3-bit weights that are far from Gaussian, for six random problems.

  Training starts from the float solution, as the paper's does, and all rules share start, levels,
  optimizer and number of updates. The losses are means over the last updates, since few-bit weights
  keep moving between levels.
  """
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(6, 128, 32)), jnp.float32)
  solution = rng.choice([-1, 1], (6, 32, 1)) * rng.uniform(0.5, 1, (6, 32, 1))
  solution = jnp.asarray(solution, jnp.float32)
  options = {'bits': 3, 'levels': 'mid_tread'}
  updates = 400
  optimizer = optax.adam(optax.cosine_decay_schedule(0.01, updates))

  def final_loss(quantize, x, w):
    def loss(params):
      return jnp.mean((x @ (quantize(params['w'], params['step']) - w)) ** 2)

    def update(carry, _):
      params, state = carry
      value, gradient = jax.value_and_grad(loss)(params)
      change, state = optimizer.update(gradient, state)
      return (optax.apply_updates(params, change), state), value

    params = {'w': w, 'step': quantization_step(w, **options)}
    _, losses = jax.lax.scan(update, (params, optimizer.init(params)), length=updates)
    return jnp.mean(losses[-50:])

  rules = {
    'learned': lambda w, step: learned_quantize(w, step, **options),
    'fixed': lambda w, step: learned_quantize(w, jax.lax.stop_gradient(step), **options),
    'gaussian': lambda w, step: fake_quantize(w, **options),
  }
  losses = {
    name: np.asarray(jax.jit(jax.vmap(functools.partial(final_loss, rule)))(x, solution))
    for name, rule in rules.items()
  }
  assert np.all(losses['learned'] < 0.6 * losses['fixed']), losses
  assert np.all(losses['learned'] < 0.6 * losses['gaussian']), losses
