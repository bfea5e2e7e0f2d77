"""The picture of a run: accuracy against latency, with the control."""

from typing import Any

from cnnopt_jax import report
from experiments.vip.plan import Setting


def series(setting: Setting, rows: list[dict[str, Any]]) -> list[report.Series]:
  """The plot: rounds, the dense network, and every control, which is as fast as that."""

  def spreads(shown):
    return [p['test_accuracy_std'] or 0.0 for p in shown]

  dense, rounds = rows[0], rows[1:]
  latencies, accuracies = ([p[key] for p in rounds] for key in ('latency_ms', 'test_accuracy'))
  names = [f'{p["name"]}, {p["virtual_units"]} of {len(setting.units)}' for p in rounds]
  at = [dense['latency_ms']]
  found = [
    report.Series('rounds', latencies, accuracies, spreads(rounds), names=names),
    report.Series(
      'dense, first trained', at, [dense['test_accuracy']], spreads([dense]), True, ['dense']
    ),
  ]
  for i, point in enumerate(rounds, 1):
    if point['control_accuracy'] is not None:
      label = 'dense, fine-tuned as long' if i == 1 else ''  # One line in the legend for all.
      spread = [point['control_accuracy_std'] or 0.0]
      found.append(
        report.Series(label, at, [point['control_accuracy']], spread, True, [f'control{i}'])
      )
  return found
