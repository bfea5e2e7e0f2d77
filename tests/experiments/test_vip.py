"""Virtual pooling from training to the knob, as a process: results, stop, resume, wrong input."""

import csv
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax import models, report, vip
from configs import vip_vgg
from experiments import vip_bench
from experiments.vip import plan as vip_plan
from experiments.vip import stages
from tests.experiments import runs
from tests.vip.maps import compiled

TINY = dict(
  model='plain',
  width_multiplier=0.1,
  seeds='0,1',
  epochs=1,
  batch_size=2000,
  fine_tune_epochs=1,
  rounds=1,
  sensitivity_images=300,
  random_plans=1,
  bound_images=2,
  timing_rounds=1,
  timing_batch=2,
  energy_seconds=0.01,
  checkpoint_steps=3,
)
STAGES = ['dense', 'latency', 'sensitivity', 'random', 'bound', 'round1', 'control1', 'cost']


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A run that was stopped once, and then went on to its end."""
  workdir = tmp_path_factory.mktemp('vip')
  records = workdir / 'records.jsonl'
  process = runs.start('vip', workdir, **TINY)
  code, _, err = runs.signal_when(
    process,
    lambda: records.exists() and '"sensitivity"' in records.read_text(),
    signum=runs.signal.SIGTERM,
  )
  assert code == 143 and 'the same command goes on' in err
  before = records.read_text()
  code, out, err = runs.run('vip', workdir, **TINY)
  assert code == 0, err
  assert records.read_text().startswith(before)
  return workdir, out


def test_every_stage_is_on_record_once(finished):
  workdir, out = finished
  records = report.records.read(workdir / 'records.jsonl')
  assert [r['name'] for r in records] == STAGES
  by_name = {r['name']: r for r in records}
  assert sum(row['violations'] for row in by_name['bound']['rows']) == 0
  assert len(by_name['sensitivity']['losses']) == 6
  assert len(set(by_name['round1']['plan'])) == 6
  assert 'random plans' in out and 'points' in out


def test_the_table_has_a_point_a_round(finished):
  workdir, _ = finished
  with open(workdir / 'results.csv') as file:
    rows = list(csv.DictReader(file))
  assert [row['name'] for row in rows] == ['dense', 'round1']
  (control,) = (
    r for r in report.records.read(workdir / 'records.jsonl') if r['name'] == 'control1'
  )
  mean = np.mean(control['accuracies'])
  assert float(rows[1]['lost_to_control_points']) == pytest.approx(
    100 * (mean - float(rows[1]['test_accuracy']))
  )
  macs = [float(row['macs']) for row in rows]
  assert macs[0] > macs[1]
  for row in rows:
    # One source a row, and a figure that was not measured is not there.
    assert (row['energy_source'] == 'not measured') == (row['measured_energy_mj'] == '')
    assert float(row['modelled_energy_mj']) > 0 and float(row['latency_ms']) > 0
  text = (workdir / 'report.md').read_text()
  assert 'compares equal weights only' in text and '95 % interval' in text
  assert (workdir / 'pareto.png').stat().st_size > 5000


@pytest.mark.parametrize(
  'wrong, words',
  [
    (dict(rounds=7), 'config.rounds=7; allowed: at most the 6 conv units of plain, 6'),
    (dict(model='vgg'), "config.model='vgg'; allowed: one of plain"),
    (
      dict(sensitivity_images=20000),
      'config.sensitivity_images=20000; allowed: at most the number of training images',
    ),
  ],
)
def test_wrong_input_is_one_line(tmp_path, wrong, words):
  code, _, err = runs.run('vip', tmp_path, **{**TINY, **wrong})
  assert code == 2 and err.count('\n') == 1 and words in err


def test_members_infer_with_weights_of_their_bits(tmp_path):
  config = vip_vgg.get_config()
  config.update(model='plain', width_multiplier=0.5, bits=2, seeds=(0, 1))
  setting = vip_plan.make_setting(config, tmp_path, progress=None, stop=lambda: False)
  x = jnp.zeros((1, *setting.dataset.image_shape))
  variables = compiled(jax.vmap(lambda key: setting.model.init(key, x)))(
    jax.random.split(jax.random.key(0), 2)
  )
  statistics = {name: v for name, v in variables.items() if name != 'params'}
  state = types.SimpleNamespace(params=variables['params'], statistics=statistics)
  for i, member in enumerate(stages.inference_variables(setting, state)):
    unit = member['params']['unit2']
    kernel = unit['conv']['kernel'].reshape(-1, unit['conv']['kernel'].shape[-1])
    assert all(len(np.unique(filter_)) <= 4 for filter_ in kernel.T)
    before = variables['params']['unit2']
    assert len(np.unique(before['conv']['kernel'][i])) > 100
    np.testing.assert_array_equal(unit['norm']['scale'], before['norm']['scale'][i])


def test_units_of_the_bench_are_the_network():
  stages, plan = ((4, 4), (8, 8)), ('conv1_1', 'conv1_2', 'conv2_2')
  model = models.VGG(num_classes=0, stages=stages, norm=False)
  x = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
  params = compiled(model.init)(jax.random.key(1), x)['params']
  params = jax.tree.map(lambda p: p + 0.1, params)
  for units in ((), plan):
    want = compiled(models.with_plan(model, units).apply)({'params': params}, x)
    for options in ({}, {'written': True}, {'patches': True}):
      steps = vip_bench.vgg_units(stages, units, **options)
      divisions = vip_bench.programs(params, x, steps)
      on_cpu = jax.default_backend() == 'cpu'
      assert set(divisions) == {'one jit', 'unit by unit', *['batch over cores'] * on_cpu}
      for division in divisions.values():
        np.testing.assert_allclose(division(), want, rtol=0, atol=1e-4 * float(jnp.abs(want).max()))
  assert 'batch over cores' not in vip_bench.programs(params, x[:1], steps)


def test_bounded_layers_are_the_units_with_folded_norms():
  model = models.create('resnet8', num_classes=3, width_multiplier=0.2)
  x = jax.random.normal(jax.random.key(0), (2, 9, 9, 1))
  variables = compiled(model.init)(jax.random.key(1), x)
  variables = jax.tree.map(lambda v: v + 0.3, variables)
  layers = list(models.bounded_layers(model, variables, x))
  assert tuple(layer.name for layer in layers) == models.unit_names(model)
  layer, after = layers[0], layers[1]
  got = vip.relu(vip.conv(layer.x, layer.kernel) + layer.bias)
  np.testing.assert_allclose(got, after.x, rtol=1e-5, atol=1e-5)
  assert {layer.activation for layer in layers} == {'relu', 'identity'}
  assert all(math.isfinite(float(jnp.sum(layer.kernel))) for layer in layers)
