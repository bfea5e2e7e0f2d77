"""What `experiments.vip` shows and writes: progress, tables, plot."""

import contextlib
import statistics
from typing import Any

import rich.console
import rich.progress
import rich.table

from cnnopt_jax import report
from experiments.common import reports, run_folder

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
  'lost_to_control_points',
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


class Progress:
  """One bar a stage; a line a stage off a terminal."""

  def __init__(self):
    self._console = rich.console.Console()
    self._bar = rich.progress.Progress(
      rich.progress.TextColumn('{task.description}'),
      rich.progress.BarColumn(),
      rich.progress.TaskProgressColumn(),
      rich.progress.TimeElapsedColumn(),
      rich.progress.TextColumn('left'),
      rich.progress.TimeRemainingColumn(),
      console=self._console,
      disable=not self._console.is_terminal,
    )

  def __enter__(self):
    self._bar.start()
    return self

  def __exit__(self, *exc):
    self._bar.stop()

  @contextlib.contextmanager
  def stage(self, description: str, total: int):
    """Yields a function that takes how much of `total` is done."""
    if not self._console.is_terminal:
      self._console.print(description, soft_wrap=True)
    task = self._bar.add_task(description, total=total)
    yield lambda done: self._bar.update(task, completed=done)


def points(run) -> list[dict[str, Any]]:
  """The knob: one row for the dense network and one for each round."""
  names = ['dense', *(f'round{i}' for i in range(1, run.config.rounds + 1))]
  cost = run.records['cost']['rows']
  dense = statistics.fmean(run.records['dense']['accuracies'])
  rows = []
  for name, costs in zip(names, cost):
    record = run.records[name]
    accuracies = record['accuracies']
    mean = statistics.fmean(accuracies)
    control = run.records.get(name.replace('round', 'control'))
    fine_tuned = control and statistics.fmean(control['accuracies'])
    rows.append(
      dict(
        name=name,
        model=run.config.model,
        width_multiplier=run.config.width_multiplier,
        bits=run.config.bits,
        virtual_units=len(record.get('plan', ())),
        plan='+'.join(record.get('plan', ())) or 'none',
        test_accuracy=mean,
        test_accuracy_std=statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        accuracy_lost_points=100 * (dense - mean),
        control_accuracy=fine_tuned,
        lost_to_control_points=fine_tuned and 100 * (fine_tuned - mean),
        accuracy_before_fine_tuning=statistics.fmean(record.get('accuracies_before', accuracies)),
        speedup=cost[0]['latency_ms'] / costs['latency_ms'],
        **costs,
      )
    )
  return rows


HEADER = (
  '',
  'virtual',
  'test accuracy',
  'lost, points',
  'to control',
  'untuned',
  'ms a batch',
  'speed-up',
  'MACs an image',
  'measured mJ',
  'modelled mJ',
  'maps written',
)


def _named(config) -> str:
  return config.model if config.bits == 32 else f'{config.model} with {config.bits}-bit weights'


