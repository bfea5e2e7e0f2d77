"""Which bitwidth is best, single or mixed, by equal size and equal bit operations; reduced form.

    python -m experiments.bitwidth_study --config configs/bitwidth_study.py --workdir runs/study

On two cores it took 41 minutes beside other work, on the embedded Fashion-MNIST subset. Expected:
docs/results/bitwidth_study. The long form is configs/bitwidth_study_long.py.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict()
  # What these networks at these width multipliers cost with weights of `budget_bits`; ir_resnet8
  # has depth-wise layers.
  config.budgets = ('plain@0.25', 'plain@0.5', 'ir_resnet8@0.25')
  config.budget_bits = 8
  config.costs = ('size', 'bit_operations')
  config.dataset = 'fashion_mnist_subset'
  config.data_dir = ''
  config.image_size = 0
  config.download = False
  config.held_out = 1000  # Training images that choose bits and are not trained on.

  config.bits = (1, 2, 3, 4, 8)  # Of the networks of one bitwidth.
  config.mixed = ('size',)  # Costs at which there are mixed networks too.
  # The fewest bits are searched for in a float network as wide as that of this bitwidth.
  config.mixed_width_bits = 4
  config.layer_choices = (1, 2, 3, 4, 6, 8)  # Bitwidths that a layer may have.
  config.tolerance = 0.004  # A third of the standard error of an accuracy on 1,000 images.
  config.free_widths = (4,)  # Mixed networks as wide as those of these single bitwidths.
  config.sensitivity = 'loss_change'  # By which those are allocated.
  config.probes = 32  # Of 'hessian'.
  config.accounting = 'stored'
  config.slack = 0.05  # By which a network may cost less than its budget.
  config.seeds = (0, 1, 2)
  config.learning_rate = 0.1
  config.fan_ins = (9, 18, 36, 72, 144, 288, 576, 1152)  # Of Gaussian filters.

  config.shard = ''  # 'I/N' to train the I-th of N shares of the work.
  config.merge = ()  # Folders of shards, whose networks are taken over.

  config.start = ''
  config.epochs = 3
  config.batch_size = 64
  config.momentum = 0.9
  config.weight_decay = 5e-4
  config.label_smoothing = 0.0
  config.shift = 1
  config.flip = True

  config.levels = 'auto'
  config.step = 'gaussian'
  config.group_size = 0
  config.per_channel = True
  config.clip_gradient = False
  config.layer_bits = ()

  config.max_members = 16
  config.checkpoint_steps = 0
  config.devices = 0  # CPU cores, or GPUs, that members train on; 0 for all.
  return config
