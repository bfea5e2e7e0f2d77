"""Joules per call, with a clock and counters that the test moves."""

import numpy as np
import pytest

from cnnopt_jax import measure
from cnnopt_jax.measure import energy


class Machine:
  """Takes 10 W when idle, and 3 J more for each call of `work`, which lasts `call_s` seconds."""

  def __init__(self, monkeypatch, call_s=0.25):
    self.now, self.joules, self.call_s, self.log = 100.0, 7.0, call_s, []
    monkeypatch.setattr(energy, 'time', self)  # It stands in for the module.

  def perf_counter(self):
    return self.now

  def sleep(self, seconds):
    self.log.append('sleep')
    self.now += seconds
    self.joules += 10 * seconds

  def work(self):
    self.log.append('work')
    self.now += self.call_s
    self.joules += 10 * self.call_s + 3
    return np.zeros(2)

  def meter(self, limit_j=1e6):
    # Half of the energy in each of two domains, whose counters turn at `limit_j`.
    counter = lambda: round(self.joules / 2 * 1e6) % round(limit_j * 1e6)
    return measure.Meter(
      'rapl', ('a', 'b'), lambda: (counter(), counter()), 1e-6, (round(limit_j * 1e6),) * 2
    )


def test_joules_power_and_idle_power(monkeypatch):
  machine = Machine(monkeypatch)
  result = measure.measure_energy(
    machine.work, machine.meter(), seconds=4, rounds=2, idle_seconds=3, warmup=5
  )
  assert machine.log == ['work'] * 5 + ['sleep'] + ['work'] * 16
  assert (result.source, result.calls, result.seconds) == ('rapl', 16, 4.0)
  # 2.5 J of idle power and 3 J of work: the idle part is not taken away.
  assert result.measured_energy_j == pytest.approx(5.5, abs=1e-5)
  assert result.domains_j == pytest.approx({'a': 2.75, 'b': 2.75}, abs=1e-5)
  assert result.power_w == pytest.approx(22, abs=1e-4)
  assert result.idle_power_w == pytest.approx(10, abs=1e-5)


def test_counters_may_wrap_in_every_round(monkeypatch):
  machine = Machine(monkeypatch)
  # A round takes 8 calls, 44 J, half of it in each domain, and each counter turns at 23 J.
  result = measure.measure_energy(
    machine.work, machine.meter(23.0), seconds=10, rounds=5, idle_seconds=1
  )
  assert result.measured_energy_j == pytest.approx(5.5, abs=1e-5)


def test_a_long_call_is_measured_at_least_once_a_round(monkeypatch):
  machine = Machine(monkeypatch, call_s=60.0)
  result = measure.measure_energy(machine.work, machine.meter(), seconds=1, rounds=3, warmup=0)
  assert (result.calls, result.seconds) == (3, 180.0)


def test_the_median_and_the_quartiles_are_over_rounds(monkeypatch):
  machine = Machine(monkeypatch, call_s=1.0)
  extra = iter([0, 0, 40, 4, 2, 1, 3])  # Two warm calls, then one call a round.

  def work():
    machine.joules += next(extra)
    return machine.work()

  result = measure.measure_energy(work, machine.meter(), seconds=5, rounds=5)
  spread = (result.lower_quartile_j, result.measured_energy_j, result.upper_quartile_j)
  assert spread == pytest.approx((15, 16, 17), abs=1e-5)
  assert sum(result.domains_j.values()) == pytest.approx(13 + 50 / 5, abs=1e-5)  # The mean.


def test_without_a_meter_nothing_runs():
  missing = measure.NotMeasured('no counter here')
  result = measure.measure_energy(lambda: pytest.fail('ran'), missing)
  assert result is missing and result.measured_energy_j is None


def test_counters_that_stand_still_are_no_measurement(monkeypatch):
  machine = Machine(monkeypatch)
  still = machine.meter()._replace(read=lambda: (5, 5))
  result = measure.measure_energy(machine.work, still, seconds=2)
  assert result.source == 'not measured'
  assert result.reason.startswith('rapl: the counters stood still for 2.5 s')


@pytest.mark.parametrize(
  'wrong',
  [
    {'seconds': 0.0},
    {'idle_seconds': -1.0},
    {'rounds': 0},
    {'warmup': -1},
    {'seconds': float('nan')},
  ],
)
def test_wrong_settings_are_named(wrong):
  ((name, value),) = wrong.items()
  with pytest.raises(ValueError, match=f'{name}={value}; allowed'):
    measure.measure_energy(lambda: None, measure.NotMeasured(''), **wrong)
