"""Training images that are set aside."""

import numpy as np
import pytest

from cnnopt_jax import data


def test_held_out_images_are_no_longer_trained_on():
  dataset = data.load('fashion_mnist_subset')
  rest, held = data.hold_out(dataset, 500)
  assert len(held) == 500 and len(rest.train) == len(dataset.train) - 500
  assert rest.test is dataset.test and rest.mean == dataset.mean
  everything = np.concatenate([rest.train.positions, held.positions])
  np.testing.assert_array_equal(np.sort(everything), np.arange(len(dataset.train)))
  images, labels = held.get(np.array([[0, 3], [7, 499]]))
  expected = dataset.train.get(held.positions[np.array([[0, 3], [7, 499]])])
  np.testing.assert_array_equal(images, expected[0])
  np.testing.assert_array_equal(labels, expected[1])
  again = data.hold_out(dataset, 500)[1]
  np.testing.assert_array_equal(held.positions, again.positions)
  share = np.bincount(held.get(np.arange(500))[1], minlength=10) / 500
  assert share.min() > 0.05  # Of all classes.


@pytest.mark.parametrize('count', [0, -1, 12_000])
def test_some_must_be_left(count):
  with pytest.raises(ValueError, match=f'count={count}; allowed: 1 to 11999'):
    data.hold_out(data.load('fashion_mnist_subset'), count)
