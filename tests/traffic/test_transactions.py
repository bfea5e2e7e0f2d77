"""L2 sectors against an enumeration, DRAM accesses against a simulated cache, and conservation."""

import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax import models, traffic
from cnnopt_jax.traffic import geometry, implicit, products, stream, transactions
from cnnopt_jax.traffic.kernels import Array
from cnnopt_jax.workload import schedule, trace_layers
from tests.traffic.small import GPU, convolution


def arrays(g, element_bytes=(4.0, 4.0, 4.0)):
  """Source, weight and target of a product, each a tensor of its own."""
  elements = g.source_elements, g.weights, g.target_elements
  return [Array(i, int(n * size), size) for i, (n, size) in enumerate(zip(elements, element_bytes))]


def enumerated_source_sectors(layer, batch, pixels_of_tile, transposed):
  """Distinct sectors of the map read by each tile of target pixels, by looking at every tap."""
  n, c, h, w = layer.input_shape
  _, k, p, q = layer.output_shape
  (pad, _), _ = layer.padding
  stride, side = layer.strides[0], layer.kernel_shape[2]
  source = (k, p, q) if transposed else (c, h, w)
  target = (h, w) if transposed else (p, q)
  total = 0
  pixels = batch * target[0] * target[1]
  for start in range(0, pixels, pixels_of_tile):
    touched = set()
    for pixel in range(start, min(pixels, start + pixels_of_tile)):
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
  'shape',
  [
    (28, 4, 16, 3, 1, 1),
    (28, 4, 16, 3, 2, 1),
    (29, 3, 16, 7, 2, 3),
    (56, 4, 16, 1, 1, 0),
    (9, 16, 24, 3, 1, 1),
    (6, 8, 24, 5, 1, 2),
    (40, 3, 8, 5, 4, 0),
    (56, 4, 16, 1, 2, 0),
  ],
)
@pytest.mark.parametrize('transposed', [False, True])
def test_source_sectors_against_enumeration(shape, transposed):
  """A closed form of means: within a quarter for every shape."""
  layer = convolution(*shape).layers[0]
  g = geometry.forward_geometry(layer, 2)
  g = g.transposed() if transposed else g
  kernel, cut = implicit.map_product(GPU, g, *arrays(g)), implicit.map_tiling(GPU, g)
  pixels = round(g.pixels / cut.row_tiles)
  found = enumerated_source_sectors(layer, 2, pixels, transposed) * cut.column_tiles
  assert kernel.accesses[0].sectors == pytest.approx(found, rel=0.25)
  assert kernel.writes == g.target_elements * 4 / 32


def test_a_strided_gradient_computes_what_a_tap_reaches():
  """Of a 1x1 convolution of stride 2 a quarter of the pixels: tiles, not padding, read weights."""
  g = geometry.forward_geometry(convolution(56, 32, 64, 1, 2, 0).layers[0], 4).transposed()
  cut = implicit.map_tiling(GPU, g)
  assert g.reached == 0.25 and cut.row_tiles == 4 * 28 * 28 // 32
  kernel = implicit.map_product(GPU, g, *arrays(g))
  assert kernel.macs == 4 * 28 * 28 * 32 * 64
  assert kernel.accesses[1].sectors <= cut.row_tiles * g.weights / 8


def test_products_by_hand():
  # 64 images, 256 inputs, 96 outputs: tiles of 32 x 32 make 2 x 3 blocks on three SMs.
  table = trace_layers(
    lambda w, x: x @ w,
    jax.ShapeDtypeStruct((256, 96), jnp.float32),
    jax.ShapeDtypeStruct((1, 256), jnp.float32),
  )
  g = geometry.forward_geometry(table.layers[0], 64)
  kernel = implicit.map_product(GPU, g, *arrays(g, (4.0, 1.0, 4.0)))
  assert implicit.map_tiling(GPU, g) == products.Tiling(32, 32, 2, 3, 1, 3)
  # Every row of tiles reads the weights of one byte, every column the images of four.
  assert (kernel.reads, kernel.writes) == ((2 * 256 * 96 + 3 * 4 * 64 * 256) / 32, 4 * 64 * 96 / 32)
  source, weight, target = arrays(g)
  kernel, cut = (
    implicit.weight_product(GPU, g, source, target, weight),
    implicit.weight_tiling(GPU, g),
  )
  assert (cut.row_tiles, cut.column_tiles, cut.splits) == (3, 8, 1)
  assert (kernel.reads, kernel.writes) == ((8 * 64 * 96 + 3 * 64 * 256) / 8, 256 * 96 / 8)


