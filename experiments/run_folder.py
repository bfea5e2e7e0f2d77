"""The folder of a run: its config, its records, and whether it may go on there."""

import json
import pathlib
import sys
from typing import Any

from ml_collections import config_dict

from experiments import launch

CONFIG, RECORDS, RESULTS, REPORT = 'config.json', 'records.jsonl', 'results.csv', 'report.md'


def record(workdir: pathlib.Path, config: config_dict.ConfigDict) -> dict[str, Any]:
  """Writes config.json, the config and the environment, and returns the environment."""
  content = {'config': config.to_dict(), 'environment': launch.environment()}
  launch.write_atomically(workdir / CONFIG, json.dumps(content, indent=1) + '\n')
  return content['environment']


def claim(workdir: pathlib.Path, config: config_dict.ConfigDict) -> dict[str, Any]:
  """Writes config.json into a new folder, or checks that an old one belongs to the same config.

  A folder whose run began with other versions, cores or device is gone on with, after a warning on
  stderr: numbers may then differ in the last bits. The first environment stays on record.

  Args:
    workdir: of the run.
    config: checked.

  Returns:
    The environment on record.

  Raises:
    ConfigError: naming the first field that differs from the folder's config.
  """
  path = workdir / CONFIG
  if not path.exists():
    return record(workdir, config)
  ours = json.loads(json.dumps(config.to_dict()))  # Tuples become lists, as in the file.
  environment = launch.environment()
  try:
    found = json.loads(path.read_text())
    theirs, recorded = found['config'], found['environment']
  except (ValueError, KeyError, TypeError):
    raise launch.ConfigError(
      f'{path}: not a config of a run; allowed: another --workdir, or this folder emptied'
    ) from None
  for name in {**theirs, **ours}:
    if theirs.get(name) != ours.get(name):
      raise launch.ConfigError(
        f'config.{name}={ours.get(name)!r} but {path} was made with {theirs.get(name)!r}; '
        'allowed: the same config, or another --workdir'
      )
  for name, value in environment.items():
    if recorded.get(name) != value:
      print(
        f'warning: {name} was {recorded.get(name)!r} when this run began and is {value!r} now; '
        'results may differ in the last bits',
        file=sys.stderr,
      )
  return recorded
