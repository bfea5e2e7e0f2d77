"""L2 sectors against an enumeration, DRAM accesses against a simulated cache, and conservation."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax import models, traffic
from cnnopt_jax.traffic import implicit_gemm, stream
from cnnopt_jax.workload import schedule, trace_layers

SMALL = traffic.Gpu(
  name='small',
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


def _conv(side, channels, features, kernel, stride, padding, groups=1):
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


def enumerated_source_sectors(layer, batch, tile_rows, transposed):
  """Distinct sectors of the map read by each tile of target pixels, by looking at every tap."""
  n, c, h, w = layer.input_shape
  _, k, p, q = layer.output_shape
  (pad, _), _ = layer.padding
  stride, side = layer.strides[0], layer.kernel_shape[2]
  source = (k, p, q) if transposed else (c, h, w)
  target = (h, w) if transposed else (p, q)
  total = 0
  pixels = batch * target[0] * target[1]
  for start in range(0, pixels, tile_rows):
    touched = set()
    for pixel in range(start, min(pixels, start + tile_rows)):
      image, rest = divmod(pixel, target[0] * target[1])
      y, x = divmod(rest, target[1])
      for r in range(side):
        for s in range(side):
          if transposed:
            (i, a), (j, b) = divmod(y + pad - r, stride), divmod(x + pad - s, stride)
            if a or b:
              continue
          else:
            i, j = y * stride + r - pad, x * stride + s - pad
          if 0 <= i < source[1] and 0 <= j < source[2]:
            touched.update(
              (((image * source[0] + channel) * source[1] + i) * source[2] + j) // 8
              for channel in range(source[0])
            )
    total += len(touched)
  return total


@pytest.mark.parametrize(
  'geometry',
  [
    (28, 4, 16, 3, 1, 1),
    (28, 4, 16, 3, 2, 1),
    (29, 3, 16, 7, 2, 3),
    (56, 4, 16, 1, 1, 0),
    (9, 16, 24, 3, 1, 1),
    (6, 8, 24, 5, 1, 2),
    (40, 3, 8, 5, 4, 0),
  ],
)
@pytest.mark.parametrize('transposed', [False, True])
def test_source_sectors_against_enumeration(geometry, transposed):
  """A closed form of means: within a fifth for every shape."""
  layer = _conv(*geometry).layers[0]
  g = implicit_gemm.forward_geometry(layer, 2)
  g = g.transposed() if transposed else g
  sectors, cut = implicit_gemm.map_product(SMALL, g, (4.0,) * 3), implicit_gemm.map_tiling(SMALL, g)
  found = enumerated_source_sectors(layer, 2, cut.rows, transposed) * cut.column_tiles
  weights = cut.row_tiles * layer.weights * 4 / 32
  assert sectors.reads - weights == pytest.approx(found, rel=0.2)
  assert sectors.writes == g.pixels * g.target_channels * 4 / 32


def test_products_by_hand():
  # 64 images, 256 inputs, 96 outputs: tiles of 32 x 32 make 2 x 3 blocks on three slots.
  table = trace_layers(
    lambda w, x: x @ w,
    jax.ShapeDtypeStruct((256, 96), jnp.float32),
    jax.ShapeDtypeStruct((1, 256), jnp.float32),
  )
  g = implicit_gemm.forward_geometry(table.layers[0], 64)
  sectors = implicit_gemm.map_product(SMALL, g, (4.0, 1.0, 4.0))
  assert implicit_gemm.map_tiling(SMALL, g) == implicit_gemm.Tiling(32, 32, 2, 3, 1)
  # Every row of tiles reads the weights of one byte, every column the images of four.
  assert sectors == ((2 * 256 * 96 + 3 * 4 * 64 * 256) / 32, 4 * 64 * 96 / 32)
  sectors, cut = (
    implicit_gemm.weight_product(SMALL, g, (4.0,) * 3),
    implicit_gemm.weight_tiling(SMALL, g),
  )
  assert (cut.row_tiles, cut.column_tiles, cut.splits) == (3, 8, 1)
  assert sectors == ((8 * 64 * 96 + 3 * 64 * 256) / 8, 256 * 96 / 8)


def test_a_small_product_splits_its_reduction():
  g = implicit_gemm.Geometry(
    8, 1, 16, 4096, *[implicit_gemm.SpatialAxis(1, 1, 1, 1)] * 2, 16 * 4096
  )
  assert implicit_gemm.map_tiling(SMALL, g).splits == 3 == SMALL.slots
  # Three times the output is written and read again besides the operands: one tile, 16 x 32.
  written = 8 * 16 / 8
  assert implicit_gemm.map_product(SMALL, g, (4.0,) * 3) == (
    (8 + 16) * 4096 / 8 + 3 * written,
    written + 3 * written,
  )


def test_groups_read_their_own_channels_only():
  whole, grouped = (_conv(14, 32, 32, 3, 1, 1, groups).layers[0] for groups in (1, 2))
  reads = [
    implicit_gemm.map_product(SMALL, implicit_gemm.forward_geometry(layer, 1), (4.0,) * 3).reads
    for layer in (whole, grouped)
  ]
  assert reads[1] < reads[0] * 0.7


def simulated_dram(blocks, writes, capacity, repeats=3):
  """Misses of reads and evictions of written blocks in the last of several equal rounds."""
  cache, reads, evictions = collections.OrderedDict(), 0, 0
  for _ in range(repeats):
    reads = evictions = 0
    for block, write in zip(blocks.tolist(), writes.tolist()):
      dirty = cache.pop(block, None)
      reads += dirty is None and not write
      cache[block] = bool(dirty) or write
      if len(cache) > capacity:
        evictions += cache.popitem(last=False)[1]
  return reads, evictions


@pytest.mark.parametrize('training', [False, True])
def test_dram_against_a_simulated_write_back_cache(training):
  table = models.layer_table(models.create('resnet8', num_classes=10), (32, 32, 3), train=training)
  block = 2048
  found = traffic.predict_traffic(table, SMALL, 4, training=training, block_bytes=block)
  launched = schedule(table, training=training)
  accesses = stream.access_stream(table, launched, SMALL, launched.tensor_bytes(batch=4), 4, block)
  assert len(np.unique(accesses.blocks)) > 200
  for capacity in (1, 7, 32, 100, 256, 10_000):
    reads, writes = found.dram(capacity * block)
    expected = simulated_dram(accesses.blocks, accesses.writes, capacity)
    assert (reads / 64, writes / 64) == expected, capacity
  own = simulated_dram(accesses.blocks, accesses.writes, SMALL.l2_bytes // block)
  assert (
    sum(row.dram_reads for row in found.rows) / 64,
    sum(row.dram_writes for row in found.rows) / 64,
  ) == own


@pytest.mark.parametrize('training', [False, True])
def test_every_kernel_touches_its_arrays_and_nothing_else(training):
  table = models.layer_table(models.create('squeezenet1_1', num_classes=100), (64, 64, 3))
  launched = schedule(table, training=training)
  sizes = launched.tensor_bytes(batch=2)
  found = [
    [r for r in stream._launch_ranges(table, launch, SMALL, np.append(sizes, 0), 2, 4096)]
    for launch in launched.launches
  ]
  for launch, ranges in zip(launched.launches, found):
    for tensors, write in ((launch.reads, False), (launch.writes, True)):
      for tensor in set(tensors):
        covered = np.zeros(sizes[tensor], bool)
        for r in ranges:
          if r.tensor == tensor and r.write == write:
            assert (r.start >= 0).all() and (r.end <= sizes[tensor]).all()
            for start, end in zip(r.start, r.end):
              covered[start:end] = True
        # A strided window may skip the rows at the end of a map.
        assert covered.mean() > (0.9 if launch.layer >= 0 else 0.999), (launch, tensor)


def test_totals_and_layers_agree_and_bits_save_weights():
  table = models.layer_table(models.create('plain', num_classes=10), (28, 28, 1))
  full = traffic.predict_traffic(table, SMALL, 8)
  few = traffic.predict_traffic(
    table, SMALL, 8, weight_bits={p.path: 2 for p in table.parameters if p.role == 'weight'}
  )
  assert sum(v[0] for v in full.by_layer().values()) == pytest.approx(full.l2_reads)
  assert full.macs == 8 * table.macs
  assert few.l2_reads < full.l2_reads and few.l2_writes == full.l2_writes
  ways = np.stack(full.dram([20_000, 10**9], ways=16))
  assert ways[0, 0] > 0 and (ways[:, 1] < 1e-9).all()


def test_bad_arguments():
  table = models.layer_table(models.create('plain', num_classes=10), (28, 28, 1))
  with pytest.raises(ValueError, match='batch=0; allowed: at least 1'):
    traffic.predict_traffic(table, SMALL, 0)
  with pytest.raises(ValueError, match='weight_bits=4 in training'):
    traffic.predict_traffic(table, SMALL, 1, training=True, weight_bits=4)
  with pytest.raises(ValueError, match='sms=0; allowed: at least 1'):
    traffic.Gpu(**{**vars(SMALL), 'sms': 0})


def test_gpus_are_sourced():
  assert traffic.GPUS['gtx_1080_ti'].slots == 56 and traffic.GPUS['h200'].l2_bytes == 50 << 20
  assert all(len(gpu.source) > 50 for gpu in traffic.GPUS.values())
