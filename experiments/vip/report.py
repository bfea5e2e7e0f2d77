"""What `experiments.vip` shows and writes: tables, plot, sentences."""

import math
import statistics
from typing import Any

from rich import console, table

from cnnopt_jax import quant, report
from experiments.common import reports, run_folder
from experiments.vip import certificates, knob
from experiments.vip.plan import Setting
from experiments.vip.records import FineTuned, Results

COLUMNS = (
  'name',
  'model',
  'width_multiplier',
  'bits',
  'virtual_units',
  'plan',
  'test_accuracy',
  'test_accuracy_std',
  'accuracy_lost_points',
  'control_accuracy',
  'control_accuracy_std',
  'lost_to_control_points',
  'loss_at_most_points',
  'images_lost',
  'images_gained',
  'accuracy_before_fine_tuning',
  'latency_ms',
  'latency_p25_ms',
  'latency_p75_ms',
  'speedup',
  'macs',
  'energy_source',
  'measured_energy_mj',
  'modelled_energy_mj',
  'written_maps',
)


def points(setting: Setting, results: Results) -> list[dict[str, Any]]:
  """The knob, as rows of results.csv: one for the dense network and one for each round."""
  config, cost = setting.config, results.cost.rows
  dense = results.dense.accuracies
  measured = [('dense', FineTuned((), dense, dense), results.dense)]  # Its own control.
  controls = results.controls or (None,) * len(results.rounds)
  for i, (tuned, control) in enumerate(zip(results.rounds, controls), 1):
    measured.append((f'round{i}', tuned, control))
  rows = []
  certified = [None, *certificates.certify(results)]  # The dense network loses nothing to itself.
  for (name, tuned, control), costs, certificate in zip(measured, cost, certified):
    mean = statistics.fmean(tuned.accuracies)
    fine_tuned = control and statistics.fmean(control.accuracies)
    rows.append(
      dict(
        name=name,
        model=config.model,
        width_multiplier=config.width_multiplier,
        bits=config.bits,
        virtual_units=len(tuned.plan),
        plan='+'.join(tuned.plan) or 'none',
        test_accuracy=mean,
        test_accuracy_std=statistics.stdev(tuned.accuracies) if len(dense) > 1 else None,
        accuracy_lost_points=100 * (statistics.fmean(dense) - mean),
        control_accuracy=fine_tuned,
        control_accuracy_std=(
          statistics.stdev(control.accuracies) if control and len(dense) > 1 else None
        ),
        lost_to_control_points=fine_tuned and 100 * (fine_tuned - mean),
        loss_at_most_points=certificate and 100 * certificate.bound,
        images_lost=certificate and sum(certificate.lost),
        images_gained=certificate and sum(certificate.gained),
        accuracy_before_fine_tuning=statistics.fmean(tuned.accuracies_before),
        speedup=cost[0].latency_ms / costs.latency_ms,
        **costs._asdict(),
      )
    )
  return rows


HEADER = (
  '',
  'virtual',
  'test accuracy',
  'control',
  'lost, points',
  'at most',
  'to first dense',
  'untuned',
  'ms a batch',
  'speed-up',
  'MACs an image',
  'measured mJ',
  'modelled mJ',
  'maps written',
)


# Too wide for a terminal.
_IN_THE_REPORT_ALONE = (
  'control',
  'to first dense',
  'untuned',
  'ms a batch',
  'measured mJ',
  'modelled mJ',
  'maps written',
)
_CHEAP_POINTS = 1.5  # Accuracy that a round may lose to be called cheap.


def _named(config) -> str:
  if config.bits == quant.IDENTITY_BITS:
    return config.model
  return f'{config.model} with {config.bits}-bit weights'


def _row(setting: Setting, point: dict[str, Any]) -> tuple[str, ...]:
  spread = point['test_accuracy_std']
  measured = point['measured_energy_mj']
  return (
    point['name'],
    f'{point["virtual_units"]} of {len(setting.units)}',
    f'{point["test_accuracy"]:.4f}' + ('' if spread is None else f' ± {spread:.4f}'),
    '-' if point['control_accuracy'] is None else f'{point["control_accuracy"]:.4f}',
    _signed(point['lost_to_control_points']),
    _signed(point['loss_at_most_points']),
    f'{point["accuracy_lost_points"]:+.2f}',
    f'{point["accuracy_before_fine_tuning"]:.4f}',
    f'{point["latency_ms"]:.2f}',
    f'{point["speedup"]:.2f}',
    f'{point["macs"] / 1e6:.2f} M',
    'not measured' if measured is None else f'{measured:.3f} ({point["energy_source"]})',
    f'{point["modelled_energy_mj"]:.3f}',
    str(point['written_maps']),
  )


