"""Bounds of virtual layers against brute force in float64: never violated, sometimes equal."""

import itertools

import jax
import numpy as np
import pytest

from cnnopt_jax import data
from cnnopt_jax.vip import bounds
from cnnopt_jax.vip.bounds.differences import second_differences
from cnnopt_jax.vip.bounds.layer import worst_norm

# (H, W), Cin, Cout, kernel, stride, padding, groups, activation.
LAYERS = [
  ((7, 8), 3, 5, 3, 1, 1, 1, 'relu'),
  ((8, 9), 4, 6, 3, 2, 1, 1, 'relu'),
  ((9, 6), 4, 8, 5, 1, 2, 2, 'relu'),
  ((6, 7), 6, 6, 3, 1, 1, 6, 'relu6'),
  ((5, 5), 3, 4, 3, 1, 0, 1, 'identity'),
  ((1, 1), 3, 4, 3, 1, 1, 1, 'relu'),
  ((2, 1), 2, 3, 5, 2, 2, 1, 'relu'),
  ((1, 6), 4, 4, 1, 2, 0, 2, 'relu'),
]
# Passed in full everywhere: two spellings of one call would be two compiles.
OPTIONS = dict(stride=1, padding=1, groups=1, activation='relu')
ACTIVATIONS = {
  'relu': lambda z: np.maximum(z, 0),
  'relu6': lambda z: np.clip(z, 0, 6),
  'identity': lambda z: z,
}


@pytest.fixture(autouse=True)
def x64():
  with jax.enable_x64(True):
    yield


def sources(size):
  """For each position of an axis the samples that are averaged."""
  return [[i] if i % 2 == 0 else [i - 1, i + 1] if i + 1 < size else [i - 1] for i in range(size)]


def interpolate(full):
  """[N, H, W, ...] from its even rows and columns, position by position."""
  out = np.empty_like(full)
  for (i, rows), (j, columns) in itertools.product(
    enumerate(sources(full.shape[1])), enumerate(sources(full.shape[2]))
  ):
    out[:, i, j] = np.mean([full[:, a, b] for a in rows for b in columns], 0)
  return out


