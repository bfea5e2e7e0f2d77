"""The study on ImageNet with the networks of the paper, as recalled.

    python -m experiments.bitwidth_study --config configs/bitwidth_study_imagenet.py

Needs ImageNet prepared by TFDS (`config.data_dir`) and GPUs, among which `config.shard` shares it
out; it has not been run. Networks and bitwidths are those of arXiv 2008.09916 as recalled; the
recipe is a usual one.
"""

import ml_collections

from configs import bitwidth_study


def get_config() -> ml_collections.ConfigDict:
  """What differs from configs/bitwidth_study.py."""
  config = bitwidth_study.get_config()
  config.budgets = tuple(
    f'{name}@{width}' for name in ('resnet50', 'mobilenet_v2') for width in (0.25, 0.5, 1)
  )
  config.costs = ('size',)
  config.dataset = 'imagenet2012'
  config.image_size = 224
  config.held_out = 10_000
  config.bits = (1, 2, 4, 8)
  config.layer_choices = (1, 2, 4, 8)
  config.tolerance = 0.0
  config.accounting = 'weights'
  config.seeds = (0, 1, 2)
  config.epochs = 90
  config.batch_size = 256
  config.weight_decay = 1e-4
  config.label_smoothing = 0.1
  config.shift = 16
  config.max_members = 1
  return config
