"""NVSim's files: `.cell` and `.cfg`."""

from cnnopt_jax.nvm.files.cell_files import read_cell
from cnnopt_jax.nvm.files.config_files import Config, read_config
from cnnopt_jax.nvm.files.option_files import OptionFileError

__all__ = ['Config', 'OptionFileError', 'read_cell', 'read_config']
