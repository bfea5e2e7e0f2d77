"""Counters of DeepNVM's five networks on the GPU of this machine, beside the traffic model.

    python -m experiments.nvm_profile --config configs/nvm_profile.py --config.library=xla \\
        --workdir runs/nvm_profile

Needs a GPU and `ncu` or `nvprof` with the right to read counters; never run on a GPU yet. Finished
profiles need none:

    python -m experiments.nvm_profile --config.profiles=vgg16.training.32.csv --config.strict=True
"""

from ml_collections import config_dict


def get_config() -> config_dict.ConfigDict:
  """Fields of `experiments.nvm_profile.SPEC`."""
  config = config_dict.ConfigDict()
  config.workloads = ('alexnet', 'googlenet', 'vgg16', 'resnet18', 'squeezenet1_0')
  config.inference_batch = 4
  config.training_batch = 64
  # What the model predicts for: name the GPU of this machine, or its figures as a dict.
  config.gpu = config_dict.FieldReference('gtx_1080_ti', field_type=object)
  config.library = 'pytorch'  # Or 'xla', which fuses what lies between layers.
  config.math = 'float32'  # 'tf32' or 'bfloat16' where the GPU has units for it.
  config.algorithms = ''  # The library's choice; 'conv1_1=implicit_gemm'; 'profile'; a path.
  config.profiles = ''  # Finished profiles, with commas between; nothing is run then.
  config.profile_workload = ''  # What their names do not say; '' and 0: as their names say.
  config.profile_mode = ''
  config.profile_batch = 0
  config.profile_gpu = ''
  config.layers = ''  # 'nvtx', 'order', or a file of ranges such as 'conv1_1 0-2'.
  config.bound = 2.0  # A total that the model misses by a larger factor is a warning,
  config.strict = False  # and with strict exit code 3.
  return config