def patches(x, size, stride, padding):
  """[N, rows, columns, taps, C] of the zero-extended input."""
  padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
  spans = [(length - size) // stride + 1 for length in padded.shape[1:3]]
  return np.stack(
    [
      padded[:, i:, j:][:, ::stride, ::stride][:, : spans[0], : spans[1]]
      for i in range(size)
      for j in range(size)
    ],
    3,
  )


def linear(x, kernel, bias, stride, padding, groups):
  """The convolution, group by group."""
  seen = patches(x, kernel.shape[0], stride, padding)
  weights = kernel.reshape(-1, *kernel.shape[2:])
  pairs = zip(np.split(seen, groups, -1), np.split(weights, groups, -1), strict=True)
  return np.concatenate([np.einsum('nhwtc,tco->nhwo', p, w) for p, w in pairs], -1) + bias


def norm(a):
  return np.sqrt(np.sum(a**2, axis=tuple(range(1, a.ndim))))


def random_layer(rng, layer):
  """Inputs of several kinds, a kernel with a few strong directions, a bias."""
  size, cin, cout, k, _, _, groups, _ = layer
  x = rng.normal(size=(4, *size, cin))
  x[1] = np.maximum(x[1], 0) * (rng.random(cin) < 0.5)
  x[2] = np.cumsum(np.cumsum(0.1 * x[2], 0), 1) + 1
  x[3] *= rng.lognormal(sigma=2, size=cin)
  kernel = rng.normal(size=(k, k, cin // groups, cout)) * rng.lognormal(size=cout)
  return x, kernel + rng.normal(), rng.normal(size=cout)


@pytest.mark.parametrize('layer', LAYERS)
def test_no_bound_is_violated(layer):
  *_, stride, padding, groups, activation = layer
  options = dict(stride=stride, padding=padding, groups=groups, activation=activation)
  rng = np.random.default_rng(LAYERS.index(layer))
  for _ in range(6):
    x, kernel, bias = random_layer(rng, layer)
    z = linear(x, kernel, bias, stride, padding, groups)
    dense = ACTIVATIONS[activation](z)
    virtual = interpolate(dense)
    error = virtual - dense
    truth = bounds.layer_error(x, kernel, bias, **options)
    tolerance = dict(rtol=1e-12, atol=1e-12 * np.abs(z).max())
    np.testing.assert_allclose(truth.error, norm(error), **tolerance)
    np.testing.assert_allclose(truth.error_max, np.abs(error).max((1, 2, 3)), **tolerance)
    np.testing.assert_allclose(truth.output, norm(dense), **tolerance)
    np.testing.assert_allclose(truth.trivial, norm(virtual) + norm(dense), **tolerance)

    found = bounds.layer_bound(x, kernel, bias, **options)
    slack = 1e-12 * np.abs(z).max()
    assert np.all(found.a_priori >= norm(error) - slack)
    assert np.all(found.a_posteriori >= norm(error) - slack)
    assert np.all(found.a_posteriori_max >= np.abs(error).max((1, 2, 3)) - slack)

    gap = virtual - ACTIVATIONS[activation](interpolate(z))
    np.testing.assert_allclose(found.gap, norm(gap), **tolerance)
    if activation == 'relu':
      smaller = np.minimum(interpolate(np.maximum(z, 0)), interpolate(np.maximum(-z, 0)))
      np.testing.assert_allclose(gap, smaller, **tolerance)
    seen = patches(x, kernel.shape[0], stride, padding)
    np.testing.assert_allclose(
      found.difference, norm(interpolate(seen) - seen), rtol=1e-12, atol=1e-12
    )


def test_second_differences():
  """Of u^2 at lag 2: 4 between samples, and on the repeated last of eight columns 12^2 - 14^2."""
  differences = jax.jit(second_differences, static_argnames=('kernel_size', 'stride', 'padding'))
  x = np.tile(np.arange(15.0) ** 2, (1, 15, 1))[..., None]
  found = differences(x, np.array([0, 0]), kernel_size=(1, 1), stride=2, padding=0)
  expected = np.array([0, 4, 0, 4, 0, 4, 0, 12.0**2 - 14.0**2])
  np.testing.assert_array_equal(found[0, :, :, 0], np.tile(expected, (8, 1)))
  # The zero extension is part of the input: a constant has differences at the border only. The
  # first tap sees it above and left of the first row and column.
  found = differences(
    np.ones((1, 5, 5, 1)), np.array([0, 0]), kernel_size=(3, 3), stride=1, padding=1
  )
  seen = np.pad(np.ones((4, 4)), ((1, 0), (1, 0)))[None, ..., None]
  np.testing.assert_array_equal(found, interpolate(seen) - seen)
  assert np.all(found[0, 1, ::2, 0][1:] == -0.5) and found[0, 1, 1, 0] == -0.75


def test_without_the_gap_the_bound_is_false():
  """Samples -c and c around 0: nothing to interpolate wrongly, but ReLU makes it c / 2."""
  c = 3.0
  x = np.array([-c, 0, c]).reshape(1, 1, 3, 1)
  kernel = np.ones((1, 1, 1, 1))
  found, truth = bounds.layer_bound(x, kernel), bounds.layer_error(x, kernel)
  assert truth.error == found.gap == found.a_priori == found.a_posteriori == c / 2
  assert found.a_posteriori_max == c / 2
  assert not found.kernel_norm * found.difference >= truth.error
  identity = bounds.layer_bound(x, kernel, activation='identity')
  assert identity.gap == identity.a_priori == 0


def test_gap_and_difference_add_up():
  """Samples -1 and 3 around 0: 1.5 instead of 0, half of it from ReLU, one from the difference."""
  x = np.array([-1.0, 0, 3]).reshape(1, 1, 3, 1)
  found = bounds.layer_bound(x, np.ones((1, 1, 1, 1)))
  assert found.gap == 0.5 and found.difference == 1
  assert found.a_priori == bounds.layer_error(x, np.ones((1, 1, 1, 1))).error == 1.5
  np.testing.assert_allclose([found.a_posteriori, found.a_posteriori_max], 1.5, rtol=1e-6)


@pytest.mark.parametrize(
  'virtual, z, radius, activation, expected',
  [
    (0, 1, 3, 'relu', 4),  # The dense output can grow without end.
    (1, -2, 1, 'relu', 2**0.5),  # ... but not fall below zero.
    (5, 7, 1, 'relu6', 2**0.5),  # ... nor rise above six.
    (2, 1, 3, 'relu', 12**0.5),  # 1 + 9 + 2 with the reach of 1; the true worst is 2.
    (2, 1, 3, 'identity', 4),
  ],
)
def test_how_far_an_output_can_go(virtual, z, radius, activation, expected):
  act = bounds.ACTIVATIONS[activation]
  arrays = [np.asarray(a, float) for a in ([virtual], [z], radius)]
  np.testing.assert_allclose(worst_norm(arrays[0], act, *arrays[1:]), expected)


def test_the_gap_is_needed_on_real_images():
  """With a 1x1 kernel at least one image shows it; the mean is subtracted by the bias."""
  images = real_images(100)
  kernel, bias = np.ones((1, 1, 1, 1)), -images.mean()
  found, truth = bounds.layer_bound(images, kernel, bias), bounds.layer_error(images, kernel, bias)
  assert np.all(found.a_priori >= truth.error)
  # Along the map an error can hide behind a larger difference elsewhere: compare by position.
  z = images + bias
  error = np.abs(interpolate(np.maximum(z, 0)) - np.maximum(z, 0))
  difference = np.abs(interpolate(z) - z)
  assert np.mean(error > difference + 1e-12) > 0.01


def test_equality_for_an_orthogonal_kernel():
  """A 1x1 kernel that keeps lengths, times 2.5: error and bound agree for every input."""
  rng = np.random.default_rng(0)
  kernel = 2.5 * np.linalg.qr(rng.normal(size=(6, 6)))[0][None, None]
  x = rng.normal(size=(3, 7, 6, 6))
  found = bounds.layer_bound(x, kernel, rng.normal(size=6), activation='identity', rank=0)
  truth = bounds.layer_error(x, kernel, activation='identity')
  np.testing.assert_allclose(found.a_priori, truth.error, rtol=1e-12)
  np.testing.assert_allclose(found.kernel_norm, 2.5)


def test_equality_for_the_kernel_that_matches_the_difference():
  """Of two columns the second repeats the first; the kernel is the difference of their patches."""
  x = np.random.default_rng(0).normal(size=(1, 1, 2, 3))
  seen = patches(x, 3, 1, 1)
  kernel = (seen[0, 0, 0] - seen[0, 0, 1]).reshape(3, 3, 3, 1)
  found = bounds.layer_bound(x, kernel, 100.0, padding=1)
  truth = bounds.layer_error(x, kernel, 100.0, padding=1)
  np.testing.assert_allclose(truth.error, (kernel**2).sum())
  np.testing.assert_allclose(found.a_priori, truth.error)
  np.testing.assert_allclose(found.a_posteriori, truth.error, rtol=1e-5)
  np.testing.assert_allclose(found.a_posteriori_max, truth.error, rtol=1e-5)


def test_every_rank_bounds_and_full_rank_is_exact():
  x, kernel, bias = random_layer(np.random.default_rng(1), LAYERS[0])
  truth = bounds.layer_error(x, kernel, bias, **OPTIONS)
  ratios = []
  for rank in (0, 2, 5):
    found = bounds.layer_bound(x, kernel, bias, **OPTIONS, rank=rank)
    slack = 1e-12 * truth.output.max()
    assert np.all(found.a_posteriori >= truth.error - slack)
    assert np.all(found.a_posteriori_max >= truth.error_max - slack)
    ratios.append(found.a_posteriori[0] / truth.error[0])
  assert ratios[0] > ratios[1] > ratios[2]
  tolerance = dict(rtol=1e-12, atol=1e-12 * truth.output.max())
  np.testing.assert_allclose(found.a_posteriori, truth.error, **tolerance)
  np.testing.assert_allclose(found.a_posteriori_max, truth.error_max, **tolerance)


def test_bounds_can_be_mapped_and_differentiated():
  x, kernel, bias = random_layer(np.random.default_rng(2), LAYERS[0])
  kernels = np.stack([kernel, -kernel, 2 * kernel])
  bound = lambda kernel: bounds.layer_bound(x, kernel, bias, **OPTIONS).a_posteriori
  mapped = jax.vmap(bound)(kernels)
  for got, one in zip(mapped, kernels, strict=True):
    np.testing.assert_allclose(got, bound(one), rtol=1e-10)
  # The a-priori bound is one of degree 1 in kernel and bias together (Euler's theorem).
  total = lambda kernel, bias: bounds.layer_bound(x, kernel, bias, **OPTIONS).a_priori.sum()
  value, gradients = jax.value_and_grad(total, (0, 1))(kernel, bias)
  np.testing.assert_allclose(
    sum(np.vdot(a, g) for a, g in zip((kernel, bias), gradients)), value, rtol=1e-10
  )


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(activation='gelu'), "activation='gelu'; allowed: relu, relu6, identity"),
    (dict(rank=5), 'rank=5; allowed: 0 to 4'),
    (dict(rank=-1), 'rank=-1; allowed: 0 to 4'),
    (dict(stride=0), 'stride=0; allowed: an integer of 1 or more'),
    (dict(padding=0.7), 'padding=0.7; allowed: an integer of 0 or more'),
    (dict(groups=2), 'groups=2; allowed: a divisor of the outputs'),
    (dict(padding=0), 'padding=0; allowed: enough for a kernel'),
  ],
)
def test_bad_options(options, message):
  with pytest.raises(ValueError, match=message):
    bounds.layer_bound(np.ones((1, 2, 2, 3)), np.ones((3, 3, 3, 4)), **{'padding': 1, **options})


