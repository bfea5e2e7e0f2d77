"""What all tests share: XLA's flags, one cache of compiled programs, and what is let go of.

By default the tests switch XLA's optimizer off (`tests/xla_flags.py`). Two kinds run as users run
them all the same, in processes of their own: tests marked `default_flags`, of what is claimed bit
for bit, and the experiments that tests start. Everything does so with

    python -m pytest --xla-flags=default tests/kernels tests/quant/test_quantizers.py

`.ci/run` does both.
"""

import atexit
import ctypes
import gc
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile

import jax
import pytest

from tests import xla_flags


def pytest_addoption(parser):
  parser.addoption(
    '--xla-flags',
    choices=('quick', 'default'),
    default='quick',
    help='quick: do not optimize compiled programs; default: as users run them',
  )


def pytest_configure(config):
  config.addinivalue_line('markers', 'default_flags: holds for programs as users compile them')
  # XLA reads its flags once, when JAX first computes; workers inherit them.
  if config.getoption('xla_flags') == 'quick' and not hasattr(config, 'workerinput'):
    xla_flags.compile_quickly()
  _share_programs()
  # Where the tests run in a shell's background it ignores Ctrl-C, and so would all that they start.
  if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
  # For the tests that split a batch; the others compute on the first.
  jax.config.update('jax_num_cpu_devices', 2)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
  """Hands a marked test to a process with other flags, unless this one has them."""
  config = pyfuncitem.config
  if config.getoption('xla_flags') == 'default' or not pyfuncitem.get_closest_marker(
    'default_flags'
  ):
    return None
  command = [sys.executable, '-m', 'pytest', '-n', '0', '--xla-flags=default', pyfuncitem.nodeid]
  process = subprocess.run(
    [*command, '-p', 'no:cacheprovider'],
    cwd=config.rootpath,
    env=xla_flags.default_environment(),
    capture_output=True,
    text=True,
  )
  assert process.returncode == 0, process.stdout + process.stderr
  return True


def _share_programs():
  """One folder of compiled programs for the workers of a run and all that they start.

  It begins empty and goes with the run: no result depends on what an earlier run has compiled.
  """
  folder = os.environ.get('JAX_COMPILATION_CACHE_DIR')
  if folder is None:
    folder = tempfile.mkdtemp(prefix='cnnopt_programs_')
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ['JAX_COMPILATION_CACHE_DIR'] = folder  # Of workers and subprocesses.
    # Smaller programs compile in the time that it takes to write and to read them.
    os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.1'
    os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'  # What XLA says of cached programs fills pipes.
  seconds = float(os.environ.get('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.1'))
  jax.config.update('jax_compilation_cache_dir', folder)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', seconds)


@pytest.fixture(scope='module', autouse=True)
def _let_go_of_programs():
  """Each file ends without the programs and the tables that it made: a worker would fill up."""
  yield
  for name, module in list(sys.modules.items()):
    if name.partition('.')[0] in ('cnnopt_jax', 'experiments'):
      for value in list(vars(module).values()):
        if hasattr(value, 'cache_clear'):
          value.cache_clear()
  jax.clear_caches()
  gc.collect()
  # Compiling leaves free memory in glibc's arenas; other C libraries have no such call.
  trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
  if trim is not None:
    trim(0)


def pytest_sessionfinish(session):
  if hasattr(session.config, 'workeroutput'):
    session.config.workeroutput['peak_gb'] = _peak_gb()


def pytest_testnodedown(node, error):
  peak = getattr(node, 'workeroutput', {}).get('peak_gb')
  if peak is not None:
    node.config.stash.setdefault(_PEAKS, {})[node.gateway.id] = peak


_PEAKS = pytest.StashKey[dict]()


def pytest_terminal_summary(terminalreporter, config):
  peaks = config.stash.get(_PEAKS, None) or {'this process': _peak_gb()}
  each = ', '.join(f'{name} {peak:.1f} GB' for name, peak in sorted(peaks.items()))
  terminalreporter.write_line(f'most memory: {each}')


def _peak_gb():
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # Linux counts in KiB.
