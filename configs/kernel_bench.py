"""Speed of the interpolation ops: each kernel beside its XLA forms, against copy bandwidth.

    python -m experiments.kernel_bench --config configs/kernel_bench.py --workdir runs/kernel_bench

About ten minutes on an H200. On two cores, where only the XLA forms can be timed, about four.
Expected on a GPU: the targets of docs/results/kernels.md.
"""

from ml_collections import config_dict


def get_config() -> config_dict.ConfigDict:
  """Fields of `experiments.kernel_bench.SPEC`."""
  config = config_dict.ConfigDict()
  config.batches = ()  # Batch sizes; none for 32 and 256 on a GPU with the kernels, 4 elsewhere.
  config.dtype = 'auto'  # Or float32, bfloat16; 'auto' for bfloat16 with the kernels, else float32.
  config.layers = ()  # Names of `experiments.kernel_bench.LAYERS`; none for all.
  config.rounds = 9  # Interleaved ones, that each median is over.
  config.tune = False  # Time every candidate tile of the kernels too; on a GPU only.
  return config
