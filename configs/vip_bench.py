"""Speed of ViP on networks of published size: batch 4, 224x224 pixels, float32.

    python -m experiments.vip_bench --config configs/vip_bench.py --workdir runs/vip_bench

About 14 minutes on two cores. Expected: docs/results/vip_bench.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict()
  config.batch_size = 4
  config.image_size = 224
  config.rounds = 9
  config.training_rounds = 3
  config.form_rounds = 9
  return config
