"""Which bitwidth is best, single or mixed, on whole Fashion-MNIST with five seeds.

    python -m experiments.bitwidth_study --config configs/bitwidth_study_long.py --workdir runs/long

Hours on two cores; `ir_resnet8@0.25` beside these budgets takes longer than they do together.
`--config.shard=1/8` takes an eighth of it. Expected: docs/results/bitwidth_study_long.
"""

import ml_collections

from configs import bitwidth_study


def get_config() -> ml_collections.ConfigDict:
  """What differs from configs/bitwidth_study.py."""
  config = bitwidth_study.get_config()
  config.budgets = ('plain@0.25', 'plain@0.5', 'resnet8@0.3')
  config.dataset = 'fashion_mnist'
  config.held_out = 2000
  config.mixed = ('size', 'bit_operations')
  config.tolerance = 0.002
  config.seeds = (0, 1, 2, 3, 4)
  config.epochs = 2
  return config
