"""Winograd's products against lax's convolution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cnnopt_jax.kernels import winograd


@pytest.fixture(autouse=True)
def float64():
  with jax.enable_x64(True):
    yield


def random(shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def direct(padded, kernel):
  return lax.conv_general_dilated(
    padded, kernel, (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


def by_products(padded, kernel):
  return winograd.conv3x3(padded, winograd.transform_kernel(kernel))


@pytest.mark.parametrize('size', [(1, 1), (1, 4), (2, 2), (5, 3), (6, 7)])
def test_it_is_the_convolution(size):
  padded, kernel = random((2, size[0] + 2, size[1] + 2, 3)), random((3, 3, 3, 5), 1)
  want = direct(padded, kernel)
  assert want.shape == (2, *size, 5)
  np.testing.assert_allclose(jax.jit(by_products)(padded, kernel), want, rtol=0, atol=1e-13)


def test_so_are_its_derivatives_and_its_batches():
  padded, kernels = random((2, 6, 7, 3)), random((4, 3, 3, 3, 2), 1)
  loss = lambda conv: jax.grad(lambda x, k: jnp.sum(jnp.sin(conv(x, k))), (0, 1))
  for got, want in zip(loss(by_products)(padded, kernels[0]), loss(direct)(padded, kernels[0])):
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)
  each = functools.partial(jax.vmap, in_axes=(None, 0))
  np.testing.assert_allclose(
    each(by_products)(padded, kernels), each(direct)(padded, kernels), rtol=0, atol=1e-13
  )


def test_float32_loses_what_a_direct_sum_loses():
  padded, kernel = random((1, 18, 18, 64)), random((3, 3, 64, 64), 1)
  exact = direct(padded, kernel)
  errors = [
    float(jnp.abs(conv(padded.astype(jnp.float32), kernel.astype(jnp.float32)) - exact).max())
    for conv in (by_products, direct)
  ]
  assert errors[0] < 3 * errors[1] and errors[0] < 1e-5 * float(jnp.abs(exact).max())


def test_other_kernels_are_refused():
  with pytest.raises(ValueError, match=r'shape \(5, 3, 1, 1\); allowed: \[3, 3, C, F\]'):
    winograd.transform_kernel(random((5, 3, 1, 1)))


def rounded(padded, kernel, dtype):
  """Both in a narrower type, and the exact convolution of what was rounded."""
  padded, kernel = padded.astype(dtype), kernel.astype(dtype)
  return padded, kernel, direct(padded.astype(jnp.float64), kernel.astype(jnp.float64))


@pytest.mark.default_flags
@pytest.mark.parametrize('dtype', ['bfloat16', 'float16', 'float32'])
def test_no_type_loses_more_than_in_a_direct_sum(dtype):
  """At sizes as a deep layer has; with transforms in the narrow types it was 2.1 to 4.3 times."""
  for channels, seed in ((16, 0), (64, 1), (256, 2)):
    padded, kernel = random((1, 14, 14, channels), seed), random((3, 3, channels, 32), seed + 3)
    padded, kernel, exact = rounded(padded, kernel, dtype)
    sums = {f: jax.jit(f)(padded, kernel) for f in (by_products, direct)}
    assert all(y.dtype == dtype for y in sums.values())
    errors = {f: jnp.abs(y.astype(jnp.float64) - exact) for f, y in sums.items()}
    largest, mean = 3 if dtype == 'float32' else 1.2, 2 if dtype == 'float32' else 1.05
    assert errors[by_products].max() <= largest * errors[direct].max()
    assert errors[by_products].mean() <= mean * errors[direct].mean()


@pytest.mark.default_flags
def test_a_float16_that_fits_is_finite():
  """Sums of the image, of which four were past its largest number, 65,504."""
  padded = jnp.asarray(np.random.default_rng(0).uniform(2e4, 6e4, (1, 34, 34, 4)), jnp.float16)
  kernel = (random((3, 3, 4, 4), 1) / 36).astype(jnp.float16)
  padded, kernel, exact = rounded(padded, kernel, jnp.float16)
  assert jnp.abs(exact).max() < 6e4
  got = jax.jit(by_products)(padded, kernel)
  assert got.dtype == jnp.float16
  # Rounded once; the sums before it have 13 bits more.
  np.testing.assert_allclose(got, exact, rtol=2 * 2**-11, atol=0.1)


@pytest.mark.default_flags
def test_an_infinity_is_lost_where_it_is_read_and_nowhere_else():
  kernel = random((3, 3, 2, 2), 1).astype(jnp.float32)
  for row, column in ((4, 4), (4, 5), (5, 5), (9, 0)):
    padded = random((1, 10, 10, 2)).astype(jnp.float32).at[0, row, column, 0].set(jnp.inf)
    got, want = (np.asarray(jax.jit(f)(padded, kernel)) for f in (by_products, direct))
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(want))
    assert not np.isnan(want).any() and (np.isnan(got).any() or row == 9)
