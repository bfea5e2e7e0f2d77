"""Measures L2 and DRAM transactions on a GPU with hardware counters, beside the traffic model's.

    python -m experiments.nvm_profile --config configs/nvm_profile.py --workdir runs/nvm_profile

Runs every workload once under Nsight Compute (`ncu`) or nvprof, whichever is on the PATH, after a
run that compiles: caches are kept between kernels, as in a run, and the clock is fixed. Where there
is no such tool, no GPU, or no right to read its counters, it says so in one line and exits with 1.

`profiles` compares finished profiles instead: names of CSV files, WORKLOAD.MODE.BATCH.csv or
WORKLOAD.MODE.BATCH.GPU.csv, or any names with what they cover in `profile_workload`,
`profile_mode`, `profile_batch` and `profile_gpu`. MODE says which part of the model is compared:
inference, training (a step with the update of SGD with momentum), forward, backward (the gradients
alone), or forward_backward. A profile of another GPU than `gpu`, whose kernels do not fit its mode,
or without any of the four counters is refused. A counter that the profile lacks is listed as
missing.

Writes `results.csv` and `report.md`. A total that the model misses by more than a factor of `bound`
is a warning on stderr and in the report, and with `strict` such a total, or a missing counter, ends
in exit code 3.
"""

import ctypes
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import config_dict

from cnnopt_jax import models, report, traffic
from experiments.common import fields, launch, profiles, reports, run_folder

SPEC = {
  'workloads': fields.tuple_of(fields.one_of(*models.MODELS)),
  'inference_batch': fields.integer(0, 4096),
  'training_batch': fields.integer(0, 4096),
  'gpu': fields.one_of(*traffic.GPUS),
  'profiles': profiles.FILES,
  **profiles.SPEC,
  'bound': fields.number(1, above=True),
  'strict': fields.boolean(),
}
COLUMNS = ('workload', 'mode', 'batch', 'counter', 'measured', 'predicted', 'error', 'verdict')
NO_COUNTERS, DISAGREES = 1, 3
MISSING, WITHIN, BEYOND = 'missing', 'within the bound', 'beyond the bound'
_METRICS = {
  'ncu': (
    'gpu__time_duration.sum',
    'lts__t_sectors_srcunit_tex_op_read.sum',
    'lts__t_sectors_srcunit_tex_op_write.sum',
    'lts__t_sectors_srcunit_tex_op_atom.sum',
    'lts__t_sectors_srcunit_tex_op_red.sum',
    'lts__t_sectors_op_read.sum',
    'lts__t_sectors_op_write.sum',
    'lts__t_sector_hit_rate.pct',
    'dram__sectors_read.sum',
    'dram__sectors_write.sum',
  ),
  'nvprof': (
    'l2_tex_read_transactions',
    'l2_tex_write_transactions',
    'l2_read_transactions',
    'l2_write_transactions',
    'l2_tex_hit_rate',
    'dram_read_transactions',
    'dram_write_transactions',
  ),
}
# ncu flushes all caches before each kernel unless told otherwise, and then no kernel finds what the
# one before it has left; clocks that boost make two runs differ.
_OPTIONS = {
  'ncu': ('--cache-control', 'none', '--clock-control', 'base'),
  'nvprof': ('--print-gpu-trace',),
}


class NoCountersError(Exception):
  """Why nothing can be measured here, in one line."""


def run(config: config_dict.ConfigDict, workdir: pathlib.Path) -> int:
  """Measures or reads profiles, compares, writes the files; returns the exit code."""
  try:
    found = profiles.read(config, 'profiles') if config.profiles else measure_all(config, workdir)
  except NoCountersError as error:
    print(f'not measured: {error}', file=sys.stderr)
    return NO_COUNTERS
  # All are checked before the first is predicted, which takes long.
  sums = [measured_of(profile) for profile in found]
  rows = [row for one, measured in zip(found, sums) for row in compare(config, one, measured)]
  run_folder.write_atomically(workdir / 'results.csv', report.to_csv(rows, COLUMNS))
  warnings = warnings_of(config, rows)
  parts = as_report(config, found, rows, warnings)
  reports.write(workdir, parts)
  run_folder.record(workdir, config)
  print('\n'.join(parts))
  for warning in warnings:
    print(f'warning: {warning}', file=sys.stderr)
  return DISAGREES if config.strict and any(r['verdict'] != WITHIN for r in rows) else 0


def warnings_of(config, rows: list[dict[str, Any]]) -> list[str]:
  """A line for each total beyond the bound."""
  return [
    f'{r["workload"]}.{r["mode"]}.{r["batch"]} {r["counter"]}: measured {r["measured"]:.4g}, '
    f'predicted {r["predicted"]:.4g}, beyond a factor of {config.bound:g}'
    for r in rows
    if r['verdict'] == BEYOND
  ]


def as_report(
  config, found: list[profiles.Profile], rows: list[dict[str, Any]], warnings: list[str]
) -> list[str]:
  """The lines of report.md."""
  shown = [
    [
      r['workload'],
      r['mode'],
      r['batch'],
      r['counter'],
      '-' if r['measured'] is None else f'{r["measured"]:.4g}',
      f'{r["predicted"]:.4g}',
      '-' if r['error'] is None else f'{100 * r["error"]:+.1f} %',
      r['verdict'],
    ]
    for r in rows
  ]
  about = []
  for one in found:
    seconds = traffic.total_of(one.launches, 'seconds')
    about.append(
      [
        one.path.name,
        sum(launch.launches for launch in one.launches),
        one.gpu or f'not said; taken for {config.gpu}',
        'not measured' if seconds is None else f'{1e3 * seconds:.4g}',
      ]
    )
  return [
    f'# Traffic model beside the counters of a {config.gpu}',
    '',
    'Sectors of 32 B; error: of the prediction, relative to the measurement. A profile is compared '
    f'with the same part of the model. Bound: a factor of {config.bound:g} either way.',
    '',
    report.to_markdown(shown, COLUMNS),
    report.to_markdown(about, ['profile', 'launches', 'GPU', 'ms of all launches']),
    *(f'**Warning**: {warning}.' for warning in warnings),
  ]


