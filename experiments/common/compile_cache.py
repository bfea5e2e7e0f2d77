"""Compiled programs kept between runs, so that a second run starts at once."""

import hashlib
import os
import pathlib
import platform

# Shorter compilations take as long as finding their program.
_SECONDS = 0.2


def default_folder() -> pathlib.Path:
  """A folder of this user's and of this kind of processor.

  JAX's cache does not tell processors apart, and home folders are shared between machines.
  """
  home = pathlib.Path(os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache')
  kind = hashlib.sha256(_processor().encode()).hexdigest()[:12]
  return home / 'cnnopt_jax' / f'programs-{kind}'


def use() -> None:
  """Makes JAX keep its programs in `default_folder`, unless the user has named another.

  Before JAX first compiles. A folder that cannot be written is done without, as JAX does.
  """
  # What XLA says of every program that it finds: others' processors may lack an instruction.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  import jax  # Late, so that a wrong flag answers at once.

  if jax.config.jax_compilation_cache_dir is None:
    jax.config.update('jax_compilation_cache_dir', str(default_folder()))
    if 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS' not in os.environ:
      jax.config.update('jax_persistent_cache_min_compile_time_secs', _SECONDS)


def _processor() -> str:
  """What distinguishes processors: their architecture and their instructions."""
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    lines = []
  features = [line for line in lines if line.startswith(('model name', 'flags', 'Features'))]
  return '\n'.join([platform.machine(), platform.processor(), *features[:2]])
