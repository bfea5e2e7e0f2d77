"""Throughput of a vmapped sweep of 6 members; takes about a minute on 2 CPU cores.

python -m experiments.sweep_bench --config configs/sweep_bench.py --workdir runs/sweep_bench
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict()
  config.model = 'plain'
  config.width_multiplier = 1.0
  config.image_size = 28
  config.members = 6
  config.batch_size = 64
  config.rounds = 15
  return config