def real_images(count):
  """Test images of the embedded subset, [count, 28, 28, 1], normalized."""
  dataset = data.load('fashion_mnist_subset')
  images, _ = dataset.test.get(np.arange(count))
  return (images - np.asarray(dataset.mean)) / np.asarray(dataset.std)


def random_network(seed, channels=(8, 12, 16), pools=(True, False, True)):
  """Kernels of He's variance with random biases; a 2x2 max-pool where `pools`."""
  rng = np.random.default_rng(seed)
  layers, cin = [], 1
  for cout, pool in zip(channels, pools, strict=True):
    kernel = rng.normal(size=(3, 3, cin, cout)) * np.sqrt(2 / (9 * cin))
    layers.append((kernel, 0.1 * rng.normal(size=cout), pool))
    cin = cout
  return layers


def max_pool(x):
  n, h, w, c = x.shape
  return x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))


def test_report_of_random_networks_on_real_images():
  """Never violated; at most 3 in the first layer, 10 in every one (median over images)."""
  for seed in range(4):
    x, layers = real_images(40), []
    for i, (kernel, bias, pool) in enumerate(random_network(seed)):
      layers.append(bounds.BoundedLayer(f'conv{i}', x, kernel, bias, **OPTIONS))
      x = np.maximum(linear(x, kernel, bias, 1, 1, 1), 0)
      x = max_pool(x) if pool else x
    rows = bounds.bound_report(layers)
    assert [row.layer for row in rows] == ['conv0', 'conv1', 'conv2']
    assert not any(row.violations for row in rows)
    assert all(row.images == 40 for row in rows)
    assert all(1 <= row.ratio <= min(row.a_priori, row.a_posteriori, row.trivial) for row in rows)
    assert rows[0].ratio <= 3 and all(row.ratio <= 10 for row in rows)


