"""Caches that are no whole number of blocks, by hand."""

import numpy as np

from cnnopt_jax import traffic


def test_a_part_of_a_block_holds_nothing():
  histogram = traffic.reuse_histogram([-1, 0, 0, 1, 2, 2])
  np.testing.assert_array_equal(
    histogram.misses([0.5, 1, 1.9, 2.0, 2.999, 3.5]), [6, 4, 4, 3, 3, 1]
  )
