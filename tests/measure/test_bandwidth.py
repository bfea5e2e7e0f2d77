"""Calls back to back, the bandwidth of a copy, and a batch over cores."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cnnopt_jax import measure


@pytest.mark.parametrize('platform, per_round', [('cpu', 1), ('gpu', 999)])
def test_calls_of_a_round_follow_each_other_on_an_accelerator(platform, per_round):
  calls = {name: [] for name in 'ab'}
  functions = {name: functools.partial(list.append, calls[name]) for name in calls}
  # Far longer than 999 empty calls, the most of a round.
  seconds = measure.back_to_back_seconds(functions, rounds=3, platform=platform, round_seconds=1e3)
  assert seconds.keys() == calls.keys() and all(s.shape == (3,) for s in seconds.values())
  for numbers in calls.values():  # Two calls before, to compile and to see how long one is.
    assert numbers == [0, 0, *range(per_round), *range(per_round), *range(per_round)]


def test_bandwidth_is_bytes_read_and_written_a_second(monkeypatch):
  copied = []

  def timed(functions, *, rounds, platform):
    (function,) = functions.values()
    copied.append(function(0))
    return {'copy': np.array([1.0, 0.5, 2.0])}

  monkeypatch.setattr('cnnopt_jax.measure.bandwidth.back_to_back_seconds', timed)
  assert measure.copy_bandwidth(3) == pytest.approx(2 * copied[0].nbytes / 1.0)
  assert copied[0].nbytes == 1 << 26


def test_a_batch_over_cores_is_the_batch():
  """The tests' CPU has two devices (tests/conftest.py)."""
  x = jax.random.normal(jax.random.key(0), (6, 5))
  params = jnp.arange(5.0)
  split = measure.over_cores(lambda params, x: params * x, params, x)
  np.testing.assert_array_equal(split(), params * x)
  assert len(split().sharding.device_set) == 2
  mean = lambda params, x: lax.pmean(jnp.mean(params * x), 'batch')
  whole = measure.over_cores(mean, params, x, result=measure.WHOLE)
  np.testing.assert_allclose(whole(), jnp.mean(params * x), rtol=1e-6)


def test_where_there_is_nothing_to_split():
  double = lambda params, x: 2 * x
  assert measure.over_cores(double, (), jnp.ones((1, 5))) is None
  assert measure.over_cores(double, (), jnp.ones((3, 5))) is None
