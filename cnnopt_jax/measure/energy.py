"""Joules per call of a function, as a meter counts them."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from cnnopt_jax.measure.meters import Meter, NotMeasured


class MeasuredEnergy(NamedTuple):
  """Energy of the metered hardware while a function ran, with what it takes when idle.

  Attributes:
    source: 'rapl' or 'nvml'.
    measured_energy_j: joules of one call, all domains: the median over rounds.
    lower_quartile_j: the same, exceeded by three quarters of the rounds.
    upper_quartile_j: the same, exceeded by a quarter of the rounds.
    domains_j: joules of one call for each domain, the mean over all calls.
    power_w: mean power during the calls, all domains.
    idle_power_w: mean power while this process slept. It is part of `power_w` and of the joules.
    calls: calls measured.
    seconds: how long they took.
  """

  source: str
  measured_energy_j: float
  lower_quartile_j: float
  upper_quartile_j: float
  domains_j: dict[str, float]
  power_w: float
  idle_power_w: float
  calls: int
  seconds: float


def measure_energy(
  function: Callable[[], Any],
  meter: Meter | NotMeasured,
  *,
  seconds: float = 5.0,
  rounds: int = 5,
  idle_seconds: float = 2.0,
  warmup: int = 2,
) -> MeasuredEnergy | NotMeasured:
  """Measures joules per call, warm and synchronised.

  Every round calls the function until its share of the time is over, at least once, and reads the
  meter before and after. Rounds must be long against a counter's step, which is about a
  millisecond for RAPL and up to a tenth of a second for NVML, and short against its turn, which is
  minutes for RAPL.

      energy = measure_energy(lambda: step(params, images), find_meter())
      print(energy.source, energy.measured_energy_j)

  Args:
    function: runs what is measured and returns arrays, which are waited for.
    meter: what `find_meter` found.
    seconds: the least time for all rounds together.
    rounds: how many.
    idle_seconds: how long to sleep for `idle_power_w`, after the warm-up.
    warmup: calls before, to compile and to fill caches.

  Returns:
    The measurement, or the reason why there is none: that of the meter, or that it stands still.

  Raises:
    ValueError: if a time is not positive, `rounds` is below 1 or `warmup` is negative.
  """
  for name, value in (('seconds', seconds), ('idle_seconds', idle_seconds)):
    if not 0 < value < np.inf:
      raise ValueError(f'{name}={value}; allowed: a finite number above 0')
  for name, value, least in (('rounds', rounds, 1), ('warmup', warmup, 0)):
    if value < least:
      raise ValueError(f'{name}={value}; allowed: an integer of at least {least}')
  if isinstance(meter, NotMeasured):
    return meter
  for _ in range(warmup):
    jax.block_until_ready(function())
  idle_j, idle_s, _ = _metered(meter, lambda: time.sleep(idle_seconds), idle_seconds)
  joules = np.zeros((rounds, len(meter.domains)))
  elapsed, calls = np.zeros(rounds), np.zeros(rounds, np.int64)
  for i in range(rounds):
    joules[i], elapsed[i], calls[i] = _metered(meter, function, seconds / rounds)
  if not joules.any():
    return NotMeasured(
      f'{meter.source}: the counters stood still for {elapsed.sum():.1f} s, as '
      'they do in some virtual machines'
    )
  lower, median, upper = np.quantile(joules.sum(1) / calls, (0.25, 0.5, 0.75))
  return MeasuredEnergy(
    source=meter.source,
    measured_energy_j=float(median),
    lower_quartile_j=float(lower),
    upper_quartile_j=float(upper),
    domains_j=dict(zip(meter.domains, (joules.sum(0) / calls.sum()).tolist())),
    power_w=float(joules.sum() / elapsed.sum()),
    idle_power_w=float(idle_j.sum() / idle_s),
    calls=int(calls.sum()),
    seconds=float(elapsed.sum()),
  )


def _metered(
  meter: Meter, function: Callable[[], Any], seconds: float
) -> tuple[np.ndarray, float, int]:
  """Calls a function until `seconds` are over: joules of each domain, seconds, calls."""
  calls, before, start = 0, meter.read(), time.perf_counter()
  while True:
    jax.block_until_ready(function())
    calls += 1
    elapsed = time.perf_counter() - start
    if elapsed >= seconds:
      return meter.joules(before, meter.read()), elapsed, calls