def _signed(points: float | None) -> str:
  return '-' if points is None else f'{points:+.2f}'


def verdicts(setting: Setting, results: Results) -> list[str]:
  """What the run found, in sentences, whichever way it fell."""
  found = [_order_verdict(results), _speed_verdict(setting, results)]
  return found + certificates.verdict(results)


def _order_verdict(results: Results) -> str:
  random = results.random
  d = random.difference
  if d.low > 0:
    way = 'more accurate'
  elif d.high < 0:
    way = 'less accurate'
  else:
    way = 'neither more nor less accurate, as far as these images can tell,'
  same = statistics.fmean(a / b for a, b in zip(random.random_ms, random.ordered_ms))
  return (
    f'Before fine-tuning, the order is {way} than {len(random.plans)} random plans of as many '
    f'units: {100 * d.mean:+.2f} points, 95 % interval [{100 * d.low:+.2f}, '
    f'{100 * d.high:+.2f}] over images, paired; random plans take {same:.2f} times its time.'
  )


def _speed_verdict(setting: Setting, results: Results) -> str:
  """The fastest round that loses little to its control; to the first dense one if there is none."""
  config = setting.config
  rounds = points(setting, results)[1:]
  if config.control:
    key, against = 'lost_to_control_points', certificates.CONTROL
  else:
    key, against = 'accuracy_lost_points', 'the dense network as first trained (no control was run)'
  cheap = [p for p in rounds if p[key] <= _CHEAP_POINTS]
  if not cheap:
    least = min(rounds, key=lambda p: p[key])
    return (
      f'No round loses at most {_CHEAP_POINTS} points to {against}; the least is '
      f'{least[key]:+.2f}, by {least["name"]}.'
    )
  best = max(cheap, key=lambda p: p['speedup'])
  to_first = (
    f' ({best["accuracy_lost_points"]:+.2f} to the dense network as first trained)'
    if config.control
    else ''
  )
  return (
    f'The fastest round that loses at most {_CHEAP_POINTS} points to {against} is {best["name"]}: '
    f'{best["speedup"]:.2f} times as fast as the dense network at batch '
    f'{config.timing_batch}, {best[key]:+.2f} points lost{to_first}'
    f', mean of {len(config.seeds)} seeds.'
  )


def write(setting: Setting, results: Results, environment: dict[str, Any]) -> None:
  """Rebuilds results.csv, report.md and pareto.png from what the stages found."""
  rows, workdir = points(setting, results), setting.workdir
  report.write_atomically(workdir / run_folder.RESULTS, report.to_csv(rows, COLUMNS))
  reports.write(workdir, _markdown(setting, results, rows), environment)
  report.tradeoff(
    workdir / 'pareto.png',
    knob.series(setting, rows),
    xlabel=f'measured latency of a batch of {setting.config.timing_batch}, ms',
    ylabel='test accuracy',
    title=f'{_named(setting.config)} on {setting.config.dataset}, mean and std over seeds',
  )


def _markdown(setting: Setting, results: Results, rows: list[dict[str, Any]]) -> list[str]:
  config = setting.config
  table_of_rounds = report.to_markdown([_row(setting, p) for p in rows], HEADER)
  return [
    f'# Virtual pooling of {_named(config)} on {config.dataset}\n',
    *(sentence + '\n' for sentence in verdicts(setting, results)),
    f'## The knob\n\n{table_of_rounds}',
    _knob_note(config, results.cost.energy_not_measured),
    '![accuracy against latency](pareto.png)\n',
    *certificates.part(results),
    f'## Each unit alone, without fine-tuning\n\n{_sensitivity_table(setting, results)}',
    f'On {config.sensitivity_images} training images, mean over seeds; units in the order of '
    'accuracy lost per millisecond saved.\n',
    f'## Random plans\n\n{_random_table(results)}',
    f'## Error bound, equal weights\n\n{_bound_table(results)}',
    _bound_note(config, results),
  ]


