"""The folder of a run: its config, its records, and whether it may go on there."""

import fcntl
import json
import os
import pathlib
import platform
import subprocess
import sys
import types
from collections.abc import Collection, Mapping
from importlib import metadata
from typing import Any

from ml_collections import config_dict

from cnnopt_jax.report import records, write_atomically
from experiments.common import fields, huge_pages, stops

REPO_ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG, RECORDS, RESULTS, REPORT = 'config.json', 'records.jsonl', 'results.csv', 'report.md'
# Held by the process that runs in the folder, and the mark by which it is known to be a run's.
LOCK = '.lock'


def describe_environment() -> dict[str, Any]:
  """What a result depends on besides its config: code revision, versions, device, cores."""
  import jax  # Late, so that a wrong flag answers at once.

  revision = subprocess.run(
    ['git', '-C', str(REPO_ROOT), 'describe', '--always', '--dirty'], capture_output=True, text=True
  )
  return {
    'git': revision.stdout.strip() or 'unknown',
    'python': platform.python_version(),
    'versions': _versions('cnnopt-jax', 'jax', 'jaxlib', 'flax', 'optax', 'numpy'),
    'device': jax.devices()[0].device_kind,
    'device_count': jax.device_count(),
    'cores': len(os.sched_getaffinity(0)),
    'huge_pages': huge_pages.SETTING in os.environ.get('GLIBC_TUNABLES', ''),
    'x64': jax.config.jax_enable_x64,
  }


def _versions(*packages: str) -> dict[str, str]:
  """Of the packages that are installed: `kernel_bench` runs where some are not."""
  found = {}
  for name in packages:
    try:
      found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      continue
  return found


def record(workdir: pathlib.Path, config: config_dict.ConfigDict) -> dict[str, Any]:
  """Writes config.json, the config and the environment, and returns the environment."""
  content = {'config': config.to_dict(), 'environment': describe_environment()}
  write_atomically(workdir / CONFIG, json.dumps(content, indent=1) + '\n')
  return content['environment']


def claim(
  workdir: pathlib.Path,
  config: config_dict.ConfigDict,
  *,
  same_results: Collection[str] = (),
  added: Mapping[str, Any] = types.MappingProxyType({}),
) -> dict[str, Any]:
  """Writes config.json into a new folder, or checks that an old one belongs to the same config.

  A folder whose run began with other versions, cores or device is gone on with, after a warning on
  stderr: numbers may then differ in the last bits. The first environment stays on record.

  Args:
    workdir: of the run.
    config: checked.
    same_results: fields of the config on which no result depends, 'devices' among them where the
      number of cores does not matter either: they may differ.
    added: fields that the folder's config may lack, as an earlier version wrote it, each with the
      value by which it changes nothing: ours must be that.

  Returns:
    The environment on record.

  Raises:
    ConfigError: naming the first field that differs from the folder's config, or `JAX_ENABLE_X64`.
  """
  path = workdir / CONFIG
  if path.exists():
    environment = check_same(path, config, same_results, added)
  elif (workdir / RECORDS).exists():
    raise fields.ConfigError(
      f'{workdir / RECORDS}: nothing says of which config, as {CONFIG} is missing; '
      'allowed: that file restored, or another --workdir'
    )
  else:
    environment = record(workdir, config)
  stops.goes_on_from(workdir)
  return environment


def check_same(
  path: pathlib.Path,
  config: config_dict.ConfigDict,
  same_results: Collection[str],
  added: Mapping[str, Any],
) -> dict[str, Any]:
  """What `claim` does with an old folder's config.json at `path`."""
  found = _read_config(path)
  if found is None:
    raise fields.ConfigError(
      f'{path}: damaged, or of no run; allowed: that file restored, or another --workdir'
    )
  theirs, recorded = found
  # Tuples become lists, as in the file.
  ours, earlier = json.loads(json.dumps([config.to_dict(), dict(added)]))
  theirs = {name: value for name, value in earlier.items() if name in ours} | theirs
  for name in {**theirs, **ours}:
    if theirs.get(name) != ours.get(name) and name not in same_results:
      raise fields.ConfigError(
        f'config.{name}={ours.get(name)!r} but {path} was made with {theirs.get(name)!r}; '
        'allowed: the same config, or another --workdir'
      )
  counts = ('cores', 'device_count') if 'devices' in same_results else ()
  for name, value in describe_environment().items():
    was = recorded.get(name, False if name == 'x64' else value)  # Earlier versions recorded less.
    if was == value or name in counts:
      continue
    if name == 'x64' and name in recorded:
      raise fields.ConfigError(
        f'JAX_ENABLE_X64={value} but {path} was made with {was}; '
        'allowed: the same setting, or another --workdir'
      )
    print(
      f'warning: {name} was {was!r} when this run began and is {value!r} now; '
      'results may differ in the last bits',
      file=sys.stderr,
    )
  return recorded


