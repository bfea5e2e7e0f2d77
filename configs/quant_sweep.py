"""Weight bitwidths 1, 2, 3, 4 and 8 at equal model size, on the embedded Fashion-MNIST subset.

    python -m experiments.quant_sweep --config configs/quant_sweep.py --workdir runs/quant_sweep

Two minutes on two cores. Expected: accuracies of 0.85 to 0.87, and no bitwidth that the seeds
can tell from the next (docs/results/quant_sweep).
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict()
  config.model = 'plain'
  config.dataset = 'fashion_mnist_subset'
  config.data_dir = ''
  config.image_size = 0  # Side of ImageNet's images; 0 for the default, and for all other sets.
  config.download = False

  config.sizes_kib = (8.0,)
  config.width_multipliers = ()  # In place of sizes: networks of these widths, whatever their size.
  # Or 'folded', norms taking the steps of the layers before them, in size and on disk; 'weights'.
  config.accounting = 'stored'
  config.bits = (1, 2, 3, 4, 8)
  config.reference = True
  config.seeds = (0, 1, 2)

  # '' for random weights, 'pretrained', or the folder of an earlier run with float networks.
  config.start = ''
  config.epochs = 5
  config.batch_size = 64
  config.learning_rates = (0.1,)
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

  config.max_members = 8
  config.checkpoint_steps = 0
  config.devices = 0  # CPU cores, or GPUs, that members train on; 0 for all.
  return config
