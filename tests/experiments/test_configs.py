"""Every file in configs/ is allowed by its experiment, and is run in a small form by some test."""

import json

import jax
import numpy as np
import pytest

from cnnopt_jax import models
from experiments import pretrained
from experiments.common import fields
from tests.experiments import runs

CONFIGS = sorted(path.stem for path in (runs.REPO / 'configs').glob('[a-z]*.py'))
# What runs a config's small form: a test of this repository, as file::name.
TESTED = {
  'bitwidth_study': 'tests/experiments/test_bitwidth_study.py::whole',
  'bitwidth_study_cifar100': 'tests/experiments/test_bitwidth_study.py::test_cifar100',
  'bitwidth_study_imagenet': 'tests/experiments/test_bitwidth_study.py::test_imagenet',
  'bitwidth_study_long': 'tests/experiments/test_bitwidth_study.py::shard',
  'codesign': 'tests/experiments/test_nvm_eval.py::test_codesign_joins_accuracies',
  'codesign_vgg8': 'tests/experiments/test_configs.py::test_codesign_vgg8',
  'conv_bench': 'tests/experiments/test_configs.py::test_conv_bench',
  'kernel_bench': 'tests/experiments/test_kernel_bench.py::test_on_a_cpu_it_times_xla_and_says_so',
  'mixed_precision': 'tests/experiments/test_mixed_precision.py::finished',
  'nvm_batch': 'tests/experiments/test_configs.py::test_analyses_of_caches',
  'nvm_bench': 'tests/nvm/test_experiments.py::test_bench_writes_its_figures',
  'nvm_cache': 'tests/nvm/test_experiments.py::test_the_cache_table',
  'nvm_iso_area': 'tests/experiments/test_configs.py::test_analyses_of_caches',
  'nvm_iso_capacity': 'tests/experiments/test_nvm_eval.py::evaluated',
  'nvm_profile': 'tests/experiments/test_profiles.py::test_finished_profiles_are_compared',
  'nvm_scaling': 'tests/experiments/test_nvm_eval.py::test_scaling_compares_equal_capacities',
  'nvm_validate': 'tests/nvm/test_experiments.py::test_validation_reports_a_wrong_figure',
  'pretrained': 'tests/experiments/test_pretrained.py::test_photos_are_recognised',
  'quant_sweep': 'tests/experiments/test_quant_sweep.py::whole',
  'quant_sweep_pretrained': 'tests/experiments/test_starts.py::test_from_published_weights',
  'sweep_bench': 'tests/experiments/test_sweep_bench.py::test_rows_of_a_job_and_of_the_four_ways',
  'vip_bench': 'tests/experiments/test_configs.py::test_vip_bench',
  'vip_sensitivity': 'tests/experiments/test_configs.py::test_vip_sensitivity',
  'vip_vgg': 'tests/experiments/test_vip.py::finished',
}


@pytest.mark.parametrize('name', CONFIGS)
def test_every_config_is_allowed(name):
  shipped = runs.load_config(name)
  assert set(shipped) == set(runs.experiment_of(name).SPEC)


@pytest.mark.parametrize('name', CONFIGS)
def test_every_config_is_run_by_a_test(name):
  path, _, function = TESTED[name].partition('::')
  assert f'\ndef {function}(' in (runs.REPO / path).read_text()


@pytest.mark.parametrize('name', ['nvm_iso_area', 'nvm_batch'])
def test_analyses_of_caches(name, tmp_path):
  small = dict(workloads=('resnet8',), inference_batches=(1,), training_batches=(2,))
  config = runs.load_config(name, **small)
  rows = runs.experiment_of(name).run(config, tmp_path)
  assert {row['mode'] for row in rows} == {'inference', 'training'}
  assert all(row['edp_js'] > 0 for row in rows)
  figure = {'nvm_iso_area': 'iso_area.png', 'nvm_batch': 'batch.png'}[name]
  assert (tmp_path / figure).stat().st_size > 10_000


def test_conv_bench(tmp_path):
  layers = ('5/2 3 4', '4/1 2 depthwise', '4/1 9 17', '5/2 3 4 1x1', '5/2 3 5x5 depthwise')
  config = runs.load_config('conv_bench', batch_size=2, rounds=1, layers=layers)
  bench = runs.experiment_of('conv_bench')
  written = bench.run(config, tmp_path)
  totals, rows = written[:6], written[6:]
  assert len(rows) == 15 and json.loads((tmp_path / 'bench.json').read_text()) == written
  assert [row['name'] for row in totals] == [
    f'{kind}{total}'
    for kind in ('', 'one_tap_', 'depthwise_')
    for total in ('xla_over_chosen', 'chosen_over_best')
  ]
  for better, lost in zip(totals[::2], totals[1::2]):
    assert lost['value'] >= 1 and better['value'] > 0
  assert [row['name'] for row in rows[::3]] == [
    '5x5/2 3->4 convolution',
    '4x4/1 9->17 convolution',
    '5x5/2 3->4 1x1 convolution',
    '4x4/1 2 3x3 depthwise convolution',
    '5x5/2 3 5x5 depthwise convolution',
  ]
  for row in rows:
    times = [value for key, value in row.items() if key.endswith('_ms')]
    assert row['value'] == pytest.approx(row['xla_ms'] / row[f'{row["form"]}_ms'], rel=0.1)
    assert row['over_best'] == pytest.approx(row[f'{row["form"]}_ms'] / min(times), rel=0.1)
  with pytest.raises(fields.ConfigError, match=r"config.layers\[0\]='5 3 4'; allowed: 'SIDE/"):
    runs.load_config('conv_bench', layers=('5 3 4',))


