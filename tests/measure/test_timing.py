"""Summaries of times."""

import itertools

import numpy as np
import pytest

from cnnopt_jax import measure


def test_median_and_quartiles():
  # Nine calls: the third, fifth and seventh smallest stand at the quarters.
  seconds = np.array([9, 1, 5, 2, 8, 3, 7, 4, 1000.0])
  assert measure.summarize(seconds) == measure.Timing(5.0, 3.0, 8.0, 9)
  assert measure.summarize(np.array([0.5])) == measure.Timing(0.5, 0.5, 0.5, 1)


def test_calls_are_interleaved_in_orders_of_their_own():
  calls = []
  functions = {name: lambda name=name: calls.append(name) for name in 'abcd'}
  seconds = measure.interleaved_seconds(functions, rounds=80, warmup=2)
  assert ''.join(calls[:8]) == 'aabbccdd'
  rounds = [calls[i : i + 4] for i in range(8, len(calls), 4)]
  assert len(rounds) == 80 and all(sorted(order) == list('abcd') for order in rounds)
  # In a random order a follows b in every fourth round: that one of the twelve pairs never does so
  # has a probability of 12 * 0.75**80, 1e-9, whatever the seed.
  pairs = {pair for order in rounds for pair in itertools.pairwise(order)}
  assert pairs == set(itertools.permutations('abcd', 2))
  assert {order.index('a') for order in rounds} == {0, 1, 2, 3}
  assert all(measure.summarize(s).calls == 80 for s in seconds.values())


@pytest.mark.parametrize('seconds', [[], [1.0, np.nan], [[1.0]]])
def test_times_that_are_none_are_refused(seconds):
  with pytest.raises(ValueError, match='seconds=.*allowed'):
    measure.summarize(np.array(seconds))
