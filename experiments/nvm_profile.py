"""Measures L2 and DRAM transactions on a GPU with hardware counters, beside the traffic model's.

    python -m experiments.nvm_profile --config configs/nvm_profile.py --workdir runs/nvm_profile

Runs every workload once under Nsight Compute (`ncu`) or nvprof, whichever is on the PATH, after a
run that compiles. Where there is no such tool, no GPU, or no right to read its counters, it says so
in one line and exits with 1. `profiles` compares finished profiles instead: names of CSV files,
`WORKLOAD.MODE.BATCH.csv`. Writes `results.csv` and `report.md`.
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
from experiments.common import fields, launch, reports, run_folder

SPEC = {
  'workloads': fields.tuple_of(fields.one_of(*models.MODELS)),
  'inference_batch': fields.integer(0, 4096),
  'training_batch': fields.integer(0, 4096),
  'gpu': fields.one_of(*traffic.GPUS),
  'profiles': fields.text('paths of CSV files, with commas between'),
}
COLUMNS = ('workload', 'mode', 'batch', 'counter', 'measured', 'predicted', 'error')
NO_COUNTERS = 1
# What both a profile and the traffic model have of a kernel.
_COUNTERS = ('l2_reads', 'l2_writes', 'dram_reads', 'dram_writes')
_METRICS = {
  'ncu': (
    'lts__t_sectors_op_read.sum',
    'lts__t_sectors_op_write.sum',
    'dram__sectors_read.sum',
    'dram__sectors_write.sum',
  ),
  'nvprof': (
    'l2_read_transactions',
    'l2_write_transactions',
    'dram_read_transactions',
    'dram_write_transactions',
  ),
}


class NoCountersError(Exception):
  """Why nothing can be measured here, in one line."""


def run(config: config_dict.ConfigDict, workdir: pathlib.Path) -> int:
  """Measures or reads profiles, compares, writes the files; returns the exit code."""
  try:
    measured = read_all(config) if config.profiles else measure_all(config, workdir)
  except NoCountersError as error:
    print(f'not measured: {error}', file=sys.stderr)
    return NO_COUNTERS
  rows = [
    row
    for (name, mode, batch), kernels in measured.items()
    for row in compare(config, name, mode, batch, kernels)
  ]
  run_folder.write_atomically(workdir / 'results.csv', report.to_csv(rows, COLUMNS))
  shown = [
    [
      r['workload'],
      r['mode'],
      r['batch'],
      r['counter'],
      f'{r["measured"]:.4g}',
      f'{r["predicted"]:.4g}',
      f'{100 * r["error"]:+.1f} %',
    ]
    for r in rows
  ]
  parts = [
    f'# Traffic model beside the counters of a {config.gpu}',
    '',
    'Sectors of 32 B; error: of the prediction, relative to the measurement.',
    '',
    report.to_markdown(shown, COLUMNS),
  ]
  reports.write(workdir, parts)
  run_folder.record(workdir, config)
  print('\n'.join(parts))
  return 0


def cases(config):
  batches = {'inference': config.inference_batch, 'training': config.training_batch}
  return [
    (name, mode, batch) for name in config.workloads for mode, batch in batches.items() if batch
  ]


def measure_all(config, workdir: pathlib.Path) -> dict:
  """Profiles every case in a process of its own."""
  tool = next(filter(shutil.which, _METRICS), None)
  if tool is None:
    raise NoCountersError(
      'neither ncu nor nvprof is on the PATH, so no GPU with counters can be '
      'used here; the traffic model is not validated on hardware'
    )
  if not any(device.platform == 'gpu' for device in jax.devices()):
    raise NoCountersError(f'{tool} is here, but JAX sees no GPU')
  measured = {}
  for case in cases(config):
    path = workdir / ('.'.join(map(str, case)) + '.csv')
    program = f'from experiments import nvm_profile; nvm_profile.execute{case!r}'
    done = subprocess.run(
      [
        tool,
        '--csv',
        '--metrics',
        ','.join(_METRICS[tool]),
        '--profile-from-start',
        'off',
        '--log-file',
        str(path),
        sys.executable,
        '-c',
        program,
      ],
      cwd=run_folder.REPO_ROOT,
      capture_output=True,
      text=True,
    )
    try:
      measured[case] = traffic.read_profile(path)
    except (OSError, traffic.ProfileError) as error:
      log = path.read_text(errors='replace') if path.exists() else ''
      why = (
        'no right to read the counters (ERR_NVGPUCTRPERM)'
        if 'ERR_NVGPUCTRPERM' in log + done.stdout + done.stderr
        else str(error)
      )
      raise NoCountersError(f'{tool}: {why}') from None
  return measured


def read_all(config) -> dict:
  """Finished profiles, by what their names say."""
  measured = {}
  for path in map(pathlib.Path, filter(None, config.profiles.split(','))):
    name, _, rest = path.name.removesuffix('.csv').partition('.')
    mode, _, batch = rest.partition('.')
    if name not in models.MODELS or mode not in ('inference', 'training') or not batch.isdigit():
      raise fields.ConfigError(
        f'config.profiles: {str(path)!r}; allowed: '
        'WORKLOAD.inference.BATCH.csv or WORKLOAD.training.BATCH.csv'
      )
    try:
      measured[name, mode, int(batch)] = traffic.read_profile(path)
    except (OSError, traffic.ProfileError) as error:
      raise fields.ConfigError(f'config.profiles: {error}') from None
  return measured


def compare(config, name: str, mode: str, batch: int, kernels) -> list[dict[str, Any]]:
  """Measured and predicted sums, for each counter that the profile has."""
  training, shape = mode == 'training', models.default_image_shape(name)
  table = models.layer_table(models.create(name, num_classes=1000), shape, train=training)
  found = traffic.predict_traffic(table, traffic.GPUS[config.gpu], batch, training=training)
  rows = []
  for counter in _COUNTERS:
    values = [value for kernel in kernels if (value := getattr(kernel, counter)) is not None]
    if values and sum(values) > 0:
      predicted = sum(getattr(row, counter) for row in found.rows)
      rows.append(
        {
          'workload': name,
          'mode': mode,
          'batch': batch,
          'counter': counter,
          'measured': sum(values),
          'predicted': predicted,
          'error': predicted / sum(values) - 1,
        }
      )
  return rows


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
