"""Activations in few bits against their papers' formulas, written out in NumPy and by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax.quant import BITS
from cnnopt_jax.quant.activations import learned_quantize_activations, pact
from cnnopt_jax.quant.learned import initial_step, learned_quantize


@functools.partial(jax.jit, static_argnames=('fn', 'batch_axes', 'levels'))
def value_and_gradients(fn, x, parameter, bits, ct, **options):
  """Quantized activations, and the gradients to them and to step or alpha for a cotangent."""
  q, vjp = jax.vjp(lambda x, parameter: fn(x, parameter, bits, **options), x, parameter)
  return q, *vjp(ct)


def activations(shape=(4, 5, 5, 6), seed=0):
  return np.random.default_rng(seed).normal(size=shape)


def numpy_pact(x, alpha, bits, ct):
  """Forward and gradients of the paper's equations 1 to 3."""
  steps = 2**bits - 1
  y = 0.5 * (np.abs(x) - np.abs(x - alpha) + alpha)
  clipped = x >= alpha
  reduced = tuple(i for i, size in enumerate(alpha.shape) if size == 1)
  to_alpha = np.sum(ct * clipped, reduced, keepdims=True)
  return np.round(y * steps / alpha) * alpha / steps, ct * ((x >= 0) & ~clipped), to_alpha


def test_learned_steps_by_hand():
  """Two bits, s = 1/2: levels 0, 1/2, 1, 3/2, and negative activations become zero."""
  x = jnp.asarray([[-3.0, 0.0, 0.2, 0.7, 1.4], [1.6, 2.0, -0.1, 0.9, 1.5]])
  expected = [[0, 0, 0, 0.5, 1.5], [1.5, 1.5, 0, 1, 1.5]]
  found = value_and_gradients(learned_quantize_activations, x, 0.5, 2, jnp.ones((2, 5)))
  q, to_x, to_step = found
  np.testing.assert_array_equal(q, expected)
  # On the outermost levels themselves, x = 0 and x = 3 s, the gradient ends (strict inequalities).
  np.testing.assert_array_equal(to_x, [[0, 0, 1, 1, 1], [0, 0, 0, 1, 0]])
  # Inside: 0 - 0.4, 1 - 1.4, 3 - 2.8, 2 - 1.8; Q_P = 3 three times. Five features an example.
  np.testing.assert_allclose(to_step, (-0.4 - 0.4 + 0.2 + 0.2 + 9) / np.sqrt(5 * 3), rtol=1e-6)


def test_learned_steps_are_those_of_weights_but_for_levels_and_count():
  x, ones = activations().astype(np.float32), np.ones((4, 5, 5, 6), np.float32)
  for step_shape, batch_axes, features in [
    ((), 0, 150),
    ((6,), 0, 25),
    ((), (0, -3), 30),
    ((4, 1, 1, 1), (), 150),
  ]:
    step = np.full(step_shape, 0.3, np.float32)
    found = value_and_gradients(
      learned_quantize_activations, x, step, 3, ones, batch_axes=batch_axes
    )
    options = {'levels': 'unsigned', 'gradient_scale': 1 / np.sqrt(features * 7)}
    weights = value_and_gradients(learned_quantize, x, step, 3, ones, **options)
    for ours, theirs in zip(found, weights):
      np.testing.assert_allclose(ours, theirs, rtol=1e-5)
  signed = learned_quantize_activations(x, 0.3, 3, levels='twos_complement')
  np.testing.assert_array_equal(signed, learned_quantize(x, 0.3, 3))


def test_learned_steps_over_bits_and_examples():
  x = np.maximum(activations(), 0).astype(np.float32)
  bits = jnp.asarray([*BITS, 32])
  start = jax.jit(jax.vmap(lambda b: initial_step(x, b, levels='unsigned')))(bits)
  rows = jax.jit(jax.vmap(learned_quantize_activations, (None, 0, 0)))(x, start, bits)
  for row, b in zip(rows, (*BITS, 32), strict=True):
    assert row.min() >= 0 and len(np.unique(row)) <= 2**b
  np.testing.assert_array_equal(rows[-1], x)
  single = functools.partial(learned_quantize_activations, step=0.3, bits=3, batch_axes=())
  together = jax.jit(learned_quantize_activations)(x, 0.3, 3)
  np.testing.assert_array_equal(jax.jit(jax.vmap(single))(x), together)


