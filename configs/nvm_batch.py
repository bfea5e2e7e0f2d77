"""AlexNet at batch sizes from 1 to 256 on caches of 3 MB.

    python -m experiments.nvm_eval --config configs/nvm_batch.py --workdir runs/batch

About two minutes on two cores. Expected: SOT's gain hardly depends on the batch; STT's
follows the share of writes.
"""

from ml_collections import config_dict


def get_config() -> config_dict.ConfigDict:
  """Fields of `experiments.nvm_eval.SPEC`."""
  config = config_dict.ConfigDict()
  config.analysis = 'batch'
  config.workloads = ('alexnet',)
  config.inference_batches = (1, 2, 4, 8, 16, 32, 64, 128)
  config.training_batches = (8, 16, 32, 64, 128, 256)
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
