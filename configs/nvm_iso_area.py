"""The STT and SOT caches that fit the area of 3 MiB of SRAM, under DeepNVM's five networks.

    python -m experiments.nvm_eval --config configs/nvm_iso_area.py --workdir runs/iso_area

About three minutes on two cores.
Expected: 7 MiB of STT and 10 MiB of SOT by the recalled table, and fewer DRAM accesses.
"""

from ml_collections import config_dict

from configs import nvm_iso_capacity


def get_config() -> config_dict.ConfigDict:
  """Fields of `experiments.nvm_eval.SPEC`: those of equal capacity but for the analysis."""
  config = nvm_iso_capacity.get_config()
  config.analysis = 'iso_area'
  return config
