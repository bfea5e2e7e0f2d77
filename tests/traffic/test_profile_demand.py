"""What a profile covers, the same part of the model, and a profile in the model's place."""

import dataclasses

import numpy as np
import pytest

from cnnopt_jax import models, traffic
from cnnopt_jax.traffic.profiles import COUNTERS, MODES

V100 = dataclasses.replace(traffic.H200, name='V100')
FORWARD = ['sm80_xmma_fprop_implicit_gemm', 'relu_kernel'] * 6
BACKWARD = ['sm80_xmma_wgrad_implicit_gemm', 'sm80_xmma_dgrad_implicit_gemm'] * 6


def profile(kernels, **fields):
  return [traffic.LaunchProfile(kernel, **fields) for kernel in kernels]


@pytest.mark.parametrize(
  'mode, kernels, message',
  [
    ('inference', FORWARD, None),
    ('forward', FORWARD, None),
    ('training', FORWARD + BACKWARD, None),
    ('forward_backward', FORWARD + BACKWARD, None),
    ('backward', BACKWARD, None),
    ('inference', FORWARD + BACKWARD, 'inference has no backward kernels, but .*wgrad'),
    ('forward', BACKWARD, 'forward has no backward kernels'),
    ('training', FORWARD, 'training has backward kernels, but none of the 12'),
    ('backward', FORWARD, 'backward has backward kernels, but none'),
    ('training', BACKWARD, 'begins with a forward pass, but only 0 of 12 products'),
    ('backward', FORWARD + BACKWARD, 'no forward pass, but the profile begins with .*fprop'),
    ('backward', ['volta_sgemm'] * 20 + BACKWARD, 'no forward pass, but 20 of 32 products'),
  ],
)
def test_a_profile_is_of_what_it_is_said_to_be(mode, kernels, message):
  if message is None:
    traffic.check_launches(profile(kernels), mode, V100)
    return
  with pytest.raises(traffic.ProfileError, match=message):
    traffic.check_launches(profile(kernels), mode, V100)


def test_names_of_both_passes_are_not_taken_for_one():
  """cuDNN's Winograd runs its forward transforms for data gradients too."""
  kernels = ['winogradForwardData4x4', 'volta_sgemm', 'winogradWgradData4x4']
  traffic.check_launches(profile(kernels), 'backward', V100)
  traffic.check_launches(profile(['cudnn::bw_like', 'bowtie', 'wgrad']), 'training', V100)


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'device': 'Tesla V100-SXM2-32GB'}, None),
    ({'capability': '7.0'}, None),
    ({'device': 'NVIDIA H200'}, 'the profile is of a NVIDIA H200; allowed: of a V100'),
    ({'device': 'TITAN V'}, 'of a TITAN V'),
    ({'capability': '9.0'}, 'capability 9.0; allowed: of a V100, which has 7.0'),
  ],
)
def test_a_profile_of_another_gpu_is_refused(fields, message):
  if message is None:
    traffic.check_launches(profile(FORWARD, **fields), 'forward', V100)
    return
  with pytest.raises(traffic.ProfileError, match=message):
    traffic.check_launches(profile(FORWARD, **fields), 'forward', V100)


@pytest.mark.parametrize(
  'name, model',
  [
    ('Tesla V100-SXM2-32GB', 'v100'),
    ('NVIDIA GeForce GTX 1080 Ti', '1080ti'),
    ('gtx_1080_ti', '1080ti'),
    ('GeForce RTX 2080', '2080'),
    ('NVIDIA A100-SXM4-40GB', 'a100'),
    ('NVIDIA H100 80GB HBM3', 'h100'),
    ('NVIDIA GeForce RTX 4090', '4090'),
    ('TITAN V', 'titanv'),
  ],
)
def test_models_of_gpus(name, model):
  assert traffic.gpu_model(name) == model


@pytest.fixture(scope='module')
def table():
  return models.layer_table(models.create('resnet8', num_classes=10), (32, 32, 3), train=True)


@pytest.fixture(scope='module')
def found(table):
  return traffic.predict_traffic(table, traffic.GTX_1080_TI, 2, training=True)


def test_parts_of_the_model_are_the_whole_without_the_update(table, found):
  parts = {mode: traffic.part_of(found, mode) for mode in MODES}
  assert parts['training'] == found.rows
  assert parts['forward'] + parts['backward'] == parts['forward_backward']
  update = tuple(row for row in found.rows if row.launch.kind == 'update')
  assert update and parts['forward_backward'] + update == found.rows
  inference = traffic.predict_traffic(table, traffic.GTX_1080_TI, 2)
  # A step keeps more between the layers (statistics, what gradients need) than an inference.
  forward, alone = (
    [row.launch for row in rows if row.launch.kind == 'forward']
    for rows in (parts['forward'], inference.rows)
  )
  assert [launch.path for launch in forward] == [launch.path for launch in alone]
  kinds = {row.launch.kind for row in parts['backward']}
  assert kinds == {'data_gradient', 'weight_gradient', 'elementwise_gradient'}
  with pytest.raises(ValueError, match="mode='step'; allowed: inference, training"):
    traffic.part_of(found, 'step')


