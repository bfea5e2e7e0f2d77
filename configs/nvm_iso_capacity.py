"""Caches of 3 MiB of SRAM, STT and SOT under DeepNVM's five networks.

    python -m experiments.nvm_eval --config configs/nvm_iso_capacity.py --workdir runs/iso_capacity

About two minutes on two cores.
Expected: area 2.4x (STT) and 2.8x (SOT) smaller by the recalled table; EDP lower for
both.
"""

from ml_collections import config_dict


def get_config() -> config_dict.ConfigDict:
  """Fields of `experiments.nvm_eval.SPEC`."""
  config = config_dict.ConfigDict()
  config.analysis = 'iso_capacity'
  config.workloads = ('alexnet', 'googlenet', 'vgg16', 'resnet18', 'squeezenet1_0')
  config.inference_batches = (4,)
  config.training_batches = (64,)
  # Or figures of your own: {'base': 'v100', 'l2_bytes': 8 << 20}.
  config.gpu = config_dict.FieldReference('gtx_1080_ti', field_type=object)
  config.library = 'pytorch'  # Or 'xla', which fuses what lies between layers.
  config.math = 'float32'  # 'tf32' or 'bfloat16' where the GPU has units for it.
  config.algorithms = ''  # The library's choice; 'conv1_1=implicit_gemm'; a profile's: its path.
  config.layers = ''  # Of a profile that gives algorithms: 'nvtx', 'order', a file of ranges.
  config.dram = 'gddr5x'
  config.profile = ''  # Counters in place of the model's: WORKLOAD.MODE.BATCH.GPU.csv
  config.profile_workload = ''  # What its name does not say; '' and 0: as its name says.
  config.profile_mode = ''
  config.profile_batch = 0
  config.profile_gpu = ''
  config.baseline_mib = 3
  config.capacities_mib = (3,)  # Of the analysis 'scaling'.
  config.stt_cell = 'paper_stt'
  config.sot_cell = 'paper_sot'
  config.tag_cell = 'sram'  # 'same': of the data's cell, as in NVSim.
  config.node_nm = 16  # Our own table; 22 to 120 are NVSim's.
  config.roadmap = 'HP'
  config.temperature_k = 350
  return config
