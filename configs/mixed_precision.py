"""Mixed precision against a single weight bitwidth at equal model size, on embedded Fashion-MNIST.

    python -m experiments.mixed_precision --config configs/mixed_precision.py --workdir runs/mixed

The mixed network has in each layer the fewest bits that lose no more than `tolerance`; its size is
the budget that networks of one bitwidth, and mixed networks of free width, are widened to.

Seven minutes on two cores. Expected: docs/results/mixed_precision.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict()
  config.model = 'plain'
  config.width_multiplier = 0.5  # Of the mixed network whose size is the budget.
  config.dataset = 'fashion_mnist_subset'
  config.data_dir = ''
  config.image_size = 0
  config.download = False
  config.held_out = 2000  # Training images that choose bits and are not trained on.

  config.bits = (1, 2, 3, 4, 8)  # Of the networks of one bitwidth.
  config.layer_choices = (1, 2, 3, 4, 6, 8)  # Bitwidths that a layer may have.
  # Accuracy that the mixed network may lose against float, before training with its bits: a quarter
  # of the standard error of an accuracy on 2,000 images.
  config.tolerance = 0.002
  config.free_widths = (2, 4)  # Mixed networks as wide as those of these single bitwidths.
  config.sensitivity = 'loss_change'  # By which those are allocated.
  config.probes = 32  # Of 'hessian'.
  config.accounting = 'stored'
  config.slack = 0.02  # By which a network may be smaller than the mixed one.
  config.seeds = (0, 1, 2, 3, 4)

  config.start = ''  # Nothing else here: widths are found as the run goes.
  config.epochs = 5
  config.batch_size = 64
  config.learning_rate = 0.1
  config.momentum = 0.9
  config.weight_decay = 5e-4
  config.label_smoothing = 0.0
  config.shift = 1
  config.flip = True

  config.levels = 'auto'
  config.step = 'gaussian'  # Or 'mse', 'absmax', or 'learned', trained along with weights.
  config.group_size = 0  # Inputs of a channel that share a step; 0 for all of them.
  config.per_channel = True
  config.clip_gradient = False
  config.layer_bits = ()

  config.max_members = 16
  config.checkpoint_steps = 0
  config.devices = 0  # CPU cores, or GPUs, that members train on; 0 for all.
  return config
