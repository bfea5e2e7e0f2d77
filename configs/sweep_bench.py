"""How fast sweeps train: against PyTorch, over cores, and members mapped in four ways.

    python -m experiments.sweep_bench --config configs/sweep_bench.py --workdir runs/sweep_bench

A few minutes on two cores, and some more with PyTorch. Expected: docs/results/sweep_bench.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict()
  config.peers = ()  # ('torch',) to compare with PyTorch, where it is installed.
  config.jobs = ('sweep', 'resnet20')
  config.devices = 0  # CPU cores, or GPUs; 0 for all.

  # The members that are mapped in four ways.
  config.model = 'plain'
  config.width_multiplier = 1.0
  config.image_size = 28
  config.members = 6
  config.batch_size = 64
  config.rounds = 15
  return config
