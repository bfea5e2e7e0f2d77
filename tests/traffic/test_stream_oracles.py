"""Rows that a wave of thread blocks reads, against a look at every pixel's window."""

import jax
import jax.numpy as jnp
import pytest

from cnnopt_jax import traffic
from cnnopt_jax.traffic import implicit_gemm, stream
from cnnopt_jax.workload import schedule, trace_layers

GPU = traffic.Gpu(
  name='three slots',
  sms=3,
  l1_bytes=16 << 10,
  l2_bytes=64 << 10,
  line_bytes=128,
  sector_bytes=32,
  tiles=((32, 32), (16, 16)),
  tile_depth=8,
  blocks_per_sm=1,
  source='made up',
)
SIDE = 32
ROW_BYTES = 4 * SIDE  # Blocks of one row, so that a block's number is its row's.


def windowed_rows(first, last, width, size, stride):
  """Source rows under the windows, with a pixel in the middle, of pixels `first` to `last - 1`."""
  tops = {pixel // width * stride - size // 2 for pixel in range(first, last)}
  return {top + tap for top in tops for tap in range(size)} & set(range(SIDE))


@pytest.mark.parametrize('size, stride', [(3, 1), (3, 2), (5, 1), (1, 1)])
def test_a_wave_reads_the_rows_under_its_windows_and_no_others(size, stride):
  padding = (size // 2, size // 2)

  def layer(kernel, x):
    return jax.lax.conv_general_dilated(
      x, kernel, (stride, stride), (padding, padding), dimension_numbers=('NCHW', 'OIHW', 'NCHW')
    )

  kernel = jax.ShapeDtypeStruct((16, 1, size, size), jnp.float32)
  table = trace_layers(layer, kernel, jax.ShapeDtypeStruct((1, 1, SIDE, SIDE), jnp.float32))
  plan = schedule(table)
  found = stream.access_stream(table, plan, GPU, plan.tensor_bytes(), 1, ROW_BYTES)
  # The map is read before all else and lies first.
  waves = [set()]
  for block, write in zip(found.blocks.tolist(), found.writes.tolist()):
    if write and waves[-1]:
      waves.append(set())
    elif not write and block < SIDE:
      waves[-1].add(block)
  geometry = implicit_gemm.forward_geometry(table.layers[0], 1)
  width = geometry.width.target
  pixels, at_once = geometry.pixels, GPU.slots * implicit_gemm.map_tiling(GPU, geometry).rows
  assert pixels > 4 * at_once
  expected = [
    windowed_rows(start, min(start + at_once, pixels), width, size, stride)
    for start in range(0, pixels, at_once)
  ]
  assert waves[:-1] == expected
