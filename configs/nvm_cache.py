"""Caches of SRAM, STT and SOT from 1 to 64 MiB at 16 nm, with SRAM tags.

    python -m experiments.nvm_cache --config configs/nvm_cache.py --workdir runs/nvm_cache
    python -m experiments.nvm_cache mine.cell --workdir runs/nvm_cache
    python -m experiments.nvm_cache mine.cfg --workdir runs/nvm_cache

About a minute and a half on two cores. Expected: SRAM leaks some ten times as much as STT and SOT
of equal capacity, which take a third to a half of its area.
"""

from ml_collections import config_dict


def get_config() -> config_dict.ConfigDict:
  """Fields of `experiments.nvm_cache.SPEC`."""
  config = config_dict.ConfigDict()
  config.cells = ('sram', 'paper_stt', 'paper_sot')
  config.cell_files = ''  # Further .cell files, with commas between.
  config.cfg_files = ''  # .cfg files, with commas between: what they ask for is built, no table.
  config.tag_cell = 'sram'  # 'same': of the data's cell, as in NVSim.
  config.node_nm = 16  # Our own table; 22 to 120 are NVSim's.
  config.roadmap = 'HP'
  config.temperature_k = 350
  config.capacities_mib = (1, 2, 4, 8, 16, 32, 64)
  config.capacities_kib = ()  # Smaller ones; below 4 KiB they have fewer than 16 ways.
  config.iso_area_mib = 3
  config.sensitivity_mib = 3
  config.writes_per_s = 1e7  # Line writes a second, for lifetimes: 0.64 GB/s.
  config.hottest_share = 1e-3  # Of them, to the line that is written most.
  config.nvsim_compatible = False
  return config
