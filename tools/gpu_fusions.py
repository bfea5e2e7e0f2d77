"""Counts the GPU fusions and temporaries that XLA makes of the interpolation ops, without a GPU.

    python3.11 -m venv /tmp/aot && /tmp/aot/bin/pip install 'jax==0.10.2' flax
    /tmp/aot/bin/pip install --no-deps 'jax-cuda12-pjrt==0.10.2' 'jax-cuda12-plugin==0.10.2'
    JAX_SKIP_CUDA_CONSTRAINTS_CHECK=1 PYTHONPATH=. /tmp/aot/bin/python tools/gpu_fusions.py

Compiles each op's XLA form ahead of time for an H100-like target (478 MB of plugin, so this is no
test) and prints, forward and backward: kernels launched, bytes of temporaries, and bytes of
operands and results, the least that must move. One kernel and no temporaries is the aim.
"""

import functools
import re

import jax
from jax.experimental import topologies

from cnnopt_jax.kernels.border_pad import reference as border_pad
from cnnopt_jax.kernels.interp2x import reference as interp2x
from cnnopt_jax.kernels.interp2x_add_relu import reference as add_relu
from cnnopt_jax.kernels.interp2x_max_pool import reference as max_pool

# What XLA's GPU compiler needs to know of an H100 (SXM): its public figures.
TARGET = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84942979072
  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 minor: 0 }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
BATCH, SIZE, CHANNELS, DTYPE = 32, (224, 224), 64, 'bfloat16'


def main():
  device = topologies.get_topology_desc(
    'topology', 'cuda', target_config=TARGET, topology='1x1x1'
  ).devices[0]
  sharding = jax.sharding.SingleDeviceSharding(device)

  def array(size, dtype=DTYPE):
    return jax.ShapeDtypeStruct((BATCH, *size, CHANNELS), dtype, sharding=sharding)

  samples, full = array([-(-n // 2) for n in SIZE]), array(SIZE)
  positive = array(SIZE, bool)
  pooled = array([n // 2 for n in SIZE])
  padded = array([n + 2 for n in samples.shape[1:3]])
  both = functools.partial(add_relu.add_relu, other_virtual=True)
  one = functools.partial(add_relu.add_relu, other_virtual=False)
  back_both = functools.partial(add_relu.transposed, other_virtual=True)
  back_one = functools.partial(add_relu.transposed, other_virtual=False)
  # Forward and what it takes, backward and what it takes: cotangents, then residuals.
  cases = {
    'interp2x': (interp2x.interp2x, [samples], interp2x.interp2x_transposed, [full]),
    'interp2x_max_pool': (max_pool.max_pool, [samples], max_pool.transposed, [pooled, samples]),
    'border_pad': (border_pad.border_pad, [samples], border_pad.border_pad_transposed, [padded]),
    'interp2x_add_relu': (both, [samples, samples], back_both, [full, positive]),
    'interp2x_add_relu, map': (one, [samples, full], back_one, [full, positive]),
  }
  print(f'{BATCH} x {SIZE} x {CHANNELS}, {DTYPE}, JAX {jax.__version__}')
  for name, (forward, arrays, backward, cotangents) in cases.items():
    for direction, function, given in (
      ('forward', forward, arrays),
      ('backward', backward, cotangents),
    ):
      function = functools.partial(function, size=SIZE)
      compiled = jax.jit(function).lower(*given).compile()
      entry = re.search(r'^ENTRY.*?^}', compiled.as_text(), re.S | re.M)[0]
      kernels = re.findall(r' (fusion|custom-call|copy|reduce|scatter|gather)\(', entry)
      memory = compiled.memory_analysis()
      moved = memory.argument_size_in_bytes + memory.output_size_in_bytes
      print(
        f'{name:24} {direction:9} kernels {len(kernels)}, '
        f'temporaries {memory.temp_size_in_bytes / 1e6:.1f} MB, '
        f'operands and results {moved / 1e6:.1f} MB'
      )


if __name__ == '__main__':
  main()
