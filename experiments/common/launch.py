"""Flags, config checks and exit codes that every experiment shares.

An experiment module declares `SPEC`, a dict from config field to `Field`, and a function
`run(config, workdir)`; its last line is

    if __name__ == '__main__':
      launch.main(run, SPEC, 'configs/<name>.py', 'runs/<name>')

Whatever a user gets wrong (a flag, an unknown key, a value) ends in one line on stderr that names
the field, the value and what is allowed, and in exit code 2, before any work.
"""

import pathlib
import re
import runpy
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

from absl import app, flags, logging
from ml_collections import config_dict, config_flags

from experiments.common import compile_cache, fields, run_folder

USAGE_EXIT_CODE = 2
SIGTERM_EXIT_CODE = 128 + signal.SIGTERM


def main(
  run: Callable[[config_dict.ConfigDict, pathlib.Path], Any],
  spec: Mapping[str, fields.Field],
  default_config: str,
  default_workdir: str,
) -> None:
  """Parses the flags, checks the config, calls `run(config, workdir)`, exits.

  Flags are `--config`, `--workdir` and `--[no]compile_cache`.

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
        known = (*spec, *fields.renamed(spec))
        if argument.lstrip('-').startswith('config.') and name not in known:
          raise fields.ConfigError(f'config.{name}: unknown field; allowed: ' + ', '.join(spec))
      _rename_overrides(argv, spec, str(run_folder.REPO_ROOT / default_config))
      # The flag looks at the command line already while it is defined.
      config_flags.DEFINE_config_file(
        'config',
        str(run_folder.REPO_ROOT / default_config),
        'Config file; fields by --config.FIELD=VALUE.',
      )
      flags.DEFINE_string('workdir', default_workdir, 'Folder for the results.')
      flags.DEFINE_bool(
        'compile_cache', True, f'Keep compiled programs in {compile_cache.default_folder()}.'
      )
      rest = flags.FLAGS(argv)[1:]
      if rest:
        raise fields.ConfigError(
          f'argument {rest[0]!r}: not a flag; allowed: --config, --workdir, --compile_cache'
        )
      return fields.check(flags.FLAGS.config, spec), pathlib.Path(flags.FLAGS.workdir)
    except fields.ConfigError as error:
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
    if flags.FLAGS.compile_cache:
      compile_cache.use()
    try:
      with run_folder.locked(workdir):
        result = run(config, workdir)
    except fields.ConfigError as error:
      _die(str(error))
    sys.exit(result if type(result) is int else 0)

  app.run(start, flags_parser=parse)


def _rename_overrides(
  argv: list[str], spec: Mapping[str, fields.Field], default_config: str
) -> None:
  """Gives `--config.FIELD` the name that the config file has for a renamed field, in place."""
  names = fields.renamed(spec)
  pattern = re.compile(r'--?config\.(\w+)')
  given = [(i, match[1]) for i, argument in enumerate(argv) if (match := pattern.match(argument))]
  given = [(i, name) for i, name in given if name in names or name in names.values()]
  if not given:
    return
  file = default_config
  for argument, following in zip(argv, [*argv[1:], '']):
    if match := re.fullmatch(r'--?config(?:=(.*))?', argument):
      file = match[1] or following
  # Not `fields.check`: a config file of the user may have the old names itself.
  has = runpy.run_path(file)['get_config']()
  for i, name in given:
    others = {names.get(name), *(old for old, new in names.items() if new == name)}
    if name not in has and (there := next((other for other in others if other in has), None)):
      if name in names:
        print(f'note: config.{name} is called config.{there} now', file=sys.stderr)
      argv[i] = argv[i].replace(name, there, 1)


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
