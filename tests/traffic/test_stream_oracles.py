"""Rows that a wave of thread blocks reads, against a look at every pixel's window."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax.traffic import geometry, implicit, stream
from cnnopt_jax.traffic.kernels import Array
from cnnopt_jax.workload import trace_layers
from tests.traffic import small

# One block an SM, whatever its tile.
GPU = dataclasses.replace(small.GPU, registers=2 * 16 * 16)
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
  g = geometry.forward_geometry(table.layers[0], 1)
  sizes = [4 * n for n in (g.source_elements, g.weights, g.target_elements)]
  made = implicit.map_product(GPU, g, *(Array(i, n) for i, n in enumerate(sizes)))
  found = stream.access_stream([made], np.array([*sizes, 0]), [], 32, ROW_BYTES)
  # The map is read before all else and lies first.
  waves = [set()]
  for block, write in zip(found.blocks.tolist(), found.writes.tolist()):
    if write and waves[-1]:
      waves.append(set())
    elif not write and block < SIDE:
      waves[-1].add(block)
  width = g.width.target
  cut = implicit.map_tiling(GPU, g)
  pixels, at_once = g.pixels, cut.slots * cut.rows
  assert pixels > 4 * at_once
  expected = [
    windowed_rows(start, min(start + at_once, pixels), width, size, stride)
    for start in range(0, pixels, at_once)
  ]
  # A row that one wave ends with and the next one begins with is one access.
  last = set()
  for seen, rows in zip(waves, expected):
    assert seen <= rows and rows - seen <= last
    last = {max(rows)}
  assert set.union(*waves) == set.union(*expected)
