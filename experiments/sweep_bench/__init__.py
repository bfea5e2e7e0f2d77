"""How fast sweeps train: against PyTorch, over cores, and against other ways to map members.

    python -m experiments.sweep_bench --config configs/sweep_bench.py --workdir runs/sweep_bench
    python -m experiments.sweep_bench --config.peers=torch

A job is one training step (forward, backward, update) of several networks: the six of the default
sweep, and ResNet-20 at two bitwidths. Timed in turn in one run are the job on all cores and on
fewer, in float, and, with `peers`, in PyTorch: eager and compiled, in one process with all threads
and in one process a core with one thread each, with the same shapes, initial weights, quantizer,
optimizer and data in memory. The losses of all must agree first.

Four ways to take one step of members of one shape follow: the sweep's program; one compiled
single-member step called for each member; plain `jax.vmap` of the step with
`jax.lax.conv_general_dilated`, whose batching rule makes grouped convolutions; and plain `jax.vmap`
of the step with this library's convolution. And the memory of the sweep's program, which computes
its members one by one on a CPU: it grows by a member's state.
"""

import contextlib
import functools
import pathlib
from typing import Any

import jax
import numpy as np
from ml_collections import config_dict

from cnnopt_jax import measure, models
from experiments.common import cores, reports
from experiments.common.fields import integer, number, one_of, tuple_of
from experiments.sweep_bench import jobs, torch_peer
from experiments.sweep_bench.mapped import Sweep

SPEC = {
  'peers': tuple_of(one_of('torch'), min_length=0),
  'jobs': tuple_of(one_of('sweep', 'resnet20'), min_length=0),
  'devices': integer(0, cores.MOST_DEVICES),
  'model': one_of(*models.MODELS),
  'width_multiplier': number(0, above=True),
  'image_size': integer(8),
  'members': integer(2),
  'batch_size': integer(1),
  'rounds': integer(1),
}

JOBS = {
  # Bitwidths and widths of the default sweep, configs/quant_sweep.py.
  'sweep': jobs.Job(
    'plain',
    (28, 28, 1),
    64,
    ((1, 0.859), (2, 0.635), (3, 0.526), (4, 0.462), (8, 0.33), (32, 0.33)),
    steps=5,
  ),
  'resnet20': jobs.Job('resnet20', (32, 32, 3), 128, ((2, 1.0), (4, 1.0)), steps=1),
}

# Losses of the first two steps: the same sums in another order, and after a step a few weights on
# the other side of a threshold.
_LOSS_TOLERANCE = 0.02


