"""Starts experiments as a user does: a process, flags, signals."""

import atexit
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

REPO = pathlib.Path(__file__).resolve().parents[2]

# Two programs of one member, two epochs of twelve steps, a checkpoint every fourth step.
TINY = dict(
  bits='2,4',
  reference='false',
  seeds='0',
  epochs=2,
  batch_size=1000,
  sizes_kib='2.122',
  checkpoint_steps=4,
)


# The processes of one run compile the same programs again and again.
ENVIRONMENT = {
  'JAX_COMPILATION_CACHE_DIR': tempfile.mkdtemp(prefix='cnnopt_programs_'),
  'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.3',
  'TF_CPP_MIN_LOG_LEVEL': '3',  # What XLA says of cached programs would fill the pipe.
}

atexit.register(shutil.rmtree, ENVIRONMENT['JAX_COMPILATION_CACHE_DIR'], ignore_errors=True)


def command(module, workdir, **config):
  flags = [f'--config.{key}={value}' for key, value in config.items()]
  return [sys.executable, '-m', f'experiments.{module}', f'--workdir={workdir}', *flags]


def start(module, workdir, **config):
  return subprocess.Popen(
    command(module, workdir, **config),
    cwd=REPO,
    text=True,
    env={**os.environ, **ENVIRONMENT},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
  )


def finish(process, timeout=300):
  out, err = process.communicate(timeout=timeout)
  return process.returncode, out, err


def run(module, workdir, **config):
  return finish(start(module, workdir, **config))


def signal_when(process, condition, signum=signal.SIGKILL, timeout=300):
  """Sends a signal as soon as `condition()` holds; fails if the process ends before."""
  deadline = time.monotonic() + timeout
  while not condition():
    assert process.poll() is None, process.communicate()
    assert time.monotonic() < deadline
    time.sleep(0.002)
  process.send_signal(signum)
  return finish(process)
