"""Flags, config checks and exit codes that every experiment shares.

An experiment module declares `SPEC`, a dict from config field to `Field`, and a function
`run(config, workdir)`; its last line is

    if __name__ == '__main__':
      launch.main(run, SPEC, 'configs/<name>.py', 'runs/<name>')

Whatever a user gets wrong (a flag, an unknown key, a value) ends in one line on stderr that names
the field, the value and what is allowed, and in exit code 2, before any work.
"""

import fcntl
import json
import math
import os
import pathlib
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any, NamedTuple

from absl import app, flags, logging
from ml_collections import config_dict, config_flags

USAGE_EXIT_CODE = 2
SIGTERM_EXIT_CODE = 128 + signal.SIGTERM
REPO_ROOT = pathlib.Path(__file__).resolve().parent.parent


class ConfigError(ValueError):
  """A flag, a config field or a folder that the user has to change; one line, exit code 2."""


class Field(NamedTuple):
  """What one config field may hold.

  Attributes:
    kind: `int`, `float`, `str`, `bool`, or `tuple`.
    check: predicate on the value (for tuples: on the whole tuple, after `element`).
    allowed: the words that follow "allowed:" in the error.
    element: for tuples, the `Field` of each element.
  """

  kind: type
  check: Callable[[Any], bool]
  allowed: str
  element: 'Field | None' = None


def one_of(*values) -> Field:
  return Field(type(values[0]), lambda v: v in values, 'one of ' + ', '.join(map(str, values)))


def integer(low: int, high: float = math.inf) -> Field:
  return Field(int, lambda v: low <= v <= high, f'an integer {_interval(low, high)}')


def number(low: float, high: float = math.inf, *, above: bool = False) -> Field:
  """A finite float in [low, high]; `above=True` excludes `low` itself."""
  ok = lambda v: math.isfinite(v) and (low < v if above else low <= v) and v <= high
  return Field(float, ok, f'a finite number {_interval(low, high, above)}')


def boolean() -> Field:
  return Field(bool, lambda v: True, 'true or false')


def text(allowed: str = 'a string', check: Callable[[str], bool] = lambda v: True) -> Field:
  return Field(str, check, allowed)


def tuple_of(element: Field, *, min_length: int = 1, unique: bool = True) -> Field:
  ok = lambda v: len(v) >= min_length and (not unique or len(set(v)) == len(v))
  words = f'a tuple of at least {min_length}, ' if min_length else 'a tuple, '
  words += ('no two equal, ' if unique else '') + f'each {element.allowed}'
  return Field(tuple, ok, words, element)


def _interval(low, high, above: bool = False) -> str:
  if high == math.inf:
    return f'above {low}' if above else f'of at least {low}'
  return f'above {low} and at most {high}' if above else f'from {low} to {high}'


def check(config: Mapping[str, Any], spec: Mapping[str, Field]) -> config_dict.ConfigDict:
  """Checks every field, element by element, and returns the config frozen with exact types.

  Args:
    config: a `ConfigDict` or dict with exactly the keys of `spec`.
    spec: the allowed fields.

  Returns:
    A locked `ConfigDict` in the order of `spec`; ints given for float fields are floats.

  Raises:
    ConfigError: naming the first offending field, its value and what is allowed.
  """
  unknown = [key for key in config if key not in spec]
  if unknown:
    raise ConfigError(
      f'config.{unknown[0]}={_show(config[unknown[0]])}: unknown field; allowed: ' + ', '.join(spec)
    )
  checked = config_dict.ConfigDict()
  for name, field in spec.items():
    if name not in config:
      raise ConfigError(f'config.{name}: missing; allowed: {field.allowed}')
    checked[name] = _checked(f'config.{name}', config[name], field)
  return checked.lock()


def _checked(name: str, value: Any, field: Field) -> Any:
  error = ConfigError(f'{name}={_show(value)}; allowed: {field.allowed}')
  if field.kind is float and type(value) is int:
    value = float(value)
  if type(value) is not field.kind:
    raise error
  if field.element is not None:
    value = tuple(_checked(f'{name}[{i}]', v, field.element) for i, v in enumerate(value))
  if not field.check(value):
    raise error
  return value


def _show(value: Any) -> str:
  shown = repr(value)
  return shown if len(shown) <= 80 else shown[:77] + '...'


