"""Flags, config checks and exit codes that every experiment shares.

An experiment module declares `SPEC`, a dict from config field to `Field`, and a function
`run(config, workdir)`; its last line is

    if __name__ == '__main__':
      launch.main(run, SPEC, 'configs/<name>.py', 'runs/<name>')

Whatever a user gets wrong (a flag, an unknown key, a value, a folder) ends in one line on stderr
that names the field, the value and what is allowed, and in exit code 2, before any work. A disk
that fails ends in one line and exit code 1, Ctrl-C and SIGTERM as `stops` has it.
"""

import os
import pathlib
import re
import runpy
import sys
from collections.abc import Callable, Mapping
from typing import Any

from absl import app, flags, logging
from ml_collections import config_dict, config_flags

from experiments.common import compile_cache, fields, run_folder, stops

FAILED_EXIT_CODE = 1
USAGE_EXIT_CODE = 2


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
  stops.listen()

  def parse(argv):
    logging.set_verbosity(logging.ERROR)  # Until --verbosity is known.
    file = _config_file(argv, str(run_folder.REPO_ROOT / default_config))
    try:
      if not pathlib.Path(file.partition(':')[0]).is_file():
        raise fields.ConfigError(f'config={file!r}: no file; allowed: one such as {default_config}')
      for argument in argv[1:]:
        name = argument.partition('=')[0].lstrip('-').removeprefix('config.')
        known = (*spec, *fields.renamed(spec))
        if argument.lstrip('-').startswith('config.') and name not in known:
          raise fields.ConfigError(f'config.{name}: unknown field; allowed: ' + ', '.join(spec))
      _rename_overrides(argv, spec, file)
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
      config, workdir = flags.FLAGS.config, flags.FLAGS.workdir
      if not hasattr(config, 'items'):
        raise fields.ConfigError(
          f'config={file!r}: its get_config() returns a {type(config).__name__}; '
          'allowed: a ConfigDict'
        )
      if not workdir.strip():
        raise fields.ConfigError(f'workdir={workdir!r}; allowed: a folder for the results')
      # A shell leaves the ~ of --workdir=~/runs as it is.
      return fields.check(config, spec), pathlib.Path(os.path.expanduser(workdir))
    except fields.ConfigError as error:
      _die(str(error))
    except flags.Error as error:
      head, _, trace = str(error).partition('Traceback ')  # Of a config file that fails late.
      _die(f'command line: {head}{trace.strip().rpartition(chr(10))[2]}')
    except Exception as error:  # Whatever the user's config file raises.
      _die(f'config={file!r}: {type(error).__name__}: {error}')

  def start(parsed):
    # Libraries log every file they touch at level INFO; --verbosity=0 brings that back.
    if not flags.FLAGS['verbosity'].present:
      logging.set_verbosity(logging.ERROR)
    config, workdir = parsed
    if flags.FLAGS.compile_cache:
      compile_cache.use()
    try:
      with run_folder.locked(workdir, _name_of(run), (*spec, *fields.renamed(spec))):
        result = run(config, workdir)
    except fields.ConfigError as error:
      _die(str(error))
    except OSError as error:
      if flags.FLAGS['verbosity'].present:
        raise
      _die(
        f'{error.filename or workdir}: {error.strerror or error}; what is finished is kept, and '
        f'the same command goes on from {workdir} once that is mended',
        FAILED_EXIT_CODE,
      )
    stops.end_if_requested()
    sys.exit(result if type(result) is int else 0)

  app.run(start, flags_parser=parse)


def _name_of(run: Callable[..., Any]) -> str:
  """The module that a user names, also where that is the one that Python runs."""
  if run.__module__ != '__main__':
    return run.__module__
  return f'experiments.{pathlib.Path(run.__code__.co_filename).stem}'


def _config_file(argv: list[str], default: str) -> str:
  """What `--config` names, before flags are parsed."""
  file = default
  for argument, following in zip(argv, [*argv[1:], '']):
    if match := re.fullmatch(r'--?config(?:=(.*))?', argument):
      file = following if match[1] is None else match[1]
  return file


def _rename_overrides(argv: list[str], spec: Mapping[str, fields.Field], file: str) -> None:
  """Gives `--config.FIELD` the name that the config file has for a renamed field, in place."""
  names = fields.renamed(spec)
  pattern = re.compile(r'--?config\.(\w+)')
  given = [(i, match[1]) for i, argument in enumerate(argv) if (match := pattern.match(argument))]
  given = [(i, name) for i, name in given if name in names or name in names.values()]
  if not given:
    return
  # Not `fields.check`: a config file of the user may have the old names itself.
  has = runpy.run_path(file)['get_config']()
  for i, name in given:
    others = {names.get(name), *(old for old, new in names.items() if new == name)}
    if name not in has and (there := next((other for other in others if other in has), None)):
      if name in names:
        print(f'note: config.{name} is called config.{there} now', file=sys.stderr)
      argv[i] = argv[i].replace(name, there, 1)


def _die(message: str, code: int = USAGE_EXIT_CODE) -> None:
  print('error: ' + ' '.join(message.split()), file=sys.stderr)
  sys.exit(code)