def test_codesign_vgg8(tmp_path):
  """Its accuracies come from three runs of `experiments.vip`; here from a table like theirs."""
  finished = tmp_path / 'finished.csv'
  finished.write_text(
    'model,bits,width_multiplier,plan,test_accuracy\n'
    'vgg8,32,0.5,none,0.9\nvgg8,32,0.5,conv1_1+conv1_2,0.89\n'
    'vgg8,4,0.5,none,0.88\nvgg8,4,0.5,conv1_1+conv1_2,0.87\n'
  )
  config = runs.load_config(
    'codesign_vgg8',
    results=str(finished),
    bits=(4, 32),
    technologies=('sram',),
    capacities_mib=(1,),
    batch=1,
  )
  rows = runs.experiment_of('codesign_vgg8').run(config, tmp_path)
  assert sorted(row['test_accuracy'] for row in rows) == [0.87, 0.88, 0.89, 0.9]
  assert any(row['pareto'] for row in rows)


def test_vip_bench(tmp_path, monkeypatch):
  """With VGG-16's channels cut to a sixteenth, and a small ResNet for the other networks."""
  bench = runs.experiment_of('vip_bench')
  create = models.create

  def small(name, *, num_classes, **options):
    model = create(name, num_classes=10, **options)
    if not isinstance(model, models.VGG):
      return create('resnet8', num_classes=10, width_multiplier=0.25)
    stages = tuple(tuple(max(4, n // 16) for n in stage) for stage in model.stages)
    return model.clone(stages=stages, hidden=(16, 16))

  monkeypatch.setattr(models, 'create', small)
  monkeypatch.setattr(bench.programs, 'NUM_CLASSES', 10)
  monkeypatch.setattr(
    bench, 'NETWORKS', [network._replace(plan='all') for network in bench.NETWORKS]
  )
  config = runs.load_config(
    'vip_bench', batch_size=1, image_size=32, rounds=1, training_rounds=1, form_rounds=1
  )
  rows = {row['name']: row for row in bench.run(config, tmp_path)}
  assert json.loads((tmp_path / 'bench.json').read_text()) == list(rows.values())
  assert rows['vgg16_all_virtual_difference']['value'] < 1e-4
  ratio = rows['vgg16_training_step_vs_dense']
  dense, virtual = (rows[f'vgg16_training_{kind}_ms']['value'] for kind in ('dense', 'virtual'))
  assert ratio['value'] == pytest.approx(dense / virtual) and ratio['unit'] == 'ratio'
  assert {'resnet50_round2_vs_dense', 'all_cnn_32x32_all_virtual_vs_dense_xla'} <= rows.keys()


def test_vip_sensitivity(tmp_path, monkeypatch):
  """On a small network and noise, so that it runs without the extra `pretrained` too."""
  model = models.create('plain', num_classes=7, width_multiplier=0.25)
  variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
  rng = np.random.default_rng(0)
  monkeypatch.setattr(models, 'load_efficientnet_lite0', lambda: (model, variables))
  monkeypatch.setattr(models, 'prepare_image', lambda photo: photo[:32, :32] / np.float32(255))
  monkeypatch.setattr(
    pretrained, 'read_photo', lambda name: rng.integers(0, 256, (80, 90, 3), np.uint8)
  )
  experiment = runs.experiment_of('vip_sensitivity')
  config = runs.load_config('vip_sensitivity', crops=1)
  found = experiment.run(config, tmp_path)
  assert [record['name'] for record in found] == list(models.unit_names(model))
  assert all(0 <= r['agreement'] <= 1 and r['probability_kept'] > 0 for r in found)
  assert {r['kernel_size'] for r in found} == {3}
  # A killed run goes on: what is on record is not measured again.
  lines = (tmp_path / 'records.jsonl').read_text().splitlines(keepends=True)
  (tmp_path / 'records.jsonl').write_text(''.join(lines[:2]))
  rng = np.random.default_rng(0)
  assert experiment.run(config, tmp_path) == found
  assert len((tmp_path / 'results.csv').read_text().splitlines()) == 1 + len(found)
