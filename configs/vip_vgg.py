"""Virtual pooling of a small VGG on the embedded Fashion-MNIST subset, from training to the knob.

    python -m experiments.vip --config configs/vip_vgg.py --workdir runs/vip_vgg

Eleven minutes on two cores. Expected: dense 0.90, all seven units virtual 0.89 at more than twice
the speed, two points below the dense network fine-tuned as long.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict()
  config.model = 'vgg8'
  config.width_multiplier = 0.5
  config.bits = 32  # Of a weight: 1 to 8, or 32 for float.
  config.dataset = 'fashion_mnist_subset'
  config.data_dir = ''
  config.image_size = 0  # Side of ImageNet's images; 0 for the default, and for all other sets.
  config.download = False

  config.seeds = (0, 1, 2)
  config.epochs = 5
  config.batch_size = 64
  config.learning_rate = 0.1
  config.momentum = 0.9
  config.weight_decay = 5e-4
  config.label_smoothing = 0.0
  config.shift = 1
  config.flip = True
  config.checkpoint_steps = 0

  config.rounds = 3
  config.fine_tune_epochs = 2
  config.fine_tune_learning_rate = 0.03
  config.control = True  # Also fine-tunes the dense network, as long as each round.
  config.sensitivity_images = 2000  # Of the training split: the order is not fitted to the test.
  config.random_plans = 12

  config.bound_images = 32
  config.timing_batch = 64
  config.timing_rounds = 30
  config.energy_seconds = 5.0
  return config