def test_the_same_product_as_a_matrix_product():
  """A dense layer as a product of maps and as one of matrices, with blocks that share a panel."""
  unit = geometry.SpatialAxis(1, 1, 1, 1)
  g = geometry.Geometry(32 * 40, 1, 64, 128, unit, unit, 64 * 128)
  source, weight, target = arrays(g)
  kernel, cut = implicit.map_product(GPU, g, source, weight, target), implicit.map_tiling(GPU, g)
  other = products.matrix_product(GPU, 'gemm', cut, source, weight, target, macs=g.macs)
  assert (cut.row_tiles, cut.column_tiles) == (40, 2)
  for a, b in zip(kernel.accesses, other.accesses):
    assert a.sectors == pytest.approx(b.sectors)
  # 1 - (1 - 3 / 40) exp(-(16 + 16) KB / 16 KB) of the 39 further rows' reads reach L2.
  missed = 1 - (1 - 3 / 40) * np.exp(-2)
  assert other.accesses[1].sectors == pytest.approx(64 * 128 / 8 * (1 + 39 * missed))


def test_a_small_product_splits_its_reduction():
  unit = geometry.SpatialAxis(1, 1, 1, 1)
  g = geometry.Geometry(8, 1, 16, 4096, unit, unit, 16 * 4096)
  assert implicit.map_tiling(GPU, g).splits == 6 == 2 * GPU.sms
  # The parts are added up in L2: one tile, 16 x 16.
  kernel = implicit.map_product(GPU, g, *arrays(g))
  assert (kernel.reads, kernel.writes) == ((8 + 16) * 4096 / 8, 6 * 8 * 16 / 8)


def test_a_split_weight_gradient_adds_its_parts():
  """One tile of 32 x 32 on three SMs: six blocks sum a sixth of 512 images each."""
  unit = geometry.SpatialAxis(1, 1, 1, 1)
  g = geometry.Geometry(512, 1, 32, 32, unit, unit, 32 * 32)
  cut = implicit.weight_tiling(GPU, g)
  assert cut == products.Tiling(32, 32, 1, 1, 6, 3)
  source, weight, target = arrays(g)
  kernel = implicit.weight_product(GPU, g, source, target, weight)
  assert (kernel.reads, kernel.writes) == (2 * 512 * 32 / 8, 6 * 32 * 32 / 8)


def test_groups_read_their_own_channels_only():
  whole, grouped = (
    geometry.forward_geometry(convolution(14, 32, 32, 3, 1, 1, groups).layers[0], 1)
    for groups in (1, 2)
  )
  reads = [implicit.map_product(GPU, g, *arrays(g)).reads for g in (whole, grouped)]
  assert reads[1] < reads[0] * 0.7


def simulated_dram(accesses, capacity, kernels, repeats=3):
  """Sectors of misses and evictions in the last of several equal rounds of a write-back cache.

  What a kernel writes to a block adds to what it has written there; another one's takes its place.
  """
  cache, reads, evictions = collections.OrderedDict(), 0.0, 0.0
  for turn in range(repeats):
    reads = evictions = 0.0
    for block, write, kernel, sectors in zip(
      accesses.blocks.tolist(),
      accesses.writes.tolist(),
      accesses.kernels.tolist(),
      accesses.sectors.tolist(),
    ):
      known = cache.pop(block, None)
      reads += sectors * (known is None and not write)
      owner, amount = known or (None, 0.0)
      if write:
        own = owner == (turn, kernel)
        owner, amount = (turn, kernel), sectors + (amount if own else 0.0)
      cache[block] = owner, amount
      if len(cache) > capacity:
        evictions += cache.popitem(last=False)[1][1]
  return reads, evictions


