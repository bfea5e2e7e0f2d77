"""Starts experiments as a user does: a process, flags, signals.

The processes of one run of the tests share a cache of programs. Sweeps compile as users' do, for
their results are compared bit for bit; the others as the run of the tests does (`--xla-flags`).
"""

import importlib
import pathlib
import re
import signal
import subprocess
import sys
import time

from experiments.common import fields
from tests import xla_flags
from tests.data import test_fashion_mnist

REPO = pathlib.Path(__file__).resolve().parents[2]

# Two programs of one member, two epochs of twelve steps, a checkpoint every eighth step.
TINY = dict(
  bits='2,4',
  reference='false',
  seeds='0',
  epochs=2,
  batch_size=1000,
  sizes_kib='2.122',
  checkpoint_steps=8,
)


def experiment_of(name):
  """The module of the experiment that a config's docstring starts with it."""
  text = importlib.import_module(f'configs.{name}').__doc__ or ''
  found = re.search(rf'python -m (experiments\.\w+) --config configs/{name}\.py', text)
  assert found, f'configs/{name}.py: its docstring names no command'
  return importlib.import_module(found[1])


def load_config(name, **changes):
  """The config of configs/NAME.py with some fields changed, checked as its experiment does."""
  config = importlib.import_module(f'configs.{name}').get_config()
  with config.unlocked():
    config.update(changes)
  return fields.check(config, experiment_of(name).SPEC)


def few_images(folder):
  """Fields of a config for 600 training and 200 test images of noise, which it writes."""
  test_fashion_mnist.write(folder, test_fashion_mnist.whole(per_class=(60, 20)))
  return dict(dataset='fashion_mnist', data_dir=str(folder))


def command(module, workdir, **config):
  flags = [f'--config.{key}={value}' for key, value in config.items()]
  return [sys.executable, '-m', f'experiments.{module}', f'--workdir={workdir}', *flags]


def start(module, workdir, **config):
  return subprocess.Popen(
    command(module, workdir, **config),
    cwd=REPO,
    text=True,
    env=xla_flags.default_environment() if module == 'quant_sweep' else None,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
  )


def finish(process, timeout=300):
  out, err = process.communicate(timeout=timeout)
  return process.returncode, out, err


def run(module, workdir, **config):
  return finish(start(module, workdir, **config))


def python(code, *arguments):
  """What a program that compiles as users' do prints."""
  return subprocess.run(
    [sys.executable, '-c', code, *map(str, arguments)],
    cwd=REPO,
    env=xla_flags.default_environment(),
    check=True,
    capture_output=True,
    text=True,
  ).stdout


def signal_when(process, condition, signum=signal.SIGKILL, timeout=300):
  """Sends a signal as soon as `condition()` holds; fails if the process ends before."""
  deadline = time.monotonic() + timeout
  while not condition():
    assert process.poll() is None, process.communicate()
    assert time.monotonic() < deadline
    time.sleep(0.002)
  process.send_signal(signum)
  return finish(process)
