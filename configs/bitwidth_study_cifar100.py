"""The study on CIFAR-100 with the networks of the paper, as recalled.

    python -m experiments.bitwidth_study --config configs/bitwidth_study_cifar100.py

Needs CIFAR-100 prepared by TFDS (`config.data_dir`) and a GPU; it has not been run. Networks and
bitwidths are those of arXiv 2008.09916 as recalled; the recipe is a usual one.
"""

import ml_collections

from configs import bitwidth_study


def get_config() -> ml_collections.ConfigDict:
  """What differs from configs/bitwidth_study.py."""
  config = bitwidth_study.get_config()
  networks = ('resnet20', 'vgg11', 'mobilenet_v2', 'ir_resnet26')
  config.budgets = tuple(f'{name}@{width}' for name in networks for width in (0.25, 0.5, 1))
  config.costs = ('size',)
  config.dataset = 'cifar100'
  config.held_out = 5000
  config.bits = (1, 2, 4, 8)
  config.layer_choices = (1, 2, 4, 8)
  config.tolerance = 0.0
  config.accounting = 'weights'
  config.epochs = 200
  config.batch_size = 128
  config.shift = 4
  return config
