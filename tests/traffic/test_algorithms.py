"""Winograd, Fourier and explicit products by hand; which of them is chosen."""

import dataclasses
import math

import numpy as np
import pytest

from cnnopt_jax import models, traffic
from cnnopt_jax.traffic import algorithms, geometry, kernels
from cnnopt_jax.traffic.kernels import Array
from tests.traffic import small

KINDS = ('forward', 'data_gradient', 'weight_gradient')


def problem(kind, side, channels, features, size, batch, stride=1, groups=1):
  layer = small.convolution(side, channels, features, size, stride, size // 2, groups).layers[0]
  g = geometry.forward_geometry(layer, batch)
  source, weight, target = (
    Array(i, 4 * n) for i, n in enumerate((g.source_elements, g.weights, g.target_elements))
  )
  order = {
    'forward': (source, weight, target),
    'data_gradient': (target, weight, source),
    'weight_gradient': (source, target, weight),
  }
  return algorithms.Problem(kind, g, *order[kind], 3)


@pytest.mark.parametrize('length, step, row, element', [(18, 16, 224, 4), (18, 16, 28, 4)])
@pytest.mark.parametrize('sector', [32, 64])
def test_sectors_of_runs_by_looking_at_every_element(length, step, row, element, sector):
  counts = []
  for y in range(64):
    for start in range(-1, row - 1, step):
      stop = min(start + length, row + 1)
      counts.append(len({(y * row + x) * element // sector for x in range(start, stop)}))
  found = kernels.run_sectors(length, step, row, element, sector)
  assert found == pytest.approx(np.mean(counts), rel=0.02)


def test_nonfused_winograd_by_hand():
  """3x3, 128 to 256 channels at 56x56, 32 images: 14 x 14 tiles of 4 x 4 outputs, 36 points."""
  p = problem('forward', 56, 128, 256, 3, 32)
  data, filters, product, output = algorithms.kernels(traffic.V100, p, 'winograd_nonfused')
  tiles, sectors = 32 * 14 * 14, 4 / 32
  assert data.writes == 36 * tiles * 128 * sectors
  # Windows of 6 x 6 step by 4; one row and one column of padding at each edge are not there.
  assert data.reads == 32 * 128 * 56 * 56 * sectors * ((14 * 6 - 2) / 56) ** 2
  assert (filters.reads, filters.writes) == (9 * 128 * 256 * sectors, 36 * 128 * 256 * sectors)
  assert product.macs == 36 * tiles * 128 * 256 and product.writes == 36 * tiles * 256 * sectors
  # 196 x 2 blocks of 32 x 128 in each of 36 products, less what L1 keeps of a panel.
  blocks = 36 * 196 * 2 * 128 * sectors
  assert blocks * (32 + 128 * 0.8) < product.reads < blocks * (32 + 128)
  assert (output.reads, output.writes) == (product.writes, 32 * 256 * 56 * 56 * sectors)
  assert output.macs == 0
  total = sum(a.bytes for k in (data, filters, product) for a in k.accesses if a.write)
  assert total == 4 * 36 * (tiles * (128 + 256) + 128 * 256)


def test_a_nonfused_weight_gradient_by_hand():
  p = problem('weight_gradient', 28, 512, 512, 3, 32)
  data, deltas, product, output = algorithms.kernels(traffic.V100, p, 'winograd_nonfused')
  tiles = 32 * 7 * 7
  assert data.writes == deltas.writes == 36 * tiles * 512 / 8
  # 8 x 8 blocks of 64 x 64 in each of 36 products, each of the whole depth.
  assert product.reads == 36 * 64 * (64 + 64) * tiles / 8
  assert output.writes == 9 * 512 * 512 / 8


def test_fused_winograd_by_hand():
  """Blocks of 8 x 16 pixels and 32 features read 10 x 18 pixels, four sectors to each row."""
  p = problem('forward', 224, 64, 64, 3, 32)
  filters, fused = algorithms.kernels(traffic.V100, p, 'winograd_fused')
  blocks = 32 * 28 * 14 * 2
  assert fused.reads == blocks * (10 * 4 * 64 + 16 * 64 * 32 / 8)
  assert fused.writes == 32 * 64 * 224 * 224 / 8
  assert fused.macs == 32 * 112 * 112 * 16 * 64 * 64
  assert filters.writes == 16 * 64 * 64 / 8


def test_explicit_products_and_fourier_transforms_by_hand():
  p = problem('forward', 16, 8, 24, 5, 2)
  lay_out, product = algorithms.kernels(small.GPU, p, 'explicit_gemm')
  assert lay_out.writes == 2 * 256 * 25 * 8 / 8 and product.macs == p.forward.macs
  data, filters, product, inverse = algorithms.kernels(small.GPU, p, 'fft')
  points = 32 * 17
  # One tile of 32 x 32 gives 28 x 28 outputs; complex numbers of 8 B.
  assert data.writes == 2 * points * 8 * 8 / 32 and filters.writes == points * 8 * 24 * 8 / 32
  assert product.macs == 4 * points * 2 * 8 * 24 and inverse.reads == 2 * points * 24 * 8 / 32


@pytest.mark.parametrize('algorithm', traffic.ALGORITHMS)
@pytest.mark.parametrize('kind', KINDS)
def test_every_algorithm_reads_its_operands_and_writes_its_result(algorithm, kind):
  groups = 8 if algorithm == 'depthwise' else 1
  p = problem(kind, 12, 8, 8, 3, 2, groups=groups)
  if why := algorithms.refusal(traffic.PYTORCH, p, algorithm):
    assert (algorithm, kind) == ('winograd_fused', 'weight_gradient'), why
    return
  made = algorithms.kernels(small.GPU, p, algorithm)
  read = {a.tensor for k in made for a in k.accesses if not a.write and a.tensor < 3}
  written = {a.tensor for k in made for a in k.accesses if a.write and a.tensor < 3}
  assert read == {p.source.tensor, p.weight.tensor} and written == {p.target.tensor}
  workspaces = [{a.write for a in k.accesses if a.tensor == 3} for k in made]
  assert all(k.reads > 0 < k.writes for k in made) and sum(k.macs for k in made) > 0
  # A kernel reads from the workspace only what one before it has written.
  for i, uses in enumerate(workspaces):
    if False in uses:
      assert any(True in before for before in workspaces[:i])


def test_the_choice_on_a_v100_is_that_of_the_measured_library():
  """cuDNN's choices for VGG-16 at batch 32, from the names of the kernels of a profile."""
  table = models.layer_table(models.create('vgg16', num_classes=1000), (224, 224, 3), train=True)
  fused = {'conv1_2': KINDS[:2], 'conv2_1': KINDS[:2]}
  implicit = {'conv1_1': KINDS, 'conv1_2': KINDS[2:]}
  for layer in table.layers:
    g = geometry.forward_geometry(layer, 32)
    name = layer.path.split('/')[0]
    for kind in KINDS:
      arrays = [Array(i, 4 * n) for i, n in enumerate((g.source_elements, g.weights))]
      arrays.append(Array(2, 4 * g.target_elements))
      p = algorithms.Problem(kind, g, *arrays, 3)
      if kind == 'weight_gradient':
        p = p._replace(weight=arrays[2], target=arrays[1])
      elif kind == 'data_gradient':
        p = p._replace(source=arrays[2], target=arrays[0])
      found, _ = algorithms.choose(traffic.V100, traffic.PYTORCH, p)
      expected = 'winograd_nonfused'
      if name == 'head' or kind in implicit.get(name, ()):
        expected = 'implicit_gemm'
      elif kind in fused.get(name, ()):
        expected = 'winograd_fused'
      if (name, kind) != ('conv1_1', 'data_gradient'):  # No such launch.
        assert found == expected, (name, kind)


@pytest.mark.parametrize(
  'changed, why',
  [
    ({'stride': 2}, 'stride'),
    ({'groups': 2}, 'groups'),
    ({'size': 7}, '7 taps'),
  ],
)
def test_what_winograd_cannot_compute(changed, why):
  p = problem(
    'forward', **({'side': 16, 'channels': 8, 'features': 8, 'size': 3, 'batch': 2} | changed)
  )
  assert why in algorithms.refusal(traffic.PYTORCH, p, 'winograd_nonfused')
  assert algorithms.choose(small.GPU, traffic.PYTORCH, p)[0] not in ('winograd_nonfused',)


def test_other_types_and_little_workspace_leave_the_implicit_product():
  p = problem('forward', 56, 128, 128, 3, 32)
  assert algorithms.choose(traffic.GPUS['a100'], traffic.PYTORCH, p)[0].startswith('winograd')
  for changed in ({'math': 'tf32'}, {'math': 'bfloat16'}):
    library = dataclasses.replace(traffic.PYTORCH, **changed)
    assert algorithms.choose(traffic.GPUS['a100'], library, p)[0] == 'implicit_gemm'
  library = dataclasses.replace(traffic.PYTORCH, workspace_bytes=1 << 20)
  assert algorithms.choose(traffic.GPUS['a100'], library, p)[0] != 'winograd_nonfused'


def test_time_is_the_longest_of_products_l2_and_dram():
  gpu, library = traffic.V100, traffic.PYTORCH
  one = kernels.once(Array(0, 1 << 30), False, sector_bytes=32)
  assert library.seconds(gpu, kernels.Kernel('copy', (one,))) == pytest.approx(
    (1 << 30) / (0.9 * 900e9)
  )
  assert library.seconds(gpu, kernels.Kernel('empty', ())) == library.launch_s
  macs = 1e12
  found = library.seconds(gpu, kernels.Kernel('gemm', (one,), macs))
  assert found == pytest.approx(macs / (0.75 * 80 * 64 * 1.53e9))
  assert math.isclose(
    library.seconds(gpu, kernels.Kernel('copy', (one,)), 0.0), (1 << 30) / (0.9 * 2.155e12)
  )
