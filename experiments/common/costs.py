"""What a run costs besides what it is for: time, of which compiling, and memory."""

import os
import resource
import time

import jax

_COMPILING = '/jax/core/compile/backend_compile_duration'


class Costs:
  """Counts from its making on; one a process."""

  def __init__(self):
    self._start = time.perf_counter()
    self._compiling = 0.0
    jax.monitoring.register_event_duration_secs_listener(self._add)

  def _add(self, event: str, seconds: float, **_) -> None:
    if event == _COMPILING:
      self._compiling += seconds  # Threads may race for a fraction of a second.

  def sentence(self) -> str:
    """Seconds so far, those of all threads that compiled, and the most memory in use."""
    seconds = time.perf_counter() - self._start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # Linux counts in KiB.
    return (
      f'This process took {seconds:.0f} s on {len(os.sched_getaffinity(0))} cores and '
      f'{peak:.1f} GB at most; its threads compiled for {self._compiling:.0f} s in all.'
    )