def test_report_of_a_layer_without_error():
  """A map of one pixel has nothing to interpolate."""
  layer = bounds.BoundedLayer('one', np.ones((2, 1, 1, 3)), np.ones((1, 1, 3, 2)))
  (row,) = bounds.bound_report([layer], rank=99)
  assert row.images == row.violations == 0 and np.isnan(row.ratio) and np.isnan(row.worst)


def test_chain_is_bounded_by_the_virtual_network_alone():
  images = real_images(40)
  layers = random_network(7)
  dense = virtual = images
  local, lipschitz, distances = [], [], []
  for kernel, bias, pool in layers:
    found = bounds.layer_bound(virtual, kernel, bias, **OPTIONS, rank=None)
    local.append(np.minimum(found.a_priori, found.a_posteriori))
    lipschitz.append(bounds.conv_norm(kernel, dense.shape[1:3]) * bounds.pool_norm(2, 2))
    dense, virtual = (np.maximum(linear(x, kernel, bias, 1, 1, 1), 0) for x in (dense, virtual))
    virtual = interpolate(virtual)
    distances.append(norm(virtual - dense))
    if pool:
      dense, virtual = max_pool(dense), max_pool(virtual)
  found = bounds.network_bound(np.stack(local), np.stack(lipschitz))
  assert np.all(found >= np.stack(distances))
  np.testing.assert_array_equal(found[0], local[0])
  assert np.median(found[-1] / distances[-1]) > 10, 'Lipschitz constants are known to be loose'


