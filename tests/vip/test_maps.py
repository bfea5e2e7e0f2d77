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


def test_a_map_has_the_rank_and_the_type_of_what_it_stands_for():
  x = random_map((5, 6), 3)
  assert (x.ndim, x.dtype, x.shape) == (4, jnp.float64, (2, 5, 6, 3))
  y = jax.jit(lambda x: x.astype(jnp.float32))(x)
  assert isinstance(y, vip.VirtualMap) and y.dtype == jnp.float32 and y.size == (5, 6)
  np.testing.assert_allclose(y.materialize(), full(x), rtol=0, atol=1e-6)
  assert jax.eval_shape(lambda x: x.materialize(), y).dtype == y.dtype
  with pytest.raises(ValueError, match='dtype=.*int8.*; allowed: floating types, or materialize()'):
    x.astype(jnp.int8)


@pytest.mark.parametrize('size', [(4.0, 6), (4.5, 6), (4,), 'ab', 4])
def test_sizes_that_are_no_integers_are_refused(size):
  with pytest.raises(ValueError, match='allowed: .* and a size of two integers, at least'):
    vip.VirtualMap(jnp.zeros((1, 2, 3, 1)), size).materialize()


@pytest.mark.parametrize('size', [(5, 6), (8, 7)])
def test_padded_averages(size):
  """Against flax's of the full map, which takes no negative padding."""
  x = random_map(size, 3)
  for window, stride in (((2, 2), (2, 2)), ((3, 4), (2, 4)), ((3, 3), (1, 2))):
    for padding in ('SAME', 'VALID', ((1, 1), (1, 1)), ((0, 1), (1, 0))):
      for count in (True, False):
        options = dict(padding=padding, count_include_pad=count)
        want = nn.avg_pool(jnp.asarray(full(x)), window, stride, **options)
        for source in (x, full(x)):
          got = vip.avg_pool(source, window, stride, **options)
          np.testing.assert_allclose(got, want, rtol=0, atol=1e-14, err_msg=str(options))


@pytest.mark.default_flags
def test_pools_of_cut_maps_in_float32():
  x = jax.tree.map(lambda s: s.astype(jnp.float32), random_map((11, 12), 8))
  padding = ((-2, 1), (2, -3))
  cut = full(x)[:, 2:, :-3]
  for stride in (2, 3):
    for pool, reduce in ((vip.max_pool, np.max), (vip.avg_pool, np.mean)):
      want = oracle.pool(cut, 3, stride, ((0, 1), (2, 0)), reduce)
      for source in (x, x.materialize()):
        got = pool(source, 3, stride, padding=padding)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
  'wrong', [0.7, ((0.7, 0), (0, 0)), 'same ', None, ((1, 1), (1, 1), (1, 1))]
)
def test_pools_refuse_padding_that_is_none(wrong):
  for pool in (vip.max_pool, vip.avg_pool):
    with pytest.raises(ValueError, match='padding=.*; allowed: '):
      pool(random_map((6, 6), 1), 2, 2, padding=wrong)
    with pytest.raises(ValueError, match='window=2.5; allowed: one or two integers'):
      pool(random_map((6, 6), 1), 2.5, 2)
    assert pool(random_map((6, 6), 1), np.int64(2), [np.int64(2), 2]).shape == (2, 3, 3, 1)