def run(config: config_dict.ConfigDict, workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Times the jobs and the four ways, and writes bench.json and report.md.

  Args:
    config: with the fields of `SPEC`, checked.
    workdir: folder of the result.

  Returns:
    The rows of bench.json.
  """
  devices = cores.devices(config.devices)
  peers = 'torch' in config.peers
  if peers and not torch_peer.is_installed():
    print("config.peers: torch is not installed (pip install -e '.[peers]'); the rest runs")
    peers = False
  rows = []
  for name in config.jobs:
    rows += _job_rows(name, JOBS[name], devices, config, peers)
  rows += _mapped_rows(config)
  reports.write_bench(workdir, rows)
  reports.write(workdir, ['# Throughput of sweeps\n', reports.bench_table(rows)])
  return rows


def _job_rows(name: str, job: jobs.Job, devices, config, peers: bool) -> list[dict[str, Any]]:
  """Times a job in all its forms."""
  counts = [2**k for k in range(len(devices).bit_length()) if 2**k < len(devices)]
  ours = {f'{count}_devices': jobs.Ours(job, devices[:count]) for count in counts}
  ours['ours'] = jobs.Ours(job, devices)
  ours['float'] = jobs.Ours(job, devices, quantized=False)
  with contextlib.ExitStack() as stack:
    forms = dict(ours)
    if peers:
      networks = jobs.networks(job)
      for form_name, form in torch_peer.forms().items():
        forms[form_name] = torch_peer.Peer(job, networks, form)
        stack.callback(forms[form_name].close)
    _check_losses(name, {form: forms[form] for form in forms if form != 'float'})
    seconds = measure.interleaved_seconds(
      {form: functools.partial(forms[form].take, job.steps) for form in forms},
      rounds=config.rounds,
    )
  return _rows_of_a_job(name, seconds, job.steps, len(devices))


def _check_losses(name: str, forms: dict[str, Any]) -> None:
  """Raises RuntimeError unless every form has the same losses in its first two steps."""
  found = {}
  for form, trainer in forms.items():
    if isinstance(trainer, jobs.Ours):
      trainer.take(2)
      found[form] = trainer.losses()
    else:
      first, second = trainer.losses(), trainer.losses()
      found[form] = {index: first[index] + second[index] for index in first}
  for form, losses in found.items():
    for index, loss in losses.items():
      expected = found['ours'][index]
      if not abs(loss - expected) <= _LOSS_TOLERANCE * expected:
        raise RuntimeError(
          f'job {name}, network {index}: {form} has loss {loss} after two steps, ours {expected}'
        )


def _rows_of_a_job(name: str, seconds: dict[str, np.ndarray], steps: int, devices: int):
  """Ratios of medians, then the medians."""
  timings = {form: measure.summarize(s / steps) for form, s in seconds.items()}
  ours = timings['ours'].median_s
  peers = {form: t.median_s for form, t in timings.items() if form.startswith('torch')}

  def ratio(what, value):
    return dict(name=f'{name}: {what}', value=value, unit='ratio', devices=devices)

  rows = []
  if peers:
    best = min(peers, key=lambda form: peers[form])
    rows.append({**ratio('throughput_vs_torch_best', peers[best] / ours), 'best': best})
    rows += [ratio(f'throughput_vs_{form}', peers[form] / ours) for form in peers]
  rows.append(ratio('quant_step_vs_float_step', ours / timings['float'].median_s))
  by_count = {
    n: timings[form].median_s for n in range(1, devices) if (form := f'{n}_devices') in timings
  }
  by_count[devices] = ours
  rows += [
    ratio(f'scaling_{n}_devices_over_1', by_count[1] / t) for n, t in by_count.items() if n > 1
  ]
  return rows + [_milliseconds(f'{name}: {form}_step', t) for form, t in timings.items()]


def _milliseconds(name: str, timing: measure.Timing) -> dict[str, Any]:
  return dict(
    name=name,
    value=1e3 * timing.median_s,
    unit='ms',
    p25=round(1e3 * timing.lower_quartile_s, 2),
    p75=round(1e3 * timing.upper_quartile_s, 2),
  )


def _mapped_rows(config) -> list[dict[str, Any]]:
  """Times the four ways: ratios of medians, then the medians."""
  sweep = Sweep(config)
  seconds = measure.interleaved_seconds(
    {
      'sweep': sweep.sweep(),
      'loop': sweep.one_by_one(),
      'plain_vmap': sweep.vmapped('lax'),
      'conv_rule': sweep.vmapped(None),
    },
    rounds=config.rounds,
  )
  timings = {name: measure.summarize(s) for name, s in seconds.items()}
  setting = dict(
    members=config.members, batch_size=config.batch_size, device=jax.devices()[0].device_kind
  )
  ratios = {
    'throughput_vs_loop': ('loop', 'sweep'),
    'throughput_vs_plain_vmap': ('plain_vmap', 'sweep'),
    'conv_rule_vs_plain_vmap': ('plain_vmap', 'conv_rule'),
  }
  rows = [
    dict(name=name, value=timings[slow].median_s / timings[fast].median_s, unit='ratio', **setting)
    for name, (slow, fast) in ratios.items()
  ]
  rows += [_milliseconds(f'{name}_step', t) | setting for name, t in timings.items()]
  return rows + [
    dict(name=f'memory_of_{count}_members', value=sweep.mib(count), unit='MiB')
    for count in (1, config.members)
  ]
