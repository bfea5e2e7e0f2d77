"""Files of NVSim and its descendants: `.cell` and `.cfg`."""

from cnnopt_jax.nvm.files.cell_files import CellFile, read_cell, read_cell_file
from cnnopt_jax.nvm.files.config_files import Config, read_config
from cnnopt_jax.nvm.files.config_search import ConfigDesigns, config_cell, explore_config
from cnnopt_jax.nvm.files.option_files import OptionFileError

__all__ = [
  'CellFile',
  'Config',
  'ConfigDesigns',
  'OptionFileError',
  'config_cell',
  'explore_config',
  'read_cell',
  'read_cell_file',
  'read_config',
]
