"""Compiled programs kept between runs, so that a second run starts at once."""

import hashlib
import os
import pathlib
import platform
import sys
import warnings

# Shorter compilations take as long as finding their program.
_SECONDS = 0.2
_WARNINGS = {
  'Error reading': 'a program in it is damaged and compiled anew; delete that folder to mend it',
  'Error writing': 'a program cannot be kept in it; the next run compiles it again',
}


def default_folder() -> pathlib.Path:
  """A folder of this user's and of this kind of processor.

  JAX's cache does not tell processors apart, and home folders are shared between machines.
  """
  home = pathlib.Path(os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache')
  kind = hashlib.sha256(_processor().encode()).hexdigest()[:12]
  return home / 'cnnopt_jax' / f'programs-{kind}'


def use() -> None:
  """Makes JAX keep its programs in `default_folder`, unless the user has named another.

  Before JAX first compiles. A folder that cannot be written is done without, as JAX does, and a
  program that a full disk cut off is compiled anew; one line tells of either.
  """
  # What XLA says of every program that it finds: others' processors may lack an instruction.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  import jax  # Late, so that a wrong flag answers at once.

  if jax.config.jax_compilation_cache_dir is None:
    jax.config.update('jax_compilation_cache_dir', str(default_folder()))
    if 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS' not in os.environ:
      jax.config.update('jax_persistent_cache_min_compile_time_secs', _SECONDS)
  _tell_in_one_line(jax.config.jax_compilation_cache_dir)


def _tell_in_one_line(folder: str) -> None:
  """Puts what JAX warns of, by program and line of JAX's, into words of a user's, once."""
  show, told = warnings.showwarning, set()

  def show_ours(message, *where, **more):
    kind = str(message).partition(' persistent compilation cache entry ')[0]
    if kind not in _WARNINGS:
      show(message, *where, **more)
    elif kind not in told:
      told.add(kind)
      print(f'warning: {folder}: {_WARNINGS[kind]}', file=sys.stderr)

  warnings.showwarning = show_ours


def _processor() -> str:
  """What distinguishes processors: their architecture and their instructions."""
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    lines = []
  features = [line for line in lines if line.startswith(('model name', 'flags', 'Features'))]
  return '\n'.join([platform.machine(), platform.processor(), *features[:2]])
