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


def back_to_back_seconds(
  functions: Mapping[str, Callable[[int], Any]],
  *,
  rounds: int,
  platform: str | None = None,
  round_seconds: float = 0.02,
) -> dict[str, np.ndarray]:
  """Times functions in turn, where a call is shorter than its launch.

  On an accelerator the calls of a round follow each other on the device and only the last is
  waited for, so that launches overlap with work. On a CPU a round is one call.

  Args:
    functions: each takes the number of the call, to rotate its inputs, and returns arrays.
    rounds: measured rounds of each.
    platform: that the functions run on; None for JAX's default backend.
    round_seconds: about how long a round of one function is.

  Returns:
    Seconds of one call, the mean of each round, [rounds], by name.
  """
  on_cpu = (platform or jax.default_backend()) == 'cpu'
  calls = {}
  for name, function in functions.items():
    jax.block_until_ready(function(0))  # Compiles.
    start = time.perf_counter()
    jax.block_until_ready(function(0))
    once = time.perf_counter() - start
    calls[name] = 1 if on_cpu else int(np.clip(round_seconds / once, 1, 999))
  seconds = {name: np.zeros(rounds) for name in functions}
  for i in range(rounds):
    for name, function in functions.items():
      start = time.perf_counter()
      for call in range(calls[name]):
        out = function(call)
      jax.block_until_ready(out)
      seconds[name][i] = (time.perf_counter() - start) / calls[name]
  return seconds
