"""A GPU so small that its blocks can be counted, and convolutions to run on it."""

import jax
import jax.numpy as jnp

from cnnopt_jax import traffic
from cnnopt_jax.workload import LayerTable, trace_layers

GPU = traffic.Gpu(
  name='small',
  sms=3,
  registers=2 * 32 * 32,  # One block of the larger tile an SM.
  l1_bytes=16 << 10,
  l2_bytes=64 << 10,
  l2_slices=2,
  clock_hz=1e9,
  float32_macs=3 * 32e9,
  l2_bandwidth=100e9,
  dram_bandwidth=10e9,
  tiles=((32, 32), (16, 16)),
  tile_depth=8,
  source='made up',
)


def convolution(side, channels, features, kernel, stride, padding, groups=1) -> LayerTable:
  """One convolution in the layout NCHW."""

  def f(weights, x):
    return jax.lax.conv_general_dilated(
      x,
      weights,
      (stride, stride),
      ((padding, padding),) * 2,
      dimension_numbers=('NCHW', 'OIHW', 'NCHW'),
      feature_group_count=groups,
    )

  weights = jax.ShapeDtypeStruct((features, channels // groups, kernel, kernel), jnp.float32)
  return trace_layers(f, weights, jax.ShapeDtypeStruct((1, channels, side, side), jnp.float32))
