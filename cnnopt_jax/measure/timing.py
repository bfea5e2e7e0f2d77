"""Wall-clock times that can be compared."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np


def interleaved_seconds(functions: Mapping[str, Callable[[], Any]], *, rounds: int,
                        warmup: int = 2) -> dict[str, np.ndarray]:
  """Times functions in turn, so that whatever slows the machine slows all of them.

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
  for i in range(rounds):
    for name, function in functions.items():
      start = time.perf_counter()
      jax.block_until_ready(function())
      seconds[name][i] = time.perf_counter() - start
  return seconds