def _read_config(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
  """Config and environment of a config.json; None if it is none of a run."""
  try:
    content = json.loads(path.read_text())
    config, environment = content['config'], content['environment']
  except (OSError, ValueError, KeyError, TypeError):
    return None
  return (config, environment) if type(config) is type(environment) is dict else None


def read_records(workdir: pathlib.Path, columns: Collection[str]) -> list[dict[str, Any]]:
  """The records of a run so far, in the order they were written; a torn last one is cut off.

  Args:
    workdir: of the run.
    columns: that a record has at least.

  Raises:
    ConfigError: naming the line that is no record.
  """
  path = workdir / RECORDS
  advice = 'allowed: that line deleted, so that its work is done anew, or another --workdir'
  try:
    found = records.read(path)
  except ValueError as error:
    raise fields.ConfigError(f'{error}; {advice}') from None
  for number, one in enumerate(found, 1):
    for name in columns:
      if name not in one:
        raise fields.ConfigError(f'{path}, line {number}: no {name!r} in it; {advice}')
  return found


class locked:
  """Makes `folder` and holds it for this process: two runs in one folder would mix their records.

  What stands in the folder must be of an earlier run of the same experiment, so that nothing of a
  user's is overwritten.
  """

  def __init__(self, folder: pathlib.Path, experiment: str, known: Collection[str]):
    """Of a folder that need not exist.

    Args:
      folder: for one run.
      experiment: its module.
      known: fields that configs of the experiment have, or had.
    """
    self._folder, self._experiment, self._known = pathlib.Path(folder), experiment, known

  def __enter__(self) -> pathlib.Path:
    """Takes the folder.

    Raises:
      ConfigError: if the folder cannot be written, holds something else, or another process has it;
        it is then as it was.
    """
    try:
      self._check_content()
      self._folder.mkdir(parents=True, exist_ok=True)
      self._file = open(self._folder / LOCK, 'a+')
      try:
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        self._file.close()
        raise self._error(
          'another process is running in it', 'a folder of its own for each run'
        ) from None
      self._file.seek(0)
      if not self._file.read():
        self._file.write(self._experiment + '\n')
        self._file.flush()
    except OSError as error:
      raise self._error(
        error.strerror or str(error), 'a folder that can be made and written'
      ) from None
    return self._folder

  def __exit__(self, *exc):
    self._file.close()

  def _check_content(self) -> None:
    """Raises ConfigError unless the folder is new, empty or of a run of this experiment."""
    if not self._folder.exists():
      return
    found = sorted(path.name for path in self._folder.iterdir())
    lock = self._folder / LOCK
    mark = lock.read_bytes().decode(errors='replace').strip() if lock.is_file() else ''
    if mark == self._experiment or (found in ([], [LOCK]) and not mark):
      return
    config = _read_config(self._folder / CONFIG)
    # Earlier versions left no mark.
    if not mark and config is not None and set(config[0]) <= set(self._known):
      return
    if mark.startswith('experiments.'):
      what = f'a run of {mark}'
    elif not mark and config is not None:
      what = 'a run of another experiment'
    else:
      name = next((name for name in found if name != LOCK), LOCK)
      what = f'{name!r} and no run of {self._experiment}'
    raise self._error(f'it holds {what}', 'a new or an empty folder')

  def _error(self, what: str, allowed: str) -> fields.ConfigError:
    return fields.ConfigError(f'workdir={str(self._folder)!r}: {what}; allowed: {allowed}')
