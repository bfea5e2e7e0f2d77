"""Summaries of times."""

import numpy as np
import pytest

from cnnopt_jax import measure


def test_median_and_quartiles():
  # Nine calls: the third, fifth and seventh smallest stand at the quarters.
  seconds = np.array([9, 1, 5, 2, 8, 3, 7, 4, 1000.0])
  assert measure.summarize(seconds) == measure.Timing(5.0, 3.0, 8.0, 9)
  assert measure.summarize(np.array([0.5])) == measure.Timing(0.5, 0.5, 0.5, 1)


def test_summarizes_interleaved_calls():
  calls = []
  seconds = measure.interleaved_seconds(
    {name: lambda name=name: calls.append(name) for name in 'ab'}, rounds=3, warmup=1
  )
  assert ''.join(calls) == 'ab' + 'ababab'
  assert all(measure.summarize(s).calls == 3 for s in seconds.values())


@pytest.mark.parametrize('seconds', [[], [1.0, np.nan], [[1.0]]])
def test_times_that_are_none_are_refused(seconds):
  with pytest.raises(ValueError, match='seconds=.*allowed'):
    measure.summarize(np.array(seconds))