@pytest.mark.parametrize('library', [traffic.XLA, traffic.PYTORCH], ids=['fused', 'unfused'])
@pytest.mark.parametrize('training', [False, True])
def test_dram_against_a_simulated_write_back_cache(training, library):
  library = dataclasses.replace(library, unsynchronised=0.0)
  table = models.layer_table(models.create('resnet8', num_classes=10), (32, 32, 3), train=training)
  block = 2048
  found = traffic.predict_traffic(
    table, GPU, 4, training=training, library=library, block_bytes=block
  )
  accesses, kernels = stream_of(table, training, library, block)
  assert len(np.unique(accesses.blocks)) > 200
  for capacity in (1, 7, 32, 100, 256, 10_000):
    np.testing.assert_allclose(
      found.dram(capacity * block, ways=0),
      simulated_dram(accesses, capacity, kernels),
      rtol=1e-5,
      atol=1e-3,
      err_msg=str(capacity),
    )


def stream_of(table, training, library, block, batch=4):
  """The accesses that `predict_traffic` looks at, and how many kernels make them."""
  launched = schedule(table, training=training, fused=library.fused)
  sizes = launched.tensor_bytes(batch=batch)
  maker = transactions._Maker(table, launched, sizes, GPU, library, batch, {})
  kernels = [kernel for launch in launched.launches for kernel in maker.kernels(launch)]
  aliases = [t.alias for t in launched.tensors]
  return (
    stream.access_stream(kernels, np.append(sizes, 0), aliases, GPU.sector_bytes, block),
    len(kernels),
  )


@pytest.mark.parametrize('library', [traffic.XLA, traffic.PYTORCH], ids=['fused', 'unfused'])
@pytest.mark.parametrize('name', ['squeezenet1_1', 'vgg8'])
def test_every_kernel_touches_its_arrays_and_nothing_else(name, library):
  table = models.layer_table(models.create(name, num_classes=100), (64, 64, 3), train=True)
  launched = schedule(table, training=True, fused=library.fused)
  sizes = launched.tensor_bytes(batch=2)
  maker = transactions._Maker(table, launched, sizes, GPU, library, 2, {})
  for launch in launched.launches:
    kernels = maker.kernels(launch)
    touched = collections.defaultdict(list)
    for kernel in kernels:
      for access in kernel.accesses:
        assert access.sectors * GPU.sector_bytes >= 0.2 * access.bytes, (launch, kernel.name)
        touched[access.tensor, access.write] += list(access.pattern(4096))
    known = {(t, False) for t in launch.reads} | {(t, True) for t in launch.writes}
    assert {key for key in touched if key[0] < len(sizes)} == known, launch
    for tensor, write in known:
      covered = np.zeros(sizes[tensor], bool)
      for r in touched[tensor, write]:
        assert (r.start >= 0).all() and (r.end <= sizes[tensor]).all()
        for start, end in zip(r.start, r.end):
          covered[start:end] = True
      # A strided window may skip the rows at the end of a map.
      assert covered.mean() > (0.9 if launch.layer >= 0 else 0.999), (launch, tensor)


def test_totals_and_layers_agree_and_bits_save_weights():
  table = models.layer_table(models.create('plain', num_classes=10), (28, 28, 1))
  full = traffic.predict_traffic(table, GPU, 8)
  few = traffic.predict_traffic(
    table, GPU, 8, weight_bits={p.path: 2 for p in table.parameters if p.role == 'weight'}
  )
  assert sum(v[0] for v in full.by_layer().values()) == pytest.approx(full.l2_reads)
  assert full.macs == 8 * table.macs
  assert few.l2_reads < full.l2_reads and few.l2_writes == full.l2_writes
  ways = np.stack(full.dram([20_000, 10**9], ways=16))
  assert ways[0, 0] > 0 and (ways[:, 1] < 1e-9).all()
  own = [sum(row[i] for row in full.rows) for i in (4, 5)]
  np.testing.assert_allclose(full.dram(GPU.l2_bytes), own, rtol=1e-6)


WORKLOADS = ('alexnet', 'googlenet', 'vgg16', 'resnet18', 'squeezenet1_0')


