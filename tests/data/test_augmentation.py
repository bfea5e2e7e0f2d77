"""Shifts and flips against plain NumPy, and normalization against literals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax import data


def random_images(shape, seed=0):
  return np.random.default_rng(seed).integers(1, 256, shape, dtype=np.uint8)


def moved(image, dy, dx, mirrored):
  """One image [H, W, C] mirrored, then moved down by dy and right by dx, pixel by pixel."""
  height, width, _ = image.shape
  result = np.zeros_like(image)
  for y in range(height):
    for x in range(width):
      from_y, from_x = y - dy, x - dx
      if 0 <= from_y < height and 0 <= from_x < width:
        result[y, x] = image[from_y, width - 1 - from_x if mirrored else from_x]
  return result


def choices(shift, flip):
  span = range(-shift, shift + 1)
  return [(dy, dx, m) for dy in span for dx in span for m in ((False, True) if flip else (False,))]


def choice_of_each(images, results, shift, flip):
  """Which of `choices` each result is; fails where it is none."""
  options = choices(shift, flip)
  found = []
  for image, result in zip(images, results):
    matches = [i for i, option in enumerate(options) if (moved(image, *option) == result).all()]
    assert len(matches) == 1
    found += matches
  return np.array(found), options


@pytest.mark.parametrize('shift, flip', [(1, False), (0, True), (2, True), (4, False)])
@pytest.mark.parametrize('shape', [(12, 6, 5, 1), (12, 5, 7, 3)])
def test_every_image_is_moved_by_whole_pixels(shape, shift, flip):
  images = random_images(shape)
  results = np.asarray(data.augment(jax.random.key(1), images, shift=shift, flip=flip))
  assert results.dtype == np.uint8 and results.shape == shape
  found, _ = choice_of_each(images, results, shift, flip)
  assert len(set(found)) > 1


def test_every_move_is_equally_likely():
  # The same image 1800 times, 18 possible results: each 100 times, standard deviation 9.7.
  image = random_images((1, 4, 5, 1))
  results = data.augment(jax.random.key(2), np.repeat(image, 1800, 0), shift=1, flip=True)
  options = np.stack([moved(image[0], *option) for option in choices(1, True)])
  matches = (np.asarray(results)[:, None] == options).all((2, 3, 4))
  assert (matches.sum(1) == 1).all()
  assert np.abs(matches.sum(0) - 100).max() < 5 * 9.7
  assert abs(matches[:, 1::2].sum() - 900) < 5 * 21  # The mirrored half.


def test_pure_and_the_same_under_jit_vmap_and_in_float():
  images = random_images((3, 8, 6, 6, 1))
  keys = jax.random.split(jax.random.key(3), 3)
  augment = functools.partial(data.augment, shift=2, flip=True)
  loop = np.stack([augment(key, batch) for key, batch in zip(keys, images)])
  np.testing.assert_array_equal(np.stack([augment(k, b) for k, b in zip(keys, images)]), loop)
  jitted = jax.jit(jax.vmap(augment))
  np.testing.assert_array_equal(jitted(keys, images), loop)
  in_float = jitted(keys, images.astype(np.float32))
  assert in_float.dtype == jnp.float32
  np.testing.assert_array_equal(in_float, loop)
  jitted(keys[::-1], images)
  assert jitted._cache_size() == 2  # One for each dtype.
  assert not np.array_equal(jitted(keys[::-1], images), loop)


def test_nothing_to_do_is_the_same_array():
  images = jnp.asarray(random_images((2, 4, 4, 1)))
  key = jax.random.key(0)
  assert data.augment(key, images, shift=0, flip=False) is images
  none = functools.partial(data.augment, shift=0, flip=False)
  assert not jax.make_jaxpr(none)(key, images).eqns


@pytest.mark.parametrize('shift', [-1, 4])
def test_shift_must_fit_the_image(shift):
  with pytest.raises(ValueError, match=f'shift={shift}; allowed: 0 to 3 for images of 5x4'):
    data.augment(jax.random.key(0), random_images((2, 5, 4, 1)), shift=shift, flip=False)


def test_images_need_a_batch_axis():
  with pytest.raises(AssertionError):
    data.augment(jax.random.key(0), random_images((5, 4, 1)), shift=1, flip=False)


def test_normalize_by_hand():
  images = np.array([[[[10, 20], [30, 60]]]], np.uint8)
  result = data.normalize(images, (10.0, 40.0), (5.0, 10.0))
  assert result.dtype == jnp.float32
  assert result.tolist() == [[[[0.0, -2.0], [4.0, 2.0]]]]
  with pytest.raises(AssertionError):
    data.normalize(images, (10.0,), (5.0,))


def test_normalized_training_images_have_zero_mean_and_unit_deviation():
  dataset = data.load('fashion_mnist_subset')
  normalized = np.asarray(data.normalize(dataset.train.images, dataset.mean, dataset.std))
  # Rounding to float32 is an error of at most 2**-24 a value, relative to values up to 2.1.
  assert abs(normalized.mean(dtype=np.float64)) < 2.1 * 2**-23
  assert abs(normalized.std(dtype=np.float64) - 1) < 2.1 * 2**-22


def test_a_channel_that_never_varies_becomes_zero():
  images = random_images((4, 3, 3, 2))
  images[..., 1] = 9
  mean, std = data.dataset.channel_statistics(images)
  assert mean[1] == 9.0 and std[1] == 1.0
  assert not data.normalize(images, mean, std)[..., 1].any()
