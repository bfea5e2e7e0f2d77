"""Takes over what other runs of one study have trained."""

import json
import pathlib
import shutil

from ml_collections import config_dict

from cnnopt_jax import training
from cnnopt_jax.report import records, write_atomically
from experiments.bitwidth_study.plan import SAME_RESULTS
from experiments.common import bit_search, comparisons, run_folder, sweeps
from experiments.common.fields import ConfigError


def check(config: config_dict.ConfigDict) -> None:
  """Whether all folders of `config.merge` are runs of this study.

  Raises:
    ConfigError: naming the folder that is not, and the field in which it differs.
  """
  for folder in map(pathlib.Path, config.merge):
    path = folder.expanduser() / run_folder.CONFIG
    if not path.exists():
      raise ConfigError(f'config.merge holds {str(folder)!r}: no {run_folder.CONFIG} in it')
    run_folder.check_same(path, config, SAME_RESULTS, sweeps.ADDED)


def take(config: config_dict.ConfigDict, workdir: pathlib.Path) -> None:
  """Copies records, searches and packed networks of `config.merge` that `workdir` has not.

  A network's folder comes before its record, so that a kill leaves nothing half taken.

  Raises:
    ConfigError: if two runs have found different bits in one search, or a record is damaged.
  """
  found = run_folder.read_records(workdir, comparisons.COLUMNS)
  names = {one['name'] for one in found}
  for folder in (pathlib.Path(name).expanduser() for name in config.merge):
    if folder.resolve() == workdir.resolve():
      continue
    new = [
      one
      for one in run_folder.read_records(folder, comparisons.COLUMNS)
      if one['name'] not in names
    ]
    for one in new:
      source = training.member_folder(folder, one['name'])
      if source.is_dir():
        shutil.copytree(source, training.member_folder(workdir, one['name']), dirs_exist_ok=True)
    _take_searches(folder, workdir)
    records.append(workdir / run_folder.RECORDS, new)
    names |= {one['name'] for one in new}
    print(f'{folder}: {len(new)} networks taken')


def _take_searches(folder: pathlib.Path, workdir: pathlib.Path) -> None:
  ours, theirs = map(bit_search.read_searches, (workdir, folder))
  for name in ours.keys() & theirs.keys():
    if ours[name]['bits'] != theirs[name]['bits']:
      raise ConfigError(
        f'config.merge holds {str(folder)!r}: its search {name!r} found other bits than {workdir}; '
        'allowed: one of them'
      )
  if theirs.keys() - ours.keys():
    write_atomically(workdir / bit_search.SEARCH, json.dumps({**theirs, **ours}, indent=1) + '\n')
