"""AlexNet at batch sizes from 1 to 256 on caches of 3 MiB.

    python -m experiments.nvm_eval --config configs/nvm_batch.py --workdir runs/batch

About two minutes on two cores. Expected: SOT's gain hardly depends on the batch; STT's
follows the share of writes.
"""

from ml_collections import config_dict

from configs import nvm_iso_capacity


def get_config() -> config_dict.ConfigDict:
  """Fields of `experiments.nvm_eval.SPEC`: those of equal capacity but for the batches."""
  config = nvm_iso_capacity.get_config()
  config.analysis = 'batch'
  config.workloads = ('alexnet',)
  config.inference_batches = (1, 2, 4, 8, 16, 32, 64, 128)
  config.training_batches = (8, 16, 32, 64, 128, 256)
  return config
