"""The files in configs/, as tests use them."""

import importlib
import pathlib
import re
from types import ModuleType

from ml_collections import config_dict

from experiments.common import fields

FOLDER = pathlib.Path(__file__).resolve().parents[2] / 'configs'
NAMES = tuple(sorted(path.stem for path in FOLDER.glob('*.py') if path.stem != '__init__'))


def experiment_of(name: str) -> ModuleType:
  """The experiment that a config file's docstring starts with it."""
  text = importlib.import_module(f'configs.{name}').__doc__ or ''
  found = re.search(rf'-m (experiments\.\w+)\s+--config\s+configs/{name}\.py', text)
  assert found, f'configs/{name}.py: no command with --config configs/{name}.py in its docstring'
  return importlib.import_module(found[1])


def load_config(name: str, **changes) -> config_dict.ConfigDict:
  """A config file with some fields changed, checked as its experiment checks it."""
  config = importlib.import_module(f'configs.{name}').get_config()
  with config.unlocked():
    config.update(changes)
  return fields.check(config, experiment_of(name).SPEC)
