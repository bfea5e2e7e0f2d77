"""Times programs in turn, each in its fastest form."""

from typing import Any

import jax

from cnnopt_jax import measure
from experiments.vip_bench.programs import Program

_TRIAL_ROUNDS, _IN_THE_RUNNING = 3, 1.2  # Forms this much slower than the best leave.


class Bench:
  """Times groups of programs, and turns medians into rows."""

  def __init__(self, config):
    self.rows = []
    self._setting = dict(
      batch_size=config.batch_size,
      image_size=config.image_size,
      device=jax.devices()[0].device_kind,
    )

  def compare(
    self, programs: dict[str, dict[str, Program]], ratios: dict[str, tuple], rounds: int
  ) -> None:
    """Times programs in turn, each in its fastest form.

    Forms that three rounds show to be slow are left out of the rounds that count; of the others,
    the fastest by those is taken.

    Args:
      programs: by name and form.
      ratios: a row's name to the names of the programs divided; of several, the fastest.
      rounds: that count.
    """
    chosen = self._fastest_forms(programs, rounds)
    for name, (slow, fast) in ratios.items():
      slow = min(
        slow if isinstance(slow, tuple) else (slow,),
        key=lambda program: chosen[program][1].median_s,
      )
      self.rows.append(
        dict(
          name=name,
          value=chosen[slow][1].median_s / chosen[fast][1].median_s,
          unit='ratio',
          dense_form=f'{slow}, {chosen[slow][0]}',
          form=chosen[fast][0],
          **self._setting,
        )
      )
    for name, (form, t) in chosen.items():
      self.rows.append(
        dict(
          name=f'{name}_ms',
          value=1e3 * t.median_s,
          unit='ms',
          p25=round(1e3 * t.lower_quartile_s, 1),
          p75=round(1e3 * t.upper_quartile_s, 1),
          form=form,
        )
      )

  def _fastest_forms(
    self, programs: dict[str, dict[str, Program]], rounds: int
  ) -> dict[str, tuple[str, measure.Timing]]:
    """The fastest form of each program, and its time."""
    every = {
      (name, form): program for name, forms in programs.items() for form, program in forms.items()
    }
    tried = _time(every, _TRIAL_ROUNDS)
    best = {
      name: min(tried[name, form].lower_quartile_s for form in forms)
      for name, forms in programs.items()
    }
    in_the_running = {
      key: program
      for key, program in every.items()
      if tried[key].lower_quartile_s <= _IN_THE_RUNNING * best[key[0]]
    }
    chosen = {}
    for (name, form), t in _time(in_the_running, rounds).items():
      print(f'{name}, {form}: {1e3 * t.median_s:.1f} ms', flush=True)
      if name not in chosen or t.median_s < chosen[name][1].median_s:
        chosen[name] = form, t
    return chosen


def _time(programs: dict[Any, Program], rounds: int) -> dict[Any, measure.Timing]:
  seconds = measure.interleaved_seconds(programs, rounds=rounds)
  return {name: measure.summarize(s) for name, s in seconds.items()}
