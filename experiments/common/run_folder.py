"""The folder of a run: its config, its records, and whether it may go on there."""

import fcntl
import json
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Collection
from importlib import metadata
from typing import Any

from ml_collections import config_dict

from cnnopt_jax.report import records, write_atomically
from experiments.common import fields, huge_pages

REPO_ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG, RECORDS, RESULTS, REPORT = 'config.json', 'records.jsonl', 'results.csv', 'report.md'


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
  workdir: pathlib.Path, config: config_dict.ConfigDict, *, same_results: Collection[str] = ()
) -> dict[str, Any]:
  """Writes config.json into a new folder, or checks that an old one belongs to the same config.

  A folder whose run began with other versions, cores or device is gone on with, after a warning on
  stderr: numbers may then differ in the last bits. The first environment stays on record.

  Args:
    workdir: of the run.
    config: checked.
    same_results: fields of the config on which no result depends, 'devices' among them where the
      number of cores does not matter either: they may differ.

  Returns:
    The environment on record.

  Raises:
    ConfigError: naming the first field that differs from the folder's config.
  """
  path = workdir / CONFIG
  if not path.exists():
    return record(workdir, config)
  ours = json.loads(json.dumps(config.to_dict()))  # Tuples become lists, as in the file.
  environment = describe_environment()
  try:
    found = json.loads(path.read_text())
    theirs, recorded = found['config'], found['environment']
  except (ValueError, KeyError, TypeError):
    raise fields.ConfigError(
      f'{path}: not a config of a run; allowed: another --workdir, or this folder emptied'
    ) from None
  for name in {**theirs, **ours}:
    if theirs.get(name) != ours.get(name) and name not in same_results:
      raise fields.ConfigError(
        f'config.{name}={ours.get(name)!r} but {path} was made with {theirs.get(name)!r}; '
        'allowed: the same config, or another --workdir'
      )
  counts = ('cores', 'device_count') if 'devices' in same_results else ()
  for name, value in environment.items():
    if recorded.get(name) != value and name not in counts:
      print(
        f'warning: {name} was {recorded.get(name)!r} when this run began and is {value!r} now; '
        'results may differ in the last bits',
        file=sys.stderr,
      )
  return recorded


def read_records(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """The records of a run so far, in the order they were written; a torn last one is cut off.

  Raises:
    ConfigError: naming the line that is no record.
  """
  try:
    return records.read(workdir / RECORDS)
  except ValueError as error:
    raise fields.ConfigError(f'{error}; allowed: another --workdir') from None


class locked:
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
      raise fields.ConfigError(
        f'workdir={str(self._folder)!r}: {error.strerror}; '
        'allowed: a folder that can be made and written'
      ) from None
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
      self._file.close()
      raise fields.ConfigError(
        f'workdir={str(self._folder)!r}: another process is running in it; '
        'allowed: a folder of its own for each run'
      ) from None
    return self._folder

  def __exit__(self, *exc):
    self._file.close()
