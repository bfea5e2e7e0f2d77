"""Sectors of split weight gradients, and caches that are no whole number of blocks, by hand."""

import numpy as np

from cnnopt_jax import traffic
from cnnopt_jax.traffic import implicit_gemm

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


def test_a_split_weight_gradient_writes_its_parts_and_reads_them_to_sum_them():
  """One tile of 32 x 32 on three slots: three blocks sum a third of 512 images each."""
  unit = implicit_gemm.SpatialAxis(1, 1, 1, 1)
  g = implicit_gemm.Geometry(512, 1, 32, 32, unit, unit, 32 * 32)
  assert implicit_gemm.weight_tiling(GPU, g) == implicit_gemm.Tiling(32, 32, 1, 1, 3)
  maps, kernel = 2 * 512 * 32 * 4 // 32, 32 * 32 * 4 // 32
  found = implicit_gemm.weight_product(GPU, g, (4.0, 4.0, 4.0))
  assert found == (maps + 3 * kernel, kernel + 3 * kernel)


def test_a_part_of_a_block_holds_nothing():
  histogram = traffic.reuse_histogram([-1, 0, 0, 1, 2, 2])
  np.testing.assert_array_equal(
    histogram.misses([0.5, 1, 1.9, 2.0, 2.999, 3.5]), [6, 4, 4, 3, 3, 1]
  )
