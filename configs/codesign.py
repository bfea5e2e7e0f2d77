"""VGG-16: weight bits x ViP plan x technology x capacity, EDP of cache and DRAM.

    python -m experiments.codesign --config configs/codesign.py --workdir runs/codesign

About a minute on two cores. Accuracies are joined from the results.csv of finished runs that
`results` names; without any, the front ranks by bits and MACs instead.
"""

from ml_collections import config_dict


def get_config() -> config_dict.ConfigDict:
  """Fields of `experiments.codesign.SPEC`."""
  config = config_dict.ConfigDict()
  config.model = 'vgg16'
  config.image_shape = (224, 224, 3)
  config.num_classes = 1000
  config.batch = 4
  config.bits = (1, 2, 3, 4, 5, 6, 7, 8, 32)
  config.plans = ('none', 'vgg16_round1', 'vgg16_round2', 'vgg16_round3', 'vgg16_round4')
  config.technologies = ('sram', 'stt', 'sot')
  config.capacities_mib = (3, 7, 10)
  config.results = ''  # Paths of results.csv files, with commas between.
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
  config.stt_cell = 'paper_stt'
  config.sot_cell = 'paper_sot'
  config.tag_cell = 'sram'
  config.node_nm = 16  # Our own table; 22 to 120 are NVSim's.
  config.roadmap = 'HP'
  config.temperature_k = 350
  return config
