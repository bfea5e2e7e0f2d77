"""What a network on a GPU reads and writes in its last-level cache and in DRAM.

    found = traffic.predict_traffic(table, traffic.GTX_1080_TI, batch=4)
    found.l2_reads, found.l2_writes, found.dram(4 << 20)

Nothing here knows a memory technology: what these accesses cost is `cnnopt_jax.nvm`'s to say.
"""

from cnnopt_jax.traffic.algorithms import ALGORITHMS
from cnnopt_jax.traffic.gpus import GPUS, GTX_1080_TI, H200, V100, Gpu, make_gpu
from cnnopt_jax.traffic.libraries import LIBRARIES, PYTORCH, XLA, Library
from cnnopt_jax.traffic.profiles import KernelProfile, ProfileError, read_profile
from cnnopt_jax.traffic.reuse import ReuseHistogram, reuse_histogram
from cnnopt_jax.traffic.stack import stack_distances
from cnnopt_jax.traffic.transactions import KernelTraffic, Traffic, predict_traffic

__all__ = [
  'ALGORITHMS',
  'GPUS',
  'GTX_1080_TI',
  'H200',
  'LIBRARIES',
  'PYTORCH',
  'V100',
  'XLA',
  'Gpu',
  'KernelProfile',
  'KernelTraffic',
  'Library',
  'ProfileError',
  'ReuseHistogram',
  'Traffic',
  'make_gpu',
  'predict_traffic',
  'read_profile',
  'reuse_histogram',
  'stack_distances',
]