def _row(run, point) -> tuple[str, ...]:
  spread = point['test_accuracy_std']
  measured = point['measured_energy_mj']
  return (
    point['name'],
    f'{point["virtual_units"]} of {len(run.units)}',
    f'{point["test_accuracy"]:.4f}' + ('' if spread is None else f' ± {spread:.4f}'),
    f'{point["accuracy_lost_points"]:+.2f}',
    _signed(point['lost_to_control_points']),
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


def sensitivity_rows(run) -> list[tuple[str, ...]]:
  """Units in the order in which they become virtual."""
  losses, saved = run.records['sensitivity']['losses'], run.records['latency']['saved_ms']
  plans, rows = run.plans(), []
  for unit in plans[-1]:
    i = run.units.index(unit)
    first = next(number for number, plan in enumerate(plans, 1) if unit in plan)
    rows.append((unit, f'{100 * losses[i]:+.2f}', f'{saved[i]:+.2f}', f'round{first}'))
  return rows


def verdicts(run) -> list[str]:
  """What the run found, in sentences, whichever way it fell."""
  random = run.records['random']
  d = random['difference']
  way = (
    'more accurate'
    if d['low'] > 0
    else 'less accurate'
    if d['high'] < 0
    else 'neither more nor less accurate, as far as these images can tell,'
  )
  same = statistics.fmean(a / b for a, b in zip(random['random_ms'], random['ordered_ms']))
  found = [
    f'Before fine-tuning, the order is {way} than {len(random["plans"])} random plans of as many '
    f'units: {100 * d["mean"]:+.2f} points, 95 % interval [{100 * d["low"]:+.2f}, '
    f'{100 * d["high"]:+.2f}] over images, paired; random plans take {same:.2f} times its time.'
  ]
  cheap = [p for p in points(run)[1:] if p['accuracy_lost_points'] <= 1.5]
  if cheap:
    best = max(cheap, key=lambda p: p['speedup'])
    found.append(
      f'The fastest round that loses at most 1.5 points is {best["name"]}: '
      f'{best["speedup"]:.2f} times as fast as the dense network at batch '
      f'{run.config.timing_batch}, {best["accuracy_lost_points"]:+.2f} points lost'
      + (
        f' ({best["lost_to_control_points"]:+.2f} to the dense network fine-tuned as long)'
        if run.config.control
        else ''
      )
      + f', mean of {len(run.config.seeds)} seeds.'
    )
  else:
    found.append('No round loses at most 1.5 points.')
  return found


def write(run) -> None:
  """Rebuilds results.csv, report.md and pareto.png from the records."""
  rows = points(run)
  run_folder.write_atomically(run.workdir / run_folder.RESULTS, report.to_csv(rows, COLUMNS))
  reports.write(run.workdir, _markdown(run, rows), run.environment)
  report.tradeoff(
    run.workdir / 'pareto.png',
    [
      report.Series(
        'rounds',
        *zip(
          *((p['latency_ms'], p['test_accuracy'], p['test_accuracy_std'] or 0.0) for p in rows[1:])
        ),
      ),
      report.Series(
        'dense',
        [rows[0]['latency_ms']],
        [rows[0]['test_accuracy']],
        [rows[0]['test_accuracy_std'] or 0.0],
        reference=True,
      ),
    ],
    xlabel=f'measured latency of a batch of {run.config.timing_batch}, ms',
    ylabel='test accuracy',
    title=f'{_named(run.config)} on {run.config.dataset}, mean and std over seeds',
  )


def _markdown(run, rows) -> list[str]:
  config = run.config
  parts = [f'# Virtual pooling of {_named(config)} on {config.dataset}\n']
  parts += [sentence + '\n' for sentence in verdicts(run)]
  parts.append('## The knob\n\n' + report.to_markdown([_row(run, p) for p in rows], HEADER))
  reason = run.records['cost']['energy_not_measured']
  parts.append(
    'Accuracy is the mean over seeds ± standard deviation; "untuned" is the same plan before its '
    f'fine-tuning. Each round trains for {config.fine_tune_epochs} epochs more than the one '
    'before it, and that alone can gain accuracy: "lost" is against the dense network as it was '
    'first trained, "to control" against the dense network fine-tuned just as long. Energy '
    'is that of one image. '
    + (f'It was not measured ({reason}). ' if reason else '')
    + 'Modelled energy is no measurement: it charges 4.6 pJ for a float32 multiply-accumulate '
    'and 244 pJ for a byte of DRAM (Horowitz, ISSCC 2014, 45 nm), each map and weight moved '
    'once. "Maps written" counts the virtual maps that something needed in full.\n'
  )
  parts.append('![accuracy against latency](pareto.png)\n')
  parts.append(
    '## Each unit alone, without fine-tuning\n\n'
    + report.to_markdown(sensitivity_rows(run), ('unit', 'points lost', 'ms saved', 'virtual from'))
  )
  parts.append(
    f'On {config.sensitivity_images} training images, mean over seeds; units in the order of '
    'accuracy lost per millisecond saved.\n'
  )
  parts.append(
    '## Random plans\n\n'
    + report.to_markdown(
      _random_rows(run),
      (
        'random plan of',
        'its accuracy',
        "the order's",
        'difference, points',
        '95 % interval',
        'its ms',
        "the order's ms",
      ),
    )
  )
  parts.append(
    '## Error bound, equal weights\n\n'
    + report.to_markdown(
      _bound_rows(run),
      (
        'unit',
        'error / output',
        'a priori',
        'a posteriori',
        'trivial',
        'smallest',
        'worst image',
        'network',
      ),
    )
  )
  parts.append(
    'Columns from "a priori" on are bounds over the true error, medians over '
    f'{config.bound_images} test images, in float64: each unit virtual alone, on its dense '
    'input. "Trivial" is the sum of the norms of both outputs. "Network" bounds the distance '
    'of the all-virtual network by Lipschitz constants: its ratio shows that it says nothing '
    'after a few units. '
    f'{sum(r["violations"] for r in run.records["bound"]["rows"])} violations. The bound '
    'compares equal weights only: it says nothing about accuracy, least of all after '
    'fine-tuning.\n'
  )
  return parts


def _random_rows(run) -> list[tuple[str, ...]]:
  r = run.records['random']
  columns = zip(
    r['plans'],
    r['random_accuracy'],
    r['ordered_accuracy'],
    r['differences'],
    r['random_ms'],
    r['ordered_ms'],
  )
  return [
    (
      f'{len(plan)} units',
      f'{theirs:.4f}',
      f'{ours:.4f}',
      f'{100 * d["mean"]:+.2f}',
      f'{100 * d["low"]:+.2f} to {100 * d["high"]:+.2f}',
      f'{a:.2f}',
      f'{b:.2f}',
    )
    for plan, theirs, ours, d, a, b in columns
  ]


def _bound_rows(run) -> list[tuple[str, ...]]:
  record = run.records['bound']
  chain = record['chain'] or [None] * len(record['rows'])
  show = lambda value: '-' if value is None else f'{value:.2f}' if value < 100 else f'{value:.3g}'
  return [
    (
      r['layer'],
      *(show(r[key]) for key in ('error', 'a_priori', 'a_posteriori', 'trivial', 'ratio', 'worst')),
      show(ratio),
    )
    for r, ratio in zip(record['rows'], chain)
  ]


def show(run) -> None:
  """Prints the knob, what was found, and where the results are."""
  shown = [
    i
    for i, name in enumerate(HEADER)
    if name not in ('untuned', 'ms a batch', 'measured mJ', 'modelled mJ', 'maps written')
  ]
  table = rich.table.Table(
    *(HEADER[i] for i in shown), title=f'{_named(run.config)} on {run.config.dataset}'
  )
  for point in points(run):
    row = _row(run, point)
    table.add_row(*(row[i] for i in shown))
  rich.console.Console().print(table)
  for sentence in verdicts(run):
    print(sentence)
  print(
    f'results: {run.workdir / run_folder.RESULTS}, {run.workdir / run_folder.REPORT}, '
    f'{run.workdir / "pareto.png"}'
  )
