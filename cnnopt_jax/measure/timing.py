"""Wall-clock times that can be compared."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np


class Timing(NamedTuple):
  """What some calls took.

  Attributes:
    median_s: the time that half of them took at most, in seconds.
    lower_quartile_s: the same for a quarter of them.
    upper_quartile_s: the same for three quarters.
    calls: how many there were.
  """

  median_s: float
  lower_quartile_s: float
  upper_quartile_s: float
  calls: int


def summarize(seconds: np.ndarray) -> Timing:
  """Median and quartiles, interpolated between calls.

  Args:
    seconds: of each call, [calls], as `interleaved_seconds` measures them.

  Returns:
    The summary.

  Raises:
    ValueError: if there is no call or a time that is no number.
  """
  seconds = np.asarray(seconds, np.float64)
  if seconds.ndim != 1 or not seconds.size or not np.isfinite(seconds).all():
    raise ValueError(f'seconds={seconds}; allowed: one finite number for each of at least 1 call')
  lower, median, upper = np.quantile(seconds, (0.25, 0.5, 0.75))
  return Timing(float(median), float(lower), float(upper), seconds.size)


def interleaved_seconds(
  functions: Mapping[str, Callable[[], Any]], *, rounds: int, warmup: int = 2
) -> dict[str, np.ndarray]:
  """Times functions in turn, so that whatever slows the machine slows all of them.

  Each round has an order of its own: a call pays for the caches and the memory that the one before
  it leaves, and none should always follow the same.

  Args:
    functions: each runs what is measured and returns arrays, which are waited for.
    rounds: measured calls of each.
    warmup: calls of each before, to compile and to fill caches.

  Returns:
    Seconds of each call, [rounds], by name.
  """
  for function in functions.values():
    for _ in range(warmup):
      jax.block_until_ready(function())
  seconds = {name: np.zeros(rounds) for name in functions}
  rng, names = np.random.default_rng(0), list(functions)
  for i in range(rounds):
    for name in (names[k] for k in rng.permutation(len(names))):
      start = time.perf_counter()
      jax.block_until_ready(functions[name]())
      seconds[name][i] = time.perf_counter() - start
  return seconds