def test_network_bound_by_hand():
  found = bounds.network_bound(np.array([[1.0], [2.0], [0.5]]), np.array([9.0, 3.0, 2.0]))
  np.testing.assert_array_equal(found[:, 0], [1, 5, 10.5])


@pytest.mark.parametrize(
  'size, k, stride, padding, groups',
  [
    ((5, 4), 3, 1, 1, 1),
    ((6, 5), 3, 2, 1, 1),
    ((4, 4), 5, 1, 4, 2),
    ((3, 4), 3, 2, 1, 4),
  ],
)
def test_conv_norm_bounds_the_matrix(size, k, stride, padding, groups):
  """Against the singular values of the whole operator, column by column."""
  kernel = np.random.default_rng(0).normal(size=(k, k, 4 // groups, 4))
  units = np.eye(size[0] * size[1] * 4).reshape(-1, *size, 4)
  matrix = linear(units, kernel, 0.0, stride, padding, groups).reshape(len(units), -1)
  exact = np.linalg.norm(matrix, 2)
  found = bounds.conv_norm(kernel, size, stride=stride, groups=groups)
  assert exact <= found <= 1.5 * exact


def test_conv_norm_is_the_matrix_norm_of_a_1x1_kernel():
  kernel = np.random.default_rng(0).normal(size=(1, 1, 5, 3))
  np.testing.assert_allclose(bounds.conv_norm(kernel, (4, 6)), np.linalg.norm(kernel[0, 0], 2))


def test_pool_norm_is_reached():
  """By a change where windows meet, or of a whole window."""
  pixel = np.zeros((1, 7, 7, 1))
  pixel[0, 2, 2] = 1  # Rows and columns 0..2 and 2..4.
  windows = patches(pixel, 3, 2, 0)
  assert norm(windows.max(3)) / norm(pixel) == bounds.pool_norm(3, 2) == 2
  window = np.ones((1, 2, 2, 1))
  assert (
    norm(patches(window, 2, 2, 0).mean(3)) / norm(window)
    == bounds.pool_norm(2, 2, 'average')
    == 0.5
  )
  with pytest.raises(ValueError, match="kind='sum'; allowed: max, average"):
    bounds.pool_norm(2, 2, 'sum')