def test_layers_beside_the_model(found):
  layer = traffic.LayerProfile('', (0,), 0.25, 100.0, 0.0, None, 8.0)
  paths = ('step/stem', 'stem/conv:forward', 'stem', 'other', '')
  rows = traffic.compare_layers(dict.fromkeys(paths, layer), found.rows, products=True)
  assert [(row.path, row.counter) for row in rows] == [
    (path, counter) for path in paths[:-1] for counter in (*COUNTERS, 'seconds')
  ]
  seconds = [row for row in rows if row.counter == 'seconds']
  assert [row.measured for row in seconds] == [0.25] * 4
  by_path = {row.path: row for row in rows if row.counter == 'l2_reads'}
  stem = [r for r in found.rows if r.launch.path == 'stem/conv' and r.launch.layer >= 0]
  forward = sum(r.l2_reads for r in stem if r.launch.kind == 'forward')
  whole = sum(r.l2_reads for r in stem)
  assert seconds[2].predicted == pytest.approx(sum(r.seconds for r in stem))
  assert by_path['stem/conv:forward'].predicted == pytest.approx(forward)
  assert by_path['stem'].predicted == by_path['step/stem'].predicted == pytest.approx(whole)
  assert by_path['stem'].error == pytest.approx(whole / 100 - 1)
  assert by_path['other'].predicted is by_path['other'].error is None
  errors = {row.counter: row.error for row in rows if row.path == 'stem'}
  assert errors['l2_writes'] is None and errors['dram_reads'] is None
  every = traffic.compare_layers({'stem': layer}, found.rows, products=False)
  assert every[0].predicted > whole  # Norm, activation and update too.


COUNTED = dict(zip(COUNTERS, (400.0, 100.0, 60.0, 30.0)))


def test_a_demand_is_the_sum_of_all_launches():
  kernels = [
    traffic.LaunchProfile('conv', **COUNTED, seconds=0.25),
    traffic.LaunchProfile('relu', **COUNTED, seconds=0.5),
  ]
  copy = traffic.LaunchProfile('[CUDA memcpy HtoD]', seconds=9.0)
  demand = traffic.profile_demand([copy, *kernels], V100)
  assert demand == (800, 200, 120, 60, 0.75, V100) and demand.l2_bytes == V100.l2_bytes
  without = traffic.profile_demand([one._replace(seconds=None) for one in kernels], V100)
  assert without.seconds is None


@pytest.mark.parametrize('counter', COUNTERS)
def test_a_demand_without_a_counter_is_refused(counter):
  lacking = traffic.LaunchProfile('conv', **{**COUNTED, counter: None})
  with pytest.raises(traffic.ProfileError, match=f'the profile has no counter for {counter}'):
    traffic.profile_demand([lacking], V100)
  with pytest.raises(traffic.ProfileError, match=f'1 of 2 launches have no counter for {counter}'):
    traffic.profile_demand([lacking, traffic.LaunchProfile('relu', **COUNTED)], V100)


def test_dram_of_another_capacity_is_scaled_by_the_model(found):
  gpu = traffic.GTX_1080_TI
  demand = traffic.profile_demand([traffic.LaunchProfile('conv', **COUNTED)], gpu)
  measured = traffic.ProfiledTraffic(demand, found, found)
  assert (measured.l2_reads, measured.l2_writes, measured.macs) == (400, 100, found.macs)
  assert measured.dram(gpu.l2_bytes) == (60, 30)  # To the bit.
  capacities = np.array([gpu.l2_bytes // 8, gpu.l2_bytes])
  reads, writes = measured.dram(capacities)
  modelled, base = found.dram(capacities), found.dram(gpu.l2_bytes)
  np.testing.assert_allclose(reads, 60 * modelled[0] / base[0], rtol=1e-12)
  np.testing.assert_allclose(writes, 30 * modelled[1] / base[1], rtol=1e-12)
  assert reads[0] > reads[1] == 60


def test_other_traffic_is_scaled_by_the_model(found, table):
  gpu = traffic.GTX_1080_TI
  demand = traffic.profile_demand([traffic.LaunchProfile('conv', **COUNTED)], gpu)
  twice = traffic.predict_traffic(table, gpu, 4, training=True)
  measured = traffic.ProfiledTraffic(demand, found, twice)
  assert measured.l2_reads == pytest.approx(400 * twice.l2_reads / found.l2_reads)
  assert measured.l2_writes == pytest.approx(100 * twice.l2_writes / found.l2_writes)
  assert measured.dram(gpu.l2_bytes)[0] == pytest.approx(
    60 * twice.dram(gpu.l2_bytes)[0] / found.dram(gpu.l2_bytes)[0]
  )


def test_where_the_model_has_no_dram_accesses_its_own_are_added(table):
  """A network that a large cache holds: a ratio to nothing would be infinite."""
  gpu = dataclasses.replace(traffic.H200, l2_bytes=1 << 30)
  found = traffic.predict_traffic(table, gpu, 1)
  demand = traffic.profile_demand([traffic.LaunchProfile('conv', **COUNTED)], gpu)
  measured = traffic.ProfiledTraffic(demand, found, found)
  # The tail of misses of a set-associative cache.
  assert max(found.dram(1 << 30)) < 1e-30 and measured.dram(1 << 30) == (60, 30)
  reads, writes = measured.dram(1 << 16)
  assert (reads - 60, writes - 30) == pytest.approx(found.dram(1 << 16)) and reads > 60
