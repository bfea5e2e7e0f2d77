"""Compare the memory model with NVSim's and CACTI's figures.

    python -m experiments.nvm_validate --config configs/nvm_validate.py \\
        --reference tests/nvm/reference/nvsim_cache_search.csv --workdir runs/nvm_validate

About a minute for all files of tests/nvm/reference on two cores, 20 s for one. Expected: every
group within its limits.
"""

from ml_collections import config_dict


def get_config() -> config_dict.ConfigDict:
  """Fields of `experiments.nvm_validate.SPEC`."""
  config = config_dict.ConfigDict()
  config.cells = ''  # Further .cell files, with commas between; a row's cell is their stem.
  config.worst_rows = 20  # Printed.
  config.associativity = 16  # Of cache-search rows, whose format does not say.
  return config
