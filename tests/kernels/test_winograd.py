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
