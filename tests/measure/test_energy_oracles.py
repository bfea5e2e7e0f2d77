"""Power of calls that outlast the time asked for."""

import pytest

from cnnopt_jax import measure
from tests.measure.test_energy import Machine


def test_power_is_over_the_time_that_passed_not_the_time_asked_for(monkeypatch):
  machine = Machine(monkeypatch, call_s=0.75)
  result = measure.measure_energy(machine.work, machine.meter(), seconds=1, rounds=2)
  # Each round asks for half a second and takes one call of 0.75 s: 7.5 J idle and 3 J of work.
  assert (result.calls, result.seconds) == (2, 1.5)
  assert result.power_w == pytest.approx(10.5 / 0.75, abs=1e-4)
