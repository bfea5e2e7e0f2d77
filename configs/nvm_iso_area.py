"""The STT and SOT caches that fit the area of 3 MB of SRAM, under DeepNVM's five networks.

    python -m experiments.nvm_eval --config configs/nvm_iso_area.py --workdir runs/iso_area

About three minutes on two cores.
Expected: 7 MB of STT and 10 MB of SOT by the recalled table, and fewer DRAM accesses.
"""

from ml_collections import config_dict


def get_config() -> config_dict.ConfigDict:
  """Fields of `experiments.nvm_eval.SPEC`."""
  config = config_dict.ConfigDict()
  config.analysis = 'iso_area'
  config.workloads = ('alexnet', 'googlenet', 'vgg16', 'resnet18', 'squeezenet1_0')
  config.inference_batches = (4,)
  config.training_batches = (64,)
  config.gpu = 'gtx_1080_ti'
  config.dram = 'gddr5x'
  config.baseline_mib = 3
  config.capacities_mib = (3,)  # Of the analysis 'scaling'.
  config.stt_cell = 'paper_stt'
  config.sot_cell = 'paper_sot'
  config.tag_cell = 'sram'      # 'same': of the data's cell, as in NVSim.
  config.node_nm = 16           # Our own table; 22 to 120 are NVSim's.
  config.roadmap = 'HP'
  config.temperature_k = 350
  return config