def cases(config):
  batches = {'inference': config.inference_batch, 'training': config.training_batch}
  return [
    (name, mode, batch) for name in config.workloads for mode, batch in batches.items() if batch
  ]


def command(tool: str, path: pathlib.Path, case: tuple[str, str, int]) -> list[str]:
  """What profiles a case with a tool, into a file."""
  program = f'from experiments import nvm_profile; nvm_profile.execute{case!r}'
  metrics = ','.join(_METRICS[tool])
  return [
    tool,
    '--csv',
    *_OPTIONS[tool],
    *('--metrics', metrics),
    *('--profile-from-start', 'off'),
    *('--log-file', str(path)),
    *(sys.executable, '-c', program),
  ]


def measure_all(config, workdir: pathlib.Path) -> list[profiles.Profile]:
  """Profiles every case in a process of its own."""
  tool = next(filter(shutil.which, _METRICS), None)
  if tool is None:
    raise NoCountersError(
      'neither ncu nor nvprof is on the PATH, so no GPU with counters can be '
      'used here; the traffic model is not validated on hardware'
    )
  if not any(device.platform == 'gpu' for device in jax.devices()):
    raise NoCountersError(f'{tool} is here, but JAX sees no GPU')
  measured = []
  for case in cases(config):
    path = workdir / ('.'.join(map(str, case)) + '.csv')
    done = subprocess.run(
      command(tool, path, case), cwd=run_folder.REPO_ROOT, capture_output=True, text=True
    )
    try:
      launches = traffic.read_launches(path)
    except (OSError, traffic.ProfileError) as error:
      log = path.read_text(errors='replace') if path.exists() else ''
      why = (
        'no right to read the counters (ERR_NVGPUCTRPERM)'
        if 'ERR_NVGPUCTRPERM' in log + done.stdout + done.stderr
        else str(error)
      )
      raise NoCountersError(f'{tool}: {why}') from None
    try:
      traffic.check_gpu(launches, traffic.GPUS[config.gpu])
    except traffic.ProfileError as error:
      raise fields.ConfigError(f'config.gpu={config.gpu!r}: {error}') from None
    measured.append(profiles.Profile(path, *case, '', launches))
  return measured


def measured_of(profile: profiles.Profile) -> dict[str, float | None]:
  """Sums of the four counters; None of one that some launch lacks.

  Raises:
    ConfigError: for a profile with none of them: nothing would be compared.
  """
  measured = {name: traffic.total_of(profile.launches, name) for name in traffic.PROFILE_COUNTERS}
  if all(value is None for value in measured.values()):
    raise fields.ConfigError(
      f'config.profiles: {str(profile.path)!r} has none of the counters of every launch; allowed: '
      f'at least one of {", ".join(measured)}'
    )
  return measured


def compare(
  config, profile: profiles.Profile, measured: dict[str, float | None]
) -> list[dict[str, Any]]:
  """Measured and predicted sums of the four counters, for the part that the profile covers."""
  name, mode, batch = profile.case
  training, shape = mode != 'inference', models.default_image_shape(name)
  table = models.layer_table(models.create(name, num_classes=1000), shape, train=training)
  found = traffic.predict_traffic(table, traffic.GPUS[config.gpu], batch, training=training)
  part = traffic.part_of(found, table, mode)
  rows = []
  for counter, value in measured.items():
    predicted = float(sum(getattr(row, counter) for row in part))
    rows.append(
      {
        'workload': name,
        'mode': mode,
        'batch': batch,
        'counter': counter,
        'measured': value,
        'predicted': predicted,
        'error': predicted / value - 1 if value else None,
        'verdict': verdict(value, predicted, config.bound),
      }
    )
  return rows


def verdict(measured: float | None, predicted: float, bound: float) -> str:
  """Whether a prediction is within a factor of a measurement, or there is none."""
  if measured is None:
    return MISSING
  low, high = sorted((measured, predicted))
  return WITHIN if high <= bound * low else BEYOND


def execute(name: str, mode: str, batch: int) -> None:
  """Runs one step, the second one between the profiler's marks."""
  model = models.create(name, num_classes=1000)
  images = jnp.ones((batch, *models.default_image_shape(name)))
  variables = jax.jit(model.init)(jax.random.key(0), images)
  params = variables['params']
  rest = {key: value for key, value in variables.items() if key != 'params'}
  momentum = jax.tree.map(jnp.zeros_like, params)

  def loss(params):
    logits, _ = model.apply({'params': params, **rest}, images, train=True, mutable=list(rest))
    return -jax.nn.log_softmax(logits)[:, 0].mean()

  def train(params, momentum):
    momentum = jax.tree.map(lambda m, g: 0.9 * m + g, momentum, jax.grad(loss)(params))
    return jax.tree.map(lambda p, m: p - 1e-3 * m, params, momentum), momentum

  if mode == 'training':
    step = jax.jit(train)
  else:
    step = jax.jit(lambda params, _: model.apply({'params': params, **rest}, images))
  jax.block_until_ready(step(params, momentum))
  cuda = ctypes.CDLL('libcuda.so.1')
  cuda.cuProfilerStart()
  jax.block_until_ready(step(params, momentum))
  cuda.cuProfilerStop()


if __name__ == '__main__':
  launch.main(run, SPEC, 'configs/nvm_profile.py', 'runs/nvm_profile')