@pytest.mark.parametrize(
  'name, library',
  [(name, traffic.PYTORCH) for name in (*WORKLOADS, 'ir_resnet8')]
  + [(name, traffic.XLA) for name in ('resnet18', 'squeezenet1_0', 'ir_resnet8')],
  ids=lambda value: value if isinstance(value, str) else value.name.split()[0].strip(','),
)
def test_no_kernel_moves_more_to_dram_than_through_l2(name, library):
  side = 32 if name == 'ir_resnet8' else 224
  for training, batch, blocks in ((False, 3, (16 << 10, 256 << 10)), (True, 2, (32 << 10,))):
    table = models.layer_table(models.create(name, num_classes=10), (side, side, 3), train=training)
    for block in blocks:
      found = traffic.predict_traffic(
        table, traffic.GTX_1080_TI, batch, training=training, library=library, block_bytes=block
      )
      for row in found.rows:
        place = row.launch.path, row.kernel, training, batch, block
        assert row.dram_reads <= row.l2_reads * (1 + 1e-5), place
        assert row.dram_writes <= row.l2_writes * (1 + 1e-5), place
        assert row.seconds > 0


@pytest.mark.parametrize(
  'name, training', [('alexnet', False), ('googlenet', True), ('resnet18', True)]
)
def test_figures_converge_as_blocks_shrink(name, training):
  table = models.layer_table(models.create(name, num_classes=10), (224, 224, 3), train=training)
  coarse, fine = (
    traffic.predict_traffic(table, traffic.V100, 4, training=training, block_bytes=block)
    for block in (transactions.BLOCK_BYTES, transactions.BLOCK_BYTES // 4)
  )
  for field in ('dram_reads', 'dram_writes'):
    sums = [sum(getattr(row, field) for row in found.rows) for found in (coarse, fine)]
    assert sums[0] == pytest.approx(sums[1], rel=0.05), field


def test_bad_arguments():
  table = models.layer_table(models.create('plain', num_classes=10), (28, 28, 1))
  with pytest.raises(ValueError, match='batch=0; allowed: at least 1'):
    traffic.predict_traffic(table, GPU, 0)
  with pytest.raises(ValueError, match='weight_bits=4 in training'):
    traffic.predict_traffic(table, GPU, 1, training=True, weight_bits=4)
  half = dataclasses.replace(traffic.PYTORCH, math='bfloat16')
  with pytest.raises(ValueError, match="math='bfloat16' on a small; allowed: float32"):
    traffic.predict_traffic(table, GPU, 1, library=half)
  with pytest.raises(ValueError, match='allowed: float32, tf32, bfloat16'):
    dataclasses.replace(traffic.PYTORCH, math='int8')
  path = table.layers[0].path
  with pytest.raises(ValueError, match='it is not depth-wise'):
    traffic.predict_traffic(table, GPU, 1, chosen={path: 'depthwise'})
  with pytest.raises(ValueError, match="'nowhere'; allowed: paths of layers"):
    traffic.predict_traffic(table, GPU, 1, chosen={'nowhere': 'fft'})


def test_gpus_are_sourced_and_a_user_makes_one():
  assert traffic.GPUS['v100'].sms == 80 and traffic.GPUS['h200'].l2_bytes == 50 << 20
  assert all(len(gpu.source) > 50 for gpu in traffic.GPUS.values())
  own = traffic.make_gpu({'base': 'v100', 'name': 'mine', 'l2_bytes': 1 << 20, 'tiles': [[64, 64]]})
  assert (own.name, own.sms, own.tiles) == ('mine', 80, ((64, 64),))
  for wrong, message in (
    ('v1000', "gpu='v1000'; allowed: a traffic.Gpu, or one of"),
    ({'base': 'v100', 'sm': 3}, 'gpu.sm; allowed: base, name, sms'),
    ({'base': 'v100', 'sms': 0}, 'sms=0; allowed: whole numbers of at least 1'),
    ({'base': 'v100', 'clock_hz': -1.0}, 'clock_hz=-1.0; allowed: above 0'),
    ({'name': 'x'}, 'gpu.sms is missing'),
  ):
    with pytest.raises(ValueError, match=message):
      traffic.make_gpu(wrong)