def test_no_images_are_pooled_to_none():
  x = random_map((6, 7), 128, n=0)
  for source in (x, x.materialize()):
    for pool in (vip.max_pool, vip.avg_pool):
      for window, stride in ((2, 2), (3, 2), (3, 1)):
        y = pool(source, window, stride, padding='SAME')
        assert y.shape == (0, -(-6 // stride), -(-7 // stride), 128)
    assert vip.global_mean(source).shape == (0, 128)
    assert vip.add_relu(source, x).shape == vip.relu(source).shape == (0, 6, 7, 128)


@pytest.mark.default_flags
def test_means_of_large_float16_are_finite():
  """Sums of two of them are not."""
  samples = np.random.default_rng(0).uniform(4e4, 6e4, (1, 5, 6, 2)).astype(np.float16)
  x = vip.VirtualMap(jnp.asarray(samples), (9, 12))
  for pool, reduce in ((vip.max_pool, np.max), (vip.avg_pool, np.mean)):
    for window, stride in ((3, 2), (2, 2), (3, 1)):
      got = pool(x, window, stride)
      assert got.dtype == jnp.float16
      want = oracle.pool(full(x), window, stride, ((0, 0), (0, 0)), reduce)
      np.testing.assert_allclose(got, want, rtol=2**-9)  # Rounded twice or three times.
  np.testing.assert_allclose(vip.global_mean(x), full(x).mean((1, 2)), rtol=2**-10)


@pytest.mark.parametrize('virtual', [False, True])
@pytest.mark.parametrize('shape', [(), (1,), (3,), (1, 1, 3), (2, 1, 1, 3), (2, 1, 1, 1)])
def test_one_number_a_channel(virtual, shape):
  x = random_map((5, 6), 3)
  source, b = x if virtual else jnp.asarray(full(x)), random(shape, 1)
  for op, plain in ((vip.add, np.add), (vip.multiply, np.multiply)):
    for got in (op(source, b), op(b, source), op(source, np.asarray(b))):
      assert isinstance(got, vip.VirtualMap) == virtual and got.shape == x.shape
      np.testing.assert_allclose(vip.materialize(got), plain(full(x), b), rtol=0, atol=1e-14)
  np.testing.assert_allclose(
    vip.materialize(vip.multiply(2, source)), 2 * full(x), rtol=0, atol=1e-14
  )


def test_products_of_maps_are_written():
  x, y = random_map((5, 6), 3), random_map((5, 6), 3, seed=1)
  for a, b in ((x, y), (x, full(y)), (full(x), y)):
    np.testing.assert_allclose(vip.multiply(a, b), full(x) * full(y), rtol=0, atol=1e-14)
  for shape in ((2,), (6, 3), (5, 1, 3), (3, 1, 1, 3), (1, 2, 1, 1, 3)):
    for op in (vip.add, vip.multiply):
      for a, b in ((x, random(shape)), (random(shape), x)):
        with pytest.raises(
          ValueError, match='shapes .*; allowed: two of one shape, or a map and on'
        ):
          op(a, b)


def test_a_squeeze_and_excitation_block_stays_virtual():
  x, w = random_map((7, 6), 4), random((4, 4), 1)

  def block(x):
    gate = jax.nn.sigmoid(vip.global_mean(x) @ w)
    return vip.multiply(x, gate[:, None, None])

  got = jax.jit(block)(x)
  assert isinstance(got, vip.VirtualMap)
  np.testing.assert_allclose(got.materialize(), block(jnp.asarray(full(x))), rtol=0, atol=1e-14)
  assert vip.written_maps(block, x) == ()


def test_maps_side_by_side():
  x, y = random_map((5, 6), 3), random_map((5, 6), 2, seed=1)
  for axis in (-1, 3):
    both, mixed = vip.concatenate([x, y], axis), vip.concatenate((full(x), y), axis)
    assert isinstance(both, vip.VirtualMap) and not isinstance(mixed, vip.VirtualMap)
    for got in (both.materialize(), mixed):
      np.testing.assert_allclose(got, np.concatenate([full(x), full(y)], -1), rtol=0, atol=1e-15)
  images = vip.concatenate([x, x], 0)
  assert isinstance(images, vip.VirtualMap) and images.shape == (4, 5, 6, 3)
  assert vip.concatenate([x]).shape == x.shape
  for maps, axis, words in (
    ([x, x], 1, 'axis=1; allowed: -1 for channels, 0 for images; for others materialize'),
    ([x, y], 0, 'shapes .*; allowed: shapes that differ along axis 0 alone'),
    ([x, random_map((5, 7), 3)], -1, 'shapes .*; allowed: shapes that differ along axis -1 alone'),
    ([], -1, 'maps is empty; allowed'),
    ([x, jnp.ones(3)], -1, r'maps\[1\] of shape \(3,\); allowed: \[N, H, W, C\]'),
  ):
    with pytest.raises(ValueError, match=words):
      vip.concatenate(maps, axis)
