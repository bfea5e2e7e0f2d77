"""Virtual maps, pools, sums and means, against NumPy loops over the full map."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from cnnopt_jax import vip
from tests.vip import oracle
from tests.vip.maps import SIZES, full, random, random_map

ALL_SIZES = (*SIZES, (1, 4), (7, 7))


@pytest.mark.parametrize('size', ALL_SIZES)
def test_materialize(size):
  x = random_map(size, 3)
  np.testing.assert_allclose(x.materialize(), full(x), rtol=0, atol=1e-15)
  assert x.shape == (2, *size, 3)


def test_materialized_literals():
  x = vip.VirtualMap(jnp.array([[0.0, 4.0], [8.0, 4.0]]).reshape(1, 2, 2, 1), (4, 3))
  np.testing.assert_array_equal(
    x.materialize()[0, :, :, 0], [[0, 2, 4], [4, 4, 4], [8, 6, 4], [8, 6, 4]]
  )


def test_no_arithmetic_and_no_conversion():
  x = random_map((4, 4), 2)
  for attempt in (
    lambda: x + x,
    lambda: 2 * x,
    lambda: nn.relu(x),
    lambda: jnp.sum(x),
    lambda: np.asarray(x),
    lambda: np.maximum(x, 0),
    lambda: -x,
  ):
    with pytest.raises(TypeError):
      attempt()


@pytest.mark.parametrize(
  'samples, size',
  [((2, 3, 3, 1), (6, 7)), ((2, 3, 3, 1), (4, 6)), ((3, 3, 1), (6, 6)), ((1, 0, 0, 1), (0, 0))],
)
def test_samples_that_do_not_fit_are_refused(samples, size):
  with pytest.raises(ValueError, match='allowed: '):
    vip.VirtualMap(jnp.zeros(samples), size).materialize()


def test_is_a_pytree_with_a_static_size():
  x = random_map((5, 4), 2)
  y = jax.jit(lambda x: jax.tree.map(lambda s: 2 * s, x))(x)
  assert y.size == (5, 4)
  np.testing.assert_array_equal(y.samples, 2 * x.samples)
  stacked = jax.vmap(lambda s: vip.VirtualMap(s, (5, 4)).materialize())(random((3, 2, 3, 2, 1)))
  assert stacked.shape == (3, 2, 5, 4, 1)


POOLS = ((2, 2, 0), (3, 2, 1), (3, 2, 0), (2, 1, 0), (3, 4, 1), (4, 4, 0), (5, 2, 2), (1, 2, 0))


@pytest.mark.parametrize('size', ALL_SIZES)
def test_max_pool(size):
  x = random_map(size, 3)
  pools = [(w, s, p) for w, s, p in POOLS if min(size) + 2 * p >= w]
  pool = lambda x: [vip.max_pool(x, w, s, padding=((p, p), (p, p))) for w, s, p in pools]
  for (w, s, p), got, of_array in zip(pools, jax.jit(pool)(x), jax.jit(pool)(full(x))):
    want = oracle.pool(full(x), w, s, ((p, p), (p, p)), np.max)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-15, err_msg=str((w, s, p)))
    np.testing.assert_array_equal(of_array, want)


def test_oblong_pools():
  x = random_map((9, 8), 3)
  largest, mean = jax.jit(
    lambda x: (vip.max_pool(x, (3, 2), (2, 4)), vip.avg_pool(x, (2, 3), (4, 2)))
  )(x)
  every = [
    [full(x)[:, i : i + 3, j : j + 2].max((1, 2)) for j in range(0, 7, 4)] for i in range(0, 7, 2)
  ]
  np.testing.assert_allclose(largest, np.moveaxis(np.array(every), 2, 0), rtol=0, atol=1e-15)
  every = [
    [full(x)[:, i : i + 2, j : j + 3].mean((1, 2)) for j in range(0, 6, 2)] for i in range(0, 8, 4)
  ]
  np.testing.assert_allclose(mean, np.moveaxis(np.array(every), 2, 0), rtol=0, atol=1e-15)


def test_max_pool_over_the_edge():
  x = random_map((7, 8), 3)
  got = jax.jit(lambda x: vip.max_pool(x, 3, 2, padding=((0, 1), (1, 2))))(x)
  np.testing.assert_array_equal(got, oracle.pool(full(x), 3, 2, ((0, 1), (1, 2)), np.max))


@pytest.mark.parametrize('size', ALL_SIZES)
def test_avg_pool_and_global_mean(size):
  x = random_map(size, 3)
  pools = [(w, s) for w, s in ((2, 2), (3, 2), (2, 1), (4, 4), (1, 2), (5, 4)) if min(size) >= w]
  for source in (x, full(x)):
    *pooled, mean = jax.jit(
      lambda x: [vip.avg_pool(x, w, s) for w, s in pools] + [vip.global_mean(x)]
    )(source)
    for (w, s), got in zip(pools, pooled):
      want = oracle.pool(full(x), w, s, ((0, 0), (0, 0)), np.mean)
      np.testing.assert_allclose(got, want, rtol=0, atol=1e-15, err_msg=str((w, s)))
    np.testing.assert_allclose(mean, full(x).mean((1, 2)), rtol=0, atol=1e-15)


@pytest.mark.parametrize(
  'pool',
  [
    lambda x: vip.max_pool(x, 2, 2),
    lambda x: vip.max_pool(x, 3, 2, padding=((1, 1), (1, 1))),
    lambda x: vip.avg_pool(x, 2, 2),
    vip.global_mean,
    vip.relu,
  ],
)
def test_gradients_are_those_through_the_full_map(pool):
  x = random_map((7, 6), 2)  # Random numbers have no ties.
  loss = lambda x: jnp.sum(jnp.sin(pool(x)))
  got = jax.jit(jax.grad(loss))(x).samples
  want = jax.jit(jax.grad(lambda x: loss(x.materialize())))(x).samples
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
  'window, stride, padding', [(0, 1, 0), (2, (2, 0), 0), (5, 2, 0), (2, 2, 2)]
)
def test_pools_that_do_not_fit_are_refused(window, stride, padding):
  with pytest.raises(ValueError, match='(window|stride)=.*allowed'):
    vip.max_pool(random_map((4, 4), 1), window, stride, padding=((padding, padding),) * 2)


@pytest.mark.parametrize('virtual', [(False, False), (False, True), (True, False), (True, True)])
def test_sums(virtual):
  maps = [random_map((5, 6), 3, seed=seed) for seed in (0, 1)]
  a, b = (x if v else jnp.asarray(full(x)) for x, v in zip(maps, virtual))
  want = full(maps[0]) + full(maps[1])
  total = vip.add(a, b)
  assert isinstance(total, vip.VirtualMap) == all(virtual)
  np.testing.assert_allclose(vip.materialize(total), want, rtol=0, atol=1e-15)
  # ReLU does not commute with interpolation: it is that of the full map.
  np.testing.assert_allclose(vip.add_relu(a, b), np.maximum(want, 0), rtol=0, atol=1e-15)
  np.testing.assert_allclose(vip.relu(total), np.maximum(want, 0), rtol=0, atol=1e-15)
  with pytest.raises(ValueError, match=r'shapes \(2, 5, 6, 3\) and \(2, 5, 6, 4\)'):
    vip.add(a, random_map((5, 6), 4))


def test_on_samples_comes_before_interpolation():
  x = random_map((5, 6), 3)
  got = vip.on_samples(nn.relu, x)
  want = oracle.restore(np.maximum(np.asarray(x.samples), 0), x.size)
  np.testing.assert_allclose(got.materialize(), want, rtol=0, atol=1e-15)
  assert np.abs(got.materialize() - vip.relu(x)).max() > 0.1
  np.testing.assert_array_equal(vip.on_samples(nn.relu, x.samples), nn.relu(x.samples))