def test_pact_by_hand():
  """Two bits, alpha = 3: levels 0, 1, 2, 3."""
  x = jnp.asarray([-1.0, 0.0, 0.4, 0.6, 1.7, 2.4, 2.9, 3.0, 8.0])
  q, to_x, to_alpha = value_and_gradients(pact, x, 3.0, 2, jnp.arange(1.0, 10))
  np.testing.assert_array_equal(q, [0, 0, 0, 1, 2, 2, 3, 3, 3])
  np.testing.assert_array_equal(to_x, [0, 2, 3, 4, 5, 6, 7, 0, 0])
  assert to_alpha == 8 + 9
  quantize = jax.jit(pact)
  np.testing.assert_array_equal(quantize(x, 1.0, 1), [0, 0, 0, 1, 1, 1, 1, 1, 1])
  np.testing.assert_array_equal(quantize(x, 2.5, 32), np.clip(x, 0, 2.5))
  np.testing.assert_array_equal(quantize(x, 0.0, 4), 0)


@pytest.mark.parametrize('alpha_shape', [(), (6,), (1, 1, 1, 1)])
def test_pact_is_the_papers_definition(alpha_shape):
  with jax.enable_x64(True):
    x, ct = activations(), activations(seed=1)
    alpha = np.random.default_rng(2).uniform(0.5, 1.5, alpha_shape)

    before = value_and_gradients._cache_size()
    full = np.asarray(alpha).reshape((1,) * (4 - len(alpha_shape)) + alpha_shape)
    for bits in BITS:
      q, to_x, to_alpha = value_and_gradients(pact, x, alpha, bits, ct)
      expected_q, expected_x, expected_alpha = numpy_pact(x, full, bits, ct)
      np.testing.assert_allclose(q, expected_q, rtol=1e-12, atol=1e-15)
      np.testing.assert_array_equal(to_x, expected_x)
      np.testing.assert_allclose(to_alpha.ravel(), expected_alpha.ravel(), rtol=1e-9)
    assert value_and_gradients._cache_size() == before + 1


def test_pact_over_bits():
  x, ct = (activations(seed=seed).astype(np.float32) for seed in (0, 1))
  bits = (1, 2, 4, 8, 32)
  fn = functools.partial(value_and_gradients, pact)
  swept = jax.vmap(fn, (None, None, 0, None))(x, 1.3, jnp.asarray(bits), ct)
  for i, b in enumerate(bits):
    for many, one in zip(swept, fn(x, 1.3, b, ct)):
      np.testing.assert_allclose(many[i], one, rtol=1e-5)


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64])
def test_dtypes(dtype):
  with jax.enable_x64(True):
    x, ct = (jnp.asarray(activations(seed=seed), dtype) for seed in (0, 1))
    for fn, parameter in ((pact, 1.25), (learned_quantize_activations, 0.375)):
      found = value_and_gradients(fn, x, jnp.asarray(parameter, dtype), 3, ct)
      assert {array.dtype for array in found} == {jnp.dtype(dtype)}
      exact = jax.jit(fn)(x.astype(jnp.float64), jnp.float64(parameter), 3)
      eps = float(jnp.finfo(dtype).eps)
      np.testing.assert_allclose(found[0].astype(jnp.float64), exact, rtol=eps)


def test_infinite_activations_are_clipped():
  x = jnp.asarray([-np.inf, 0.3, np.inf], jnp.float32)
  for fn, parameter in ((pact, 1.5), (learned_quantize_activations, 0.1)):
    q, *gradients = value_and_gradients(fn, x, parameter, 4, jnp.ones(3))
    np.testing.assert_allclose(q, [0, 0.3, 1.5], rtol=1e-6)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_what_is_not_allowed():
  x = activations().astype(np.float32)
  for bits in (0, 9, 2.5, True):
    with pytest.raises(ValueError, match='bits=.*allowed: an integer, 1 to 8, or 32'):
      pact(x, 1.0, bits)
  with pytest.raises(ValueError, match=r'alpha.shape=\(5,\); allowed'):
    pact(x, np.ones(5, np.float32), 2)
  with pytest.raises(ValueError, match='x.dtype=int32; allowed'):
    pact(np.ones(5, np.int32), 1.0, 2)
  with pytest.raises(ValueError, match=r'batch_axes=\(4,\); allowed.*rank 4'):
    learned_quantize_activations(x, 1.0, 2, batch_axes=4)
  with pytest.raises(ValueError, match=r'step.shape=\(4, 1, 1, 1\); allowed: length 1 along'):
    learned_quantize_activations(x, np.ones((4, 1, 1, 1), np.float32), 2)
  with pytest.raises(ValueError, match="levels='even'"):
    learned_quantize_activations(x, 1.0, 2, levels='even')
  for bits in (-1, 0, 9, 31, 2.5, np.nan):
    assert np.isnan(jax.jit(pact)(x, 1.0, jnp.asarray(bits))).all(), bits
