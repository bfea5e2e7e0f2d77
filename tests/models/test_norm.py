"""Batch norm against Flax's: results, variables, and derivatives of first and second order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from cnnopt_jax.models.norm import BatchNorm, batch_norm


def random(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def both(**options):
  return BatchNorm(epsilon=1e-3, **options), nn.BatchNorm(momentum=0.9, epsilon=1e-3, **options)


def assert_close(got, want):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5), got, want)


VARIABLES = {
  'params': {'scale': 1 + 0.3 * random(5, seed=1), 'bias': random(5, seed=2)},
  'batch_stats': {'mean': random(5, seed=3), 'var': jnp.exp(random(5, seed=4))},
}


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('train', [True, False])
def test_results_and_variables_are_flax_s(train, dtype):
  x = (3 + 2 * random(4, 3, 3, 5)).astype(dtype)
  ours, theirs = both(use_running_average=not train)
  key = jax.random.key(0)
  jax.tree.map(np.testing.assert_array_equal, ours.init(key, x), theirs.init(key, x))
  got = ours.apply(VARIABLES, x, mutable=['batch_stats'])
  want = theirs.apply(VARIABLES, x, mutable=['batch_stats'])
  assert got[0].dtype == want[0].dtype
  assert_close(got, want)


@pytest.mark.parametrize(
  'derivative',
  [
    lambda f: jax.grad(f, (0, 1)),
    lambda f: jax.jacfwd(f, 1),
    lambda f: jax.hessian(f, 1),
    lambda f: jax.grad(lambda x, p: jnp.sum(jnp.sin(jax.grad(f)(x, p)))),
  ],
)
def test_derivatives_are_flax_s(derivative):
  x, weight = random(4, 2, 3, 5), random(4, 2, 3, 5, seed=7)

  def loss_of(module):
    def loss(x, params):
      variables = {**VARIABLES, 'params': params}
      y, new = module.apply(variables, x, mutable=['batch_stats'])
      # The running statistics, too, have derivatives.
      return jnp.sum(weight * jnp.sin(y)) + sum(jnp.sum(v) for v in jax.tree.leaves(new))

    return loss

  ours, theirs = map(loss_of, both(use_running_average=False))
  args = x, VARIABLES['params']
  assert_close(derivative(ours)(*args), derivative(theirs)(*args))


def test_under_vmap():
  x, scale, bias = random(2, 6, 5), random(2, 5, seed=1), random(2, 5, seed=2)

  def gradient(x, scale, bias):
    return jax.grad(lambda *args: jnp.sum(jnp.sin(batch_norm(*args, 1e-5)[0])), (0, 1, 2))(
      x, scale, bias
    )

  mapped = jax.vmap(gradient)(x, scale, bias)
  for i in range(2):
    assert_close([a[i] for a in mapped], list(gradient(x[i], scale[i], bias[i])))


def test_the_gradient_takes_fewer_sums_over_the_map():
  x, params = random(4, 3, 3, 5), VARIABLES['params']

  def sums(module):
    def loss(x, params):
      return module.apply({**VARIABLES, 'params': params}, x, mutable=['batch_stats'])[0].sum()

    text = jax.jit(jax.grad(loss, (0, 1))).lower(x, params).as_text()
    return text.count('dimensions = [0, 1, 2]')

  ours, theirs = both(use_running_average=False)
  assert sums(ours) < sums(theirs)
