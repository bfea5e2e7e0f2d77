"""Speed of the memory search, the system model, stack distances and traffic on this machine.

    python -m experiments.nvm_bench --config configs/nvm_bench.py --workdir runs/nvm_bench

About two minutes on two cores. Expected: `full_search_ms` at most 200, `compile_s` at most 10; at
least 10^5 system evaluations a second; stack distances of 10^7 accesses within 5 s; the traffic of
five networks, inference and training, within 60 s.
"""

from ml_collections import config_dict


def get_config() -> config_dict.ConfigDict:
  """Fields of `experiments.nvm_bench.SPEC`."""
  config = config_dict.ConfigDict()
  config.cell = 'stt'
  config.capacity_mib = 4
  config.repeats = 10
  config.sweep_cells = ('sram', 'stt', 'stt_aggressive', 'sot', 'pcram', 'rram')
  config.sweep_capacities_mib = (1, 2, 3, 4, 8, 16, 32, 64)
  config.stream_accesses = 10_000_000
  config.traffic_workloads = ('alexnet', 'googlenet', 'vgg16', 'resnet18', 'squeezenet1_0')
  return config
