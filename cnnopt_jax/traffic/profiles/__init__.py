"""Profiles of nvprof and Nsight Compute: L2 and DRAM transactions and times of kernels.

    nvprof --csv --print-gpu-trace --metrics l2_tex_read_transactions,l2_tex_write_transactions,\\
dram_read_transactions,dram_write_transactions --log-file profile.csv COMMAND
    ncu --csv --cache-control none --clock-control base --metrics gpu__time_duration.sum,\\
lts__t_sectors_srcunit_tex_op_read.sum,lts__t_sectors_srcunit_tex_op_write.sum,\\
dram__sectors_read.sum,dram__sectors_write.sum --log-file profile.csv COMMAND

    launches = traffic.read_launches('vgg16.training.32.v100.csv')
    traffic.group_by_layer(launches, by='nvtx')
    traffic.profile_demand(launches, traffic.GPUS['v100'])
    traffic.profile_algorithms({'conv1_1': launches[:2], 'conv1_2': launches[2:6]})

The layouts that are read stand in `layouts.py`, the metrics in `metrics.py`.
"""

from cnnopt_jax.traffic.profiles.algorithms import profile_algorithms, split_kind
from cnnopt_jax.traffic.profiles.comparison import LayerError, compare_layers, match_layer
from cnnopt_jax.traffic.profiles.coverage import (
  MODES,
  check_gpu,
  check_launches,
  gpu_model,
  part_of,
)
from cnnopt_jax.traffic.profiles.demand import ProfileDemand, ProfiledTraffic, profile_demand
from cnnopt_jax.traffic.profiles.launches import (
  KernelProfile,
  LaunchProfile,
  read_launches,
  read_profile,
  total_of,
)
from cnnopt_jax.traffic.profiles.layers import LayerProfile, group_by_layer, read_layer_ranges
from cnnopt_jax.traffic.profiles.metrics import COUNTERS, METRICS
from cnnopt_jax.traffic.profiles.tables import ProfileError

__all__ = [
  'COUNTERS',
  'METRICS',
  'MODES',
  'KernelProfile',
  'LaunchProfile',
  'LayerError',
  'LayerProfile',
  'ProfileDemand',
  'ProfileError',
  'ProfiledTraffic',
  'check_gpu',
  'check_launches',
  'compare_layers',
  'gpu_model',
  'group_by_layer',
  'match_layer',
  'part_of',
  'profile_algorithms',
  'profile_demand',
  'read_launches',
  'read_layer_ranges',
  'read_profile',
  'split_kind',
  'total_of',
]