def main(
  run: Callable[[config_dict.ConfigDict, pathlib.Path], Any],
  spec: Mapping[str, Field],
  default_config: str,
  default_workdir: str,
) -> None:
  """Parses `--config` and `--workdir`, checks the config, calls `run(config, workdir)`, exits.

  Args:
    run: the experiment; it may raise `ConfigError` before its work begins. An int that it
      returns is the exit code.
    spec: what `check` allows.
    default_config: config file of this experiment, relative to the repository.
    default_workdir: folder for its results, relative to the current folder.
  """

  def parse(argv):
    try:
      for argument in argv[1:]:
        name = argument.partition('=')[0].lstrip('-').removeprefix('config.')
        if argument.lstrip('-').startswith('config.') and name not in spec:
          raise ConfigError(f'config.{name}: unknown field; allowed: ' + ', '.join(spec))
      # The flag looks at the command line already while it is defined.
      config_flags.DEFINE_config_file(
        'config', str(REPO_ROOT / default_config), 'Config file; fields by --config.FIELD=VALUE.'
      )
      flags.DEFINE_string('workdir', default_workdir, 'Folder for the results.')
      rest = flags.FLAGS(argv)[1:]
      if rest:
        raise ConfigError(f'argument {rest[0]!r}: not a flag; allowed: --config, --workdir')
      return check(flags.FLAGS.config, spec), pathlib.Path(flags.FLAGS.workdir)
    except ConfigError as error:
      _die(str(error))
    except (
      flags.Error,
      AttributeError,
      KeyError,
      TypeError,
      ValueError,
      OSError,
      ImportError,
      SyntaxError,
    ) as error:
      _die(f'command line: {error}')

  def start(parsed):
    # Libraries log every file they touch at level INFO; --verbosity=0 brings that back.
    if not flags.FLAGS['verbosity'].present:
      logging.set_verbosity(logging.ERROR)
    config, workdir = parsed
    try:
      with locked_folder(workdir):
        result = run(config, workdir)
    except ConfigError as error:
      _die(str(error))
    sys.exit(result if type(result) is int else 0)

  app.run(start, flags_parser=parse)


def _die(message: str) -> None:
  print('error: ' + ' '.join(message.split()), file=sys.stderr)
  sys.exit(USAGE_EXIT_CODE)


class sigterm_sets_flag:
  """Inside, SIGTERM only makes the yielded function true, so that the loop can save and stop."""

  def __enter__(self):
    self._received = False
    self._old = signal.signal(signal.SIGTERM, self._receive)
    return lambda: self._received

  def _receive(self, signum, frame):
    self._received = True

  def __exit__(self, *exc):
    signal.signal(signal.SIGTERM, self._old)


class locked_folder:
  """Makes `folder` and holds it for this process: two runs in one folder would mix their records.

  Raises:
    ConfigError: if the folder cannot be written or another process holds it.
  """

  def __init__(self, folder: pathlib.Path):
    self._folder = pathlib.Path(folder)

  def __enter__(self):
    try:
      self._folder.mkdir(parents=True, exist_ok=True)
      self._file = open(self._folder / '.lock', 'w')
    except OSError as error:
      raise ConfigError(
        f'workdir={str(self._folder)!r}: {error.strerror}; '
        'allowed: a folder that can be made and written'
      ) from None
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
      self._file.close()
      raise ConfigError(
        f'workdir={str(self._folder)!r}: another process is running in it; '
        'allowed: a folder of its own for each run'
      ) from None
    return self._folder

  def __exit__(self, *exc):
    self._file.close()


_HUGE_PAGES = 'glibc.malloc.hugetlb=1'


def use_huge_pages() -> None:
  """Starts this process anew with memory in pages of 2 MiB, where Linux and glibc have them.

  Maps of many MiB are given back to the system after every call, and each page that the next one
  touches costs a fault, of which there are fewer in larger pages. glibc reads the setting before
  Python runs. A value that the user has set stays.
  """
  tunables = os.environ.get('GLIBC_TUNABLES', '')
  if platform.libc_ver()[0] == 'glibc' and 'glibc.malloc.hugetlb' not in tunables:
    os.environ['GLIBC_TUNABLES'] = ':'.join(filter(None, (tunables, _HUGE_PAGES)))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def environment() -> dict[str, Any]:
  """What a result depends on besides its config: code revision, versions, device, cores."""
  import jax  # Late, so that a wrong flag answers at once.

  revision = subprocess.run(
    ['git', '-C', str(REPO_ROOT), 'describe', '--always', '--dirty'], capture_output=True, text=True
  )
  packages = ('cnnopt-jax', 'jax', 'jaxlib', 'flax', 'optax', 'numpy')
  return {
    'git': revision.stdout.strip() or 'unknown',
    'python': platform.python_version(),
    'versions': {name: metadata.version(name) for name in packages},
    'device': jax.devices()[0].device_kind,
    'device_count': jax.device_count(),
    'cores': len(os.sched_getaffinity(0)),
    'huge_pages': _HUGE_PAGES in os.environ.get('GLIBC_TUNABLES', ''),
  }


def write_atomically(path: pathlib.Path, content: str) -> None:
  """Replaces `path` as a whole, so that a kill leaves the old file or the new one."""
  temporary = path.with_name(path.name + '.tmp')
  with open(temporary, 'w') as file:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)


def write_bench(workdir: pathlib.Path, rows: list[dict[str, Any]]) -> None:
  """Writes `bench.json`, a list of `{name, value, unit, ...}`, and prints it as a table."""
  from rich import console, table  # Late, as above.

  write_atomically(workdir / 'bench.json', json.dumps(rows, indent=1) + '\n')
  out = table.Table('name', 'value', 'unit', 'notes')
  for row in rows:
    notes = ', '.join(f'{k}={v}' for k, v in row.items() if k not in ('name', 'value', 'unit'))
    value = row['value']
    out.add_row(
      row['name'], f'{value:.4g}' if type(value) is float else str(value), row['unit'], notes
    )
  console.Console().print(out)