def _knob_note(config, not_measured: str) -> str:
  return (
    'Accuracy is the mean over seeds ± standard deviation; "untuned" is the same plan before its '
    f'fine-tuning. Each round trains for {config.fine_tune_epochs} epochs more than the one '
    'before it, and that alone can gain accuracy: "lost" is therefore against the "control", the '
    'dense network fine-tuned just as long, "to first dense" against the dense network as it was '
    'first trained. "At most" bounds the loss to the control, see below. Energy is that of one '
    'image. '
    + (f'It was not measured ({not_measured}). ' if not_measured else '')
    + 'Modelled energy is no measurement: it charges 4.6 pJ for a float32 multiply-accumulate '
    'and 244 pJ for a byte of DRAM (Horowitz, ISSCC 2014, 45 nm), each map and weight moved '
    'once. "Maps written" counts the virtual maps that something needed in full.\n'
  )


def _sensitivity_table(setting: Setting, results: Results) -> str:
  """Units in the order in which they become virtual."""
  losses, saved = results.sensitivity.losses, results.latency.saved_ms
  plans, rows = [tuned.plan for tuned in results.rounds], []
  for unit in plans[-1]:
    i = setting.units.index(unit)
    first = next(number for number, plan in enumerate(plans, 1) if unit in plan)
    rows.append((unit, f'{100 * losses[i]:+.2f}', f'{saved[i]:+.2f}', f'round{first}'))
  return report.to_markdown(rows, ('unit', 'points lost', 'ms saved', 'virtual from'))


def _random_table(results: Results) -> str:
  r = results.random
  columns = zip(
    r.plans, r.random_accuracy, r.ordered_accuracy, r.differences, r.random_ms, r.ordered_ms
  )
  rows = [
    (
      f'{len(plan)} units',
      f'{theirs:.4f}',
      f'{ours:.4f}',
      f'{100 * d.mean:+.2f}',
      f'{100 * d.low:+.2f} to {100 * d.high:+.2f}',
      f'{their_ms:.2f}',
      f'{our_ms:.2f}',
    )
    for plan, theirs, ours, d, their_ms, our_ms in columns
  ]
  header = (
    'random plan of',
    'its accuracy',
    "the order's",
    'difference, points',
    '95 % interval',
    'its ms',
    "the order's ms",
  )
  return report.to_markdown(rows, header)


def _bound_table(results: Results) -> str:
  chain = results.bound.chain or (math.nan,) * len(results.bound.rows)
  rows = [
    (
      r.layer,
      *map(_ratio, (r.error, r.a_priori, r.a_posteriori, r.trivial, r.ratio, r.worst, network)),
    )
    for r, network in zip(results.bound.rows, chain)
  ]
  header = (
    'unit',
    'error / output',
    'a priori',
    'a posteriori',
    'trivial',
    'smallest',
    'worst image',
    'network',
  )
  return report.to_markdown(rows, header)


def _ratio(value: float) -> str:
  if math.isnan(value):
    return '-'
  return f'{value:.2f}' if value < 100 else f'{value:.3g}'


def _bound_note(config, results: Results) -> str:
  return (
    'Columns from "a priori" on are bounds over the true error, medians over '
    f'{config.bound_images} test images, in float64: each unit virtual alone, on its dense '
    'input. "Trivial" is the sum of the norms of both outputs. "Network" bounds the distance '
    'of the all-virtual network by Lipschitz constants: its ratio shows that it says nothing '
    'after a few units. '
    f'{sum(r.violations for r in results.bound.rows)} violations. The bound '
    'compares equal weights only: it says nothing about accuracy, least of all after '
    'fine-tuning.\n'
  )


def show(setting: Setting, results: Results) -> None:
  """Prints the knob, what was found, and where the results are."""
  shown = [i for i, name in enumerate(HEADER) if name not in _IN_THE_REPORT_ALONE]
  config, workdir = setting.config, setting.workdir
  out = table.Table(*(HEADER[i] for i in shown), title=f'{_named(config)} on {config.dataset}')
  for point in points(setting, results):
    row = _row(setting, point)
    out.add_row(*(row[i] for i in shown))
  console.Console().print(out)
  for sentence in verdicts(setting, results):
    print(sentence)
  print(
    f'results: {workdir / run_folder.RESULTS}, {workdir / run_folder.REPORT}, '
    f'{workdir / "pareto.png"}'
  )
