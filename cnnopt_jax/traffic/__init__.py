"""What a network on a GPU reads and writes in its last-level cache and in DRAM.

    found = traffic.predict_traffic(table, traffic.GTX_1080_TI, batch=4)
    found.l2_reads, found.l2_writes, found.dram(4 << 20)

Nothing here knows a memory technology: what these accesses cost is `cnnopt_jax.nvm`'s to say.
"""

from cnnopt_jax.traffic.algorithms import ALGORITHMS
from cnnopt_jax.traffic.algorithms import KINDS as KERNEL_KINDS
from cnnopt_jax.traffic.checks import check_algorithms
from cnnopt_jax.traffic.gpus import GPUS, GTX_1080_TI, H200, MATHS, V100, Gpu, make_gpu
from cnnopt_jax.traffic.libraries import LIBRARIES, PYTORCH, XLA, Library
from cnnopt_jax.traffic.profiles import COUNTERS as PROFILE_COUNTERS
from cnnopt_jax.traffic.profiles import MODES as PROFILE_MODES
from cnnopt_jax.traffic.profiles import (
  KernelProfile,
  LaunchProfile,
  LayerError,
  LayerProfile,
  ProfileDemand,
  ProfiledTraffic,
  ProfileError,
  check_gpu,
  check_launches,
  compare_layers,
  gpu_model,
  group_by_layer,
  match_layer,
  part_of,
  profile_algorithms,
  profile_demand,
  read_launches,
  read_layer_ranges,
  read_profile,
  split_kind,
  total_of,
)
from cnnopt_jax.traffic.reuse import ReuseHistogram, reuse_histogram
from cnnopt_jax.traffic.stack import stack_distances
from cnnopt_jax.traffic.transactions import KernelTraffic, Traffic, predict_traffic

__all__ = [
  'ALGORITHMS',
  'GPUS',
  'GTX_1080_TI',
  'H200',
  'KERNEL_KINDS',
  'LIBRARIES',
  'MATHS',
  'PYTORCH',
  'V100',
  'XLA',
  'Gpu',
  'PROFILE_COUNTERS',
  'PROFILE_MODES',
  'KernelProfile',
  'KernelTraffic',
  'Library',
  'LaunchProfile',
  'LayerError',
  'LayerProfile',
  'ProfileDemand',
  'ProfileError',
  'ProfiledTraffic',
  'ReuseHistogram',
  'Traffic',
  'check_algorithms',
  'check_gpu',
  'check_launches',
  'compare_layers',
  'gpu_model',
  'group_by_layer',
  'make_gpu',
  'match_layer',
  'part_of',
  'predict_traffic',
  'profile_algorithms',
  'profile_demand',
  'read_launches',
  'read_layer_ranges',
  'read_profile',
  'reuse_histogram',
  'split_kind',
  'stack_distances',
  'total_of',
]
