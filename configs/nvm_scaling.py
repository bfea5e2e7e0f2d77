"""Caches from 1 to 256 MiB of SRAM, STT and SOT under DeepNVM's five networks.

    python -m experiments.nvm_eval --config configs/nvm_scaling.py --workdir runs/scaling

About four minutes on two cores. Expected: the larger the cache, the more STT and SOT gain over
SRAM.
"""

from ml_collections import config_dict

from configs import nvm_iso_capacity


def get_config() -> config_dict.ConfigDict:
  """Fields of `experiments.nvm_eval.SPEC`: those of equal capacity but for the capacities."""
  config = nvm_iso_capacity.get_config()
  config.analysis = 'scaling'
  config.capacities_mib = (1, 2, 3, 4, 8, 16, 32, 64, 128, 256)
  return config
