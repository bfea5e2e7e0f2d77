"""The forms of a convolution and of its transposes on this CPU, and what the choice loses.

    python -m experiments.conv_bench --config configs/conv_bench.py --workdir runs/conv_bench

Two minutes on one core. Expected: docs/results/conv_bench.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict()
  config.batch_size = 64
  config.rounds = 15
  # Those of the default sweep's networks, those of width 1 that sweep_bench trains, and others
  # around the thresholds.
  config.layers = (
    '28/2 1 5',
    '28/2 1 8',
    '28/2 1 14',
    '14/1 5 8',
    '14/1 8 13',
    '14/1 7 11',
    '14/1 10 15',
    '14/1 12 18',
    '14/1 14 21',
    '28/1 4 6',
    '28/1 8 12',
    '14/2 8 11',
    '14/2 13 17',
    '14/2 21 27',
    '7/1 11 13',
    '7/1 17 21',
    '7/1 27 34',
    '7/2 13 16',
    '7/2 21 25',
    '7/2 34 41',
    '4/1 16 18',
    '4/1 25 29',
    '4/1 41 48',
    '28/2 1 16',
    '28/1 1 16',
    '28/1 2 8',
    '28/1 14 20',
    '14/1 18 26',
    '14/1 16 24',
    '14/2 24 32',
    '7/1 32 40',
    '7/2 40 48',
    '4/1 48 56',
    '32/1 3 16',
    '32/1 16 16',
    '32/1 64 64',
    '32/2 16 32',
    '16/1 32 32',
    '16/2 32 64',
    '8/1 64 64',
    '14/1 45 53',
    '14/1 90 101',
    '28/1 20 20',
    # Those of MobileNets, narrow and wide.
    '28/1 24 depthwise',
    '28/2 48 depthwise',
    '14/1 48 depthwise',
    '14/2 96 depthwise',
    '7/1 96 depthwise',
    '28/1 96 depthwise',
    '28/1 24 5x5 depthwise',
    '14/1 48 5x5 depthwise',
    '28/1 4 24 1x1',
    '28/1 24 8 1x1',
    '14/1 8 48 1x1',
    '14/1 48 16 1x1',
    '7/1 16 96 1x1',
    '28/1 16 96 1x1',
    '28/1 96 16 1x1',
    '28/2 16 32 1x1',
    '14/1 64 128 1x1',
    '14/1 256 64 1x1',
  )
  return config
