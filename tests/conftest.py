"""What all tests share: XLA's flags, one cache of compiled programs, and what is let go of.

Most of a test's time is XLA compiling a program that runs once, and such a program need not be a
good one: by default the tests switch XLA's optimizer off. What is claimed bit for bit, and what
stands on kernels, also has to hold for the programs that users run:

    python -m pytest --xla-flags=default tests/kernels tests/quant tests/training tests/vip

`.ci/run` does both.
"""

import atexit
import gc
import os
import resource
import shutil
import sys
import tempfile

import jax
import pytest

# Convolutions and matrix products are library calls and stay as fast.
_QUICK_FLAGS = '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
if jax.__version_info__ < (0, 11):
  # Half of the time that is left goes into MLIR; later versions know no other way.
  _QUICK_FLAGS += ' --xla_cpu_use_fusion_emitters=false'


def pytest_addoption(parser):
  parser.addoption(
    '--xla-flags',
    choices=('quick', 'default'),
    default='quick',
    help='quick: do not optimize compiled programs; default: as users run them',
  )


def pytest_configure(config):
  # XLA reads its flags once, when JAX first computes; subprocesses inherit them.
  if config.getoption('xla_flags') == 'quick' and not hasattr(config, 'workerinput'):
    os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {_QUICK_FLAGS}'.strip()
  _share_programs()
  # For the tests that split a batch; the others compute on the first.
  jax.config.update('jax_num_cpu_devices', 2)


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
