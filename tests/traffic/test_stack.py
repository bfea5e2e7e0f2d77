"""Stack distances against a list that is an LRU stack, and misses against simulated caches."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax import traffic

LENGTH = 300  # Above two digits of the radix, so that groups of all kinds occur.


def lru_stack(addresses):
  """Mattson's definition: positions in a list with the latest address in front."""
  stack, distances = [], []
  for address in addresses:
    position = stack.index(address) if address in stack else -1
    if position >= 0:
      del stack[position]
    stack.insert(0, address)
    distances.append(position)
  return distances


def simulated_misses(addresses, sets, ways, place):
  """Counts the misses of a set-associative LRU cache, access by access."""
  content = [collections.OrderedDict() for _ in range(sets)]
  misses = 0
  for address in addresses:
    lines = content[place(address)]
    if address in lines:
      lines.move_to_end(address)
    else:
      misses += 1
      lines[address] = None
      if len(lines) > ways:
        lines.popitem(last=False)
  return misses


def test_by_hand():
  #            a  b  c  b  a  a  d  b
  addresses = [7, 3, 9, 3, 7, 7, 1, 3]
  assert traffic.stack_distances(addresses).tolist() == [-1, -1, -1, 1, 2, 0, -1, 2]


def test_thousands_of_random_streams():
  rng = np.random.default_rng(0)
  streams = []
  for _ in range(2000):
    blocks = rng.integers(1, 40)
    weights = 1 / np.arange(1, blocks + 1) ** rng.uniform(0, 2)
    stream = rng.choice(blocks, LENGTH, p=weights / weights.sum())
    if rng.random() < 0.3:  # Loops within randomness.
      stream[50:150] = np.arange(100) % rng.integers(1, 60)
    streams.append(stream)
  # One call: address spaces set apart, so that no stream sees another's.
  apart = np.concatenate([stream + 1000 * i for i, stream in enumerate(streams)])
  found = np.asarray(traffic.stack_distances(apart)).reshape(len(streams), LENGTH)
  for stream, distances in zip(streams, found):
    assert distances.tolist() == lru_stack(stream.tolist())


@pytest.mark.parametrize('length', [1, 2, 16, 17, 256, 257, 4097])
def test_every_size_of_padding(length):
  stream = np.random.default_rng(length).integers(0, 1 + length // 3, length)
  assert traffic.stack_distances(stream).tolist() == lru_stack(stream.tolist())


def test_extreme_streams():
  n = 5000
  assert (traffic.stack_distances(np.arange(n)) == -1).all()
  same = traffic.stack_distances(np.zeros(n, int))
  assert same[0] == -1 and (same[1:] == 0).all()
  loop = traffic.stack_distances(np.arange(n) % 700)
  assert (loop[:700] == -1).all() and (loop[700:] == 699).all()
  assert same.dtype == loop.dtype == jnp.int32
  assert traffic.stack_distances(np.zeros(0, int)).shape == (0,)


def test_any_integers_and_tracing():
  far = np.array([2**60, -5, 2**60, -(2**62), -5])
  assert traffic.stack_distances(far).tolist() == [-1, -1, 1, -1, 2]
  near = jnp.array([-(2**31), 2**31 - 1, -(2**31)])
  assert jax.jit(traffic.stack_distances)(near).tolist() == [-1, -1, 1]
  assert traffic.stack_distances(near).dtype == jnp.int32
  with pytest.raises(ValueError, match=r'float32.*integers \[N\]'):
    traffic.stack_distances(jnp.ones(3))
  with pytest.raises(ValueError, match=r'\(2, 2\)'):
    traffic.stack_distances(np.ones((2, 2), int))


def test_misses_of_all_capacities():
  rng = np.random.default_rng(1)
  stream = rng.zipf(1.3, 4000) % 300
  histogram = traffic.reuse_histogram(traffic.stack_distances(stream))
  assert histogram.total == len(stream)
  capacities = np.array([0, 1, 2, 5, 17, 60, 299, 300, 1000])
  expected = [len(stream)] + [
    simulated_misses(stream, 1, ways, lambda address: 0) for ways in capacities[1:]
  ]
  np.testing.assert_array_equal(histogram.misses(capacities), expected)


def test_amounts_are_summed():
  histogram = traffic.reuse_histogram([-1, 0, 3, 0], [8, 1, 2, 4])
  np.testing.assert_array_equal(histogram.misses([0, 1, 3, 4, 99]), [15, 10, 10, 8, 8])
  with pytest.raises(ValueError, match='amounts'):
    traffic.reuse_histogram([0, 1], [1])


@pytest.mark.parametrize('sets, ways', [(1, 64), (16, 4), (64, 1), (8, 16), (32, 8)])
def test_set_associative_caches(sets, ways):
  """The mean over random placements is what the formula is: within four standard errors."""
  rng = np.random.default_rng(2)
  stream = rng.zipf(1.2, 6000) % 500
  histogram = traffic.reuse_histogram(traffic.stack_distances(stream))
  expected = histogram.set_associative_misses(sets, ways)
  runs = []
  for _ in range(12):
    places = rng.integers(0, sets, 500)
    runs.append(simulated_misses(stream, sets, ways, places.__getitem__))
  error = np.std(runs, ddof=1) / np.sqrt(len(runs)) if sets > 1 else 0.0
  assert abs(np.mean(runs) - expected) <= 4 * error + 1e-6
  if sets == 1:
    assert expected == histogram.misses(ways)


def test_many_ways_are_full_associativity():
  histogram = traffic.reuse_histogram(np.arange(-1, 4000))
  few, many = (histogram.set_associative_misses(2048 // ways, ways) for ways in (2, 256))
  assert abs(many - histogram.misses(2048)) < abs(few - histogram.misses(2048)) / 4
