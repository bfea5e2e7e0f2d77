"""Order of batches as a function of seed and step, and the thread that reads ahead."""

import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax import data


def small_split(count=23):
  """Every pixel of image i is i; its label is i mod 10."""
  values = np.arange(count)
  images = np.broadcast_to(values[:, None, None, None], (count, 4, 4, 1)).astype(np.uint8)
  return data.ArraySplit(images, (values % 10).astype(np.int32))


@pytest.mark.parametrize('count', [1, 2, 10, 1000])
def test_order_is_a_permutation(count):
  for epoch in range(3):
    order = data.epoch_order(7, epoch, count)
    assert order.dtype == jnp.int32
    assert sorted(order.tolist()) == list(range(count))


def test_order_depends_on_seed_and_epoch_alone():
  orders = {
    (seed, epoch): tuple(data.epoch_order(seed, epoch, 50).tolist())
    for seed in range(3)
    for epoch in range(3)
  }
  assert len(set(orders.values())) == 9
  for (seed, epoch), order in orders.items():
    assert tuple(data.epoch_order(seed, epoch, 50).tolist()) == order


def test_order_is_the_same_everywhere():
  # Recorded once: a change would make interrupted runs resume in another order.
  assert data.epoch_order(0, 0, 8).tolist() == [3, 4, 7, 0, 6, 2, 5, 1]
  assert data.epoch_order(3, 2, 8).tolist() == [6, 3, 1, 0, 7, 4, 5, 2]


def test_order_is_uniform():
  # Where image 0 lands in 4000 orders of 8: each place 500 times, standard deviation 21.
  orders = jax.vmap(lambda seed: data.epoch_order(seed, 0, 8))(jnp.arange(4000))
  places = np.bincount(np.argmax(np.asarray(orders) == 0, axis=1), minlength=8)
  assert np.abs(places - 500).max() < 5 * 21


def test_order_under_vmap_and_jit_compiles_once():
  seeds = jnp.array([5, 0, 9], jnp.int32)
  over_seeds = jax.jit(
    jax.vmap(lambda seed, epoch: data.epoch_order(seed, epoch, 31), in_axes=(0, None))
  )
  for epoch in range(3):
    loop = [data.epoch_order(seed, epoch, 31) for seed in (5, 0, 9)]
    np.testing.assert_array_equal(over_seeds(seeds, epoch), np.stack(loop))
  assert over_seeds._cache_size() == 1


def test_batch_indices_are_slices_of_the_order():
  jitted = jax.jit(data.batch_indices, static_argnums=(3, 4))
  for epoch in range(2):
    order = np.asarray(data.epoch_order(4, epoch, 23))
    for step in range(data.steps_per_epoch(23, 5)):
      expected = order[5 * step : 5 * step + 5]
      np.testing.assert_array_equal(data.batch_indices(4, epoch, step, 23, 5), expected)
      np.testing.assert_array_equal(jitted(4, epoch, step, 23, 5), expected)
  assert jitted._cache_size() == 1
  np.testing.assert_array_equal(
    jax.vmap(lambda seed: data.batch_indices(seed, 1, 2, 23, 5))(jnp.arange(3)),
    np.stack([data.batch_indices(seed, 1, 2, 23, 5) for seed in range(3)]),
  )


@pytest.mark.parametrize('step', [-1, 4, np.int64(4), jnp.int32(4)])
def test_a_step_beyond_the_epoch_is_an_error(step):
  with pytest.raises(data.DataError, match='step=.*; allowed: 0 to 3'):
    data.batch_indices(0, 0, step, 23, 5)


def test_steps_per_epoch_drops_the_rest():
  assert [data.steps_per_epoch(*sizes) for sizes in ((23, 5), (20, 5), (5, 5))] == [4, 4, 1]
  for batch_size in (0, -1, 24):
    with pytest.raises(data.DataError, match=f'batch_size={batch_size}; allowed: 1 to 23'):
      data.steps_per_epoch(23, batch_size)


