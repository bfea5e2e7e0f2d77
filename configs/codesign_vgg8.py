"""The small VGG of `vip_vgg`, trained at 2, 4 and 32 bits: accuracy against EDP of cache and DRAM.

    for bits in 32 4 2; do python -m experiments.vip --config configs/vip_vgg.py \\
        --config.bits=$bits --workdir runs/vip_vgg_${bits}bit; done
    python -m experiments.codesign --config configs/codesign_vgg8.py --workdir runs/codesign_vgg8

Half a minute on two cores once the others are done, which take a quarter of an hour each.
Expected: fewer bits and more virtual units lower EDP, together most.
"""

from ml_collections import config_dict

from configs import codesign


def get_config() -> config_dict.ConfigDict:
  """Fields of `experiments.codesign.SPEC`."""
  config = codesign.get_config()
  config.model = 'vgg8'
  config.image_shape = (28, 28, 1)
  config.num_classes = 10
  config.bits = (2, 4, 32)
  config.plans = ()  # Those of the results.
  config.capacities_mib = (1, 2)
  config.results = ','.join(f'runs/vip_vgg_{bits}bit/results.csv' for bits in config.bits)
  return config
