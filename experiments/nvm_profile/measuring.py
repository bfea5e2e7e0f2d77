"""Profiles every case with `ncu` or nvprof, and the program that they profile."""

import ctypes
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp

from cnnopt_jax import models, traffic
from experiments.common import fields, gpu_traffic, profiles, run_folder

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


def cases(config):
  batches = {'inference': config.inference_batch, 'training': config.training_batch}
  return [
    (name, mode, batch) for name in config.workloads for mode, batch in batches.items() if batch
  ]


def command(tool: str, path: pathlib.Path, case: tuple[str, str, int], math: str) -> list[str]:
  """What profiles a case with a tool, into a file."""
  program = f'from experiments import nvm_profile; nvm_profile.execute{(*case, math)!r}'
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
      'used here; allowed without: finished profiles, --config.profiles'
    )
  if not any(device.platform == 'gpu' for device in jax.devices()):
    raise NoCountersError(f'{tool} is here, but JAX sees no GPU')
  if config.library != 'xla' or config.math == 'bfloat16':
    raise fields.ConfigError(
      f'config.library={config.library!r}, config.math={config.math!r}: what is run here is a '
      "program of JAX in float32; allowed: library 'xla' and math 'float32' or 'tf32', or finished "
      'profiles'
    )
  measured = []
  for case in cases(config):
    path = workdir / ('.'.join(map(str, case)) + '.csv')
    done = subprocess.run(
      command(tool, path, case, config.math),
      cwd=run_folder.REPO_ROOT,
      capture_output=True,
      text=True,
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
      traffic.check_gpu(launches, gpu_traffic.gpu_of(config))
    except traffic.ProfileError as error:
      raise fields.ConfigError(f'config.gpu={gpu_traffic.shown(config)}: {error}') from None
    measured.append(profiles.Profile(path, *case, '', launches))
  return measured


def execute(name: str, mode: str, batch: int, math: str = 'float32') -> None:
  """Runs one step, the second one between the profiler's marks.

  Args:
    name, mode, batch: the case.
    math: type of the products, 'float32' or 'tf32': JAX's default takes TF32 where there is any.
  """
  precision = {'float32': 'float32', 'tf32': 'tensorfloat32'}[math]
  jax.config.update('jax_default_matmul_precision', precision)
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