def test_augmentation_keys_differ_and_repeat():
  raw = lambda *at: tuple(jax.random.key_data(data.augmentation_key(*at)).tolist())
  places = [(seed, epoch, step) for seed in range(3) for epoch in range(3) for step in range(3)]
  keys = [raw(*at) for at in places]
  assert len(set(keys)) == 27 and keys == [raw(*at) for at in places]
  batched = jax.jit(jax.vmap(data.augmentation_key))(*map(jnp.array, zip(*places)))
  assert [tuple(key) for key in jax.random.key_data(batched).tolist()] == keys


def test_resuming_needs_only_the_step():
  split, batch_size, total = small_split(), 5, 11
  steps = data.steps_per_epoch(len(split), batch_size)

  def from_step(first):
    indices = (
      data.batch_indices(1, *divmod(step, steps), len(split), batch_size)
      for step in range(first, total)
    )
    return [(images, labels) for images, labels in data.batches(split, indices)]

  whole = from_step(0)
  assert len(whole) == total
  for first in (1, 4, 10, 11):
    tail = from_step(first)
    assert len(tail) == total - first
    for (images, labels), (other_images, other_labels) in zip(whole[first:], tail):
      np.testing.assert_array_equal(images, other_images)
      np.testing.assert_array_equal(labels, other_labels)


@pytest.mark.parametrize('ahead', [1, 2, 50])
def test_batches_in_order_of_any_index_shape(ahead):
  split = small_split()
  indices = [np.arange(6).reshape(2, 3) + i for i in range(9)]
  read = list(data.batches(split, indices, ahead=ahead))
  assert len(read) == 9
  for at, (images, labels) in zip(indices, read):
    assert images.shape == (2, 3, 4, 4, 1)
    np.testing.assert_array_equal(images[..., 0, 0, 0], at)
    np.testing.assert_array_equal(labels, at % 10)
  assert list(data.batches(split, [])) == []


class Recorder:
  """A split that counts its reads, takes a while and fails where told to."""

  def __init__(self, fails_at=None):
    self.reads = []
    self._fails_at = fails_at

  def get(self, indices):
    self.reads.append(int(indices[0]))
    time.sleep(0.01)
    if indices[0] == self._fails_at:
      raise OSError('bad sector')
    return indices, indices


def reader_threads():
  return [t for t in threading.enumerate() if t.name.startswith('batches')]


def test_batches_read_ahead_but_not_far():
  split, drawn = Recorder(), []
  indices = (drawn.append(i) or np.array([i]) for i in range(100))
  stream = data.batches(split, indices, ahead=2)
  assert drawn == []  # Nothing before the first batch is asked for.
  for taken in range(5):
    next(stream)
    assert drawn == list(range(taken + 3))
  stream.close()
  assert reader_threads() == []
  assert split.reads == list(range(len(split.reads))) and len(split.reads) <= 7


def test_batches_left_early_drop_what_waits():
  split = Recorder()
  stream = data.batches(split, (np.array([i]) for i in range(100)), ahead=50)
  next(stream)
  stream.close()
  assert reader_threads() == [] and len(split.reads) < 25  # 50 were waiting.


def test_batches_raise_at_the_batch_that_failed():
  stream = data.batches(Recorder(fails_at=3), (np.array([i]) for i in range(100)))
  taken = []
  with pytest.raises(OSError, match='bad sector'):
    for images, _ in stream:
      taken.append(int(images[0]))
  assert taken == [0, 1, 2] and reader_threads() == []


def test_batches_pass_on_an_error_of_the_indices():
  def indices():
    yield np.array([0])
    raise KeyError('no more')

  with pytest.raises(KeyError, match='no more'):
    list(data.batches(Recorder(), indices()))
  assert reader_threads() == []


def test_batches_need_room():
  with pytest.raises(ValueError, match='ahead=0; allowed: at least 1'):
    next(data.batches(small_split(), [np.array([0])], ahead=0))
