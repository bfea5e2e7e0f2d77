"""Virtual pooling from training to the knob, as a process: results, stop, resume, wrong input."""

import csv
import json
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax import models, report, training, vip
from experiments.common import fields
from experiments.vip import knob, plan, records, stages
from experiments.vip import report as vip_report
from experiments.vip_bench import programs
from tests.experiments import runs

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
STAGES_TUNED = ['round', 'control']
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
  assert 'Certificate: what a plan loses at most' in (workdir / 'report.md').read_text()
  macs = [float(row['macs']) for row in rows]
  assert macs[0] > macs[1]
  for row in rows:
    # One source a row, and a figure that was not measured is not there.
    assert (row['energy_source'] == 'not measured') == (row['measured_energy_mj'] == '')
    assert float(row['modelled_energy_mj']) > 0 and float(row['latency_ms']) > 0
  text = (workdir / 'report.md').read_text()
  assert 'compares equal weights only' in text and '95 % interval' in text
  assert (workdir / 'pareto.png').stat().st_size > 5000


def test_every_image_is_on_record_and_makes_the_certificate(finished):
  workdir, out = finished
  lines = {r['name']: r for r in report.records.read(workdir / 'records.jsonl')}
  round1, control = (records.from_json(records.FineTuned, lines[f'{n}1']) for n in STAGES_TUNED)
  for found in (round1, control):
    assert found.correct.shape == (2, 2000) and found.correct.dtype == bool
    assert tuple(found.correct.mean(1)) == pytest.approx(found.accuracies, abs=1e-12)
  want = vip.certify_loss(control.correct, round1.correct, plans=1)
  with open(workdir / 'results.csv') as file:
    dense, row = csv.DictReader(file)
  assert float(row['loss_at_most_points']) == pytest.approx(100 * want.bound)
  assert float(row['lost_to_control_points']) == pytest.approx(100 * want.loss)
  assert (int(row['images_lost']), int(row['images_gained'])) == (sum(want.lost), sum(want.gained))
  assert dense['loss_at_most_points'] == dense['images_lost'] == ''
  assert 'from 2000 held-out images' in out


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
  config = runs.load_config('vip_vgg', model='plain', width_multiplier=0.5, bits=2, seeds=(0, 1))
  setting = plan.make_setting(config, tmp_path, report.Progress(), stop=lambda: False)
  x = jnp.zeros((1, *setting.dataset.image_shape))
  variables = jax.jit(jax.vmap(lambda key: setting.model.init(key, x)))(
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


def test_networks_that_diverged_are_not_measured(tmp_path, monkeypatch):
  config = runs.load_config('vip_vgg', model='plain', seeds=(3, 5, 7), learning_rate=1e9)
  setting = plan.make_setting(config, tmp_path, report.Progress(), stop=lambda: False)
  state = types.SimpleNamespace(diverged_step=np.array([4, -1, 0]))
  monkeypatch.setattr(training, 'train', lambda *_, **__: training.Trained(state, 1.0))
  message = 'config.learning_rate=1e\\+09: dense diverged with seeds 3, 7; allowed: a smaller one'
  with pytest.raises(fields.ConfigError, match=message):
    stages.train(setting, 'dense')


def test_units_of_the_bench_are_the_network():
  stages, plan = ((4, 4), (8, 8)), ('conv1_1', 'conv1_2', 'conv2_2')
  model = models.VGG(num_classes=0, stages=stages, norm=False)
  x = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
  params = jax.jit(model.init)(jax.random.key(1), x)['params']
  params = jax.tree.map(lambda p: p + 0.1, params)
  for units in ((), plan):
    want = jax.jit(models.with_plan(model, units).apply)({'params': params}, x)
    for options in ({}, {'written': True}, {'patches': True}):
      steps = programs.vgg_units(stages, units, **options)
      divided = programs.divisions(params, x, steps)
      on_cpu = jax.default_backend() == 'cpu'
      assert set(divided) == {'one jit', 'unit by unit', *['batch over cores'] * on_cpu}
      for division in divided.values():
        np.testing.assert_allclose(division(), want, rtol=0, atol=1e-4 * float(jnp.abs(want).max()))
  assert 'batch over cores' not in programs.divisions(params, x[:1], steps)


def test_a_finished_run_goes_on_and_only_a_lost_stage_is_run_again(finished, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(finished[0], workdir)
  path, results = workdir / 'records.jsonl', workdir / 'results.csv'
  lines, before = path.read_text().splitlines(keepends=True), results.read_bytes()
  results.unlink()
  code, _, err = runs.run('vip', workdir, **TINY)
  assert code == 0, err
  assert results.read_bytes() == before and path.read_text() == ''.join(lines)
  path.write_text(''.join(lines[:-1]) + lines[-1][:50])  # Killed while the last was written.
  code, _, err = runs.run('vip', workdir, **TINY)
  assert code == 0, err
  again = path.read_text().splitlines(keepends=True)
  assert again[:-1] == lines[:-1]
  network = workdir / 'networks' / 'dense'
  next(network.glob('*/default/_METADATA')).write_text('')
  code, _, err = runs.run('vip', workdir, **TINY)
  assert code == 2 and err.startswith(f'error: {network}: damaged: ') and err.count('\n') == 1
  timings = {'latency_ms', 'latency_p25_ms', 'latency_p75_ms', 'measured_energy_mj'}
  for old, new in zip(json.loads(lines[-1])['rows'], json.loads(again[-1])['rows'], strict=True):
    assert {k: old[k] for k in old if k not in timings} == {
      k: new[k] for k in new if k not in timings
    }


def test_a_run_of_an_earlier_version_reports_without_a_certificate(finished, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(finished[0], workdir)
  path = workdir / 'records.jsonl'
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  for line in lines:
    line.pop('correct', None)
  path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
  before = (workdir / 'results.csv').read_text()
  code, out, err = runs.run('vip', workdir, **TINY)
  assert code == 0, err
  with open(workdir / 'results.csv') as file:
    _, row = csv.DictReader(file)
  _, old = csv.DictReader(before.splitlines())
  assert row == old | dict.fromkeys(('loss_at_most_points', 'images_lost', 'images_gained'), '')
  assert 'Certificate' not in (workdir / 'report.md').read_text() and 'held-out' not in out


def results_of(rounds, controls, *, dense=0.9, correct=None):
  """Results of two seeds with these mean accuracies; of the rest only what verdicts read."""

  def tuned(plan, mean, right=None):
    return records.FineTuned(plan, (0.5, 0.5), (mean - 0.01, mean + 0.01), right)

  def cost(ms):
    return records.PlanCost(ms, ms, ms, 1e6, 'not measured', None, 0.1, 0)

  pairs = correct or [(None, None)] * len(rounds)
  units = tuple(f'unit{i}' for i in range(len(rounds)))
  found = records.RandomPlans(
    ((),), (0.5,), (0.5,), (vip.Difference(0, 0, 0),), vip.Difference(0, 0, 0), (1.0,), (1.0,)
  )
  return records.Results(
    records.DenseAccuracy((dense - 0.01, dense + 0.01)),
    None,
    None,
    found,
    None,
    tuple(tuned(units[: i + 1], mean, pairs[i][1]) for i, mean in enumerate(rounds)),
    tuple(tuned((), mean, pairs[i][0]) for i, mean in enumerate(controls)),
    records.Cost(tuple(cost(12.0 / (i + 1)) for i in range(len(rounds) + 1)), ''),
  )


def setting_of(tmp_path, **changes):
  config = runs.load_config('vip_vgg', seeds=(0, 1), **changes)
  return plan.make_setting(config, tmp_path, report.Progress(), stop=lambda: False)


def test_verdicts_are_against_the_control(tmp_path):
  setting = setting_of(tmp_path)
  # The second round loses 1 point to the first dense network, and 2 to what it became meanwhile.
  speed = vip_report.verdicts(setting, results_of((0.905, 0.89), (0.907, 0.91)))[1]
  assert 'round1: 2.00 times as fast' in speed and '+0.20 points lost' in speed
  assert 'fine-tuned as long' in speed and '(-0.50 to the dense network as first trained)' in speed
  speed = vip_report.verdicts(setting, results_of((0.89, 0.88), (0.91, 0.92)))[1]
  assert speed.startswith('No round loses at most 1.5 points to the dense network fine-tuned')
  assert '+2.00, by round1' in speed


def test_without_a_control_the_verdict_says_so(tmp_path):
  setting = setting_of(tmp_path, control=False)
  results = results_of((0.905, 0.89), ())
  found = vip_report.verdicts(setting, results)
  assert len(found) == 2 and 'round2' in found[1] and 'no control was run' in found[1]
  rows = vip_report.points(setting, results)
  assert [row['lost_to_control_points'] for row in rows[1:]] == [None, None]
  assert len(knob.series(setting, rows)) == 2


def test_certificates_count_every_round_and_seed(tmp_path):
  rng = np.random.default_rng(0)
  setting, correct = setting_of(tmp_path), []
  for loss in (0.02, 0.05):
    right = rng.random((2, 400)) < 0.9
    correct.append((right, right & (rng.random((2, 400)) > loss)))
  results = results_of((0.9, 0.88), (0.91, 0.91), correct=correct)
  rows = vip_report.points(setting, results)
  for row, (control, tuned) in zip(rows[1:], correct):
    assert row['images_lost'] == (control & ~tuned).sum() and row['images_gained'] == 0
    each = [
      vip.loss_bound(int(n), 0, 400, confidence=1 - 0.05 / 4) for n in (control & ~tuned).sum(1)
    ]
    assert row['loss_at_most_points'] == pytest.approx(100 * np.mean(each))
  sentence = vip_report.verdicts(setting, results)[2]
  assert sentence.startswith('With 95 % confidence in all of it at once, from 400 held-out images')
  assert f'{rows[1]["loss_at_most_points"]:.2f} points in round1' in sentence
  # Where a round lacks its images the others stay certified, at the same share.
  partly = results_of((0.9, 0.88), (0.91, 0.91), correct=[correct[0], (None, None)])
  again = vip_report.points(setting, partly)
  assert again[1] == rows[1] and again[2]['loss_at_most_points'] is None


def test_the_picture_shows_every_control_and_names_every_point(tmp_path):
  setting = setting_of(tmp_path)
  rows = vip_report.points(setting, results_of((0.905, 0.89), (0.907, 0.91)))
  found = knob.series(setting, rows)
  assert [name for one in found for name in one.names] == [
    'round1, 1 of 7',
    'round2, 2 of 7',
    'dense',
    'control1',
    'control2',
  ]
  assert [one.y for one in found[2:]] == [pytest.approx([0.907]), pytest.approx([0.91])]
  assert [one.label for one in found[2:]] == ['dense, fine-tuned as long', '']
  assert {x for one in found[1:] for x in one.x} == {rows[0]['latency_ms']}


# Lines as earlier versions wrote them: these are the format.
RECORDED = {
  'latency': (records.Latency, '{"name": "latency", "dense_ms": 0.5, "saved_ms": [0.25, -0.125]}'),
  'random': (
    records.RandomPlans,
    '{"name": "random", "plans": [["unit1", "unit2"]], "random_accuracy": [0.5], '
    '"ordered_accuracy": [0.75], "differences": [{"mean": 0.25, "low": 0.0, "high": 0.5}], '
    '"difference": {"mean": 0.25, "low": 0.0, "high": 0.5}, "random_ms": [2.0], '
    '"ordered_ms": [1.0]}',
  ),
  'bound': (
    records.ErrorBounds,
    '{"name": "bound", "rows": [{"layer": "unit0", "images": 2, "error": 0.5, "a_priori": 5.0, '
    '"a_posteriori": null, "trivial": 3.0, "ratio": 3.0, "worst": 3.5, "ratio_max": 2.5, '
    '"violations": 0}], "chain": null}',
  ),
  'round1': (
    records.FineTuned,
    '{"name": "round1", "plan": ["unit1"], "accuracies_before": [0.25], "accuracies": [0.5], '
    '"correct": {"shape": [1, 10], "bits": "qUA="}}',
  ),
  'cost': (
    records.Cost,
    '{"name": "cost", "rows": [{"latency_ms": 0.5, "latency_p25_ms": 0.5, "latency_p75_ms": 0.5, '
    '"macs": 25782.0, "energy_source": "not measured", "measured_energy_mj": null, '
    '"modelled_energy_mj": 0.25, "written_maps": 1}], "energy_not_measured": "no meter"}',
  ),
}


@pytest.mark.parametrize('name', RECORDED)
def test_records_are_typed_and_their_lines_stay_as_they_were(name, tmp_path):
  kind, line = RECORDED[name]
  (tmp_path / 'records.jsonl').write_text(line + '\n')
  found = records.StageRecords(tmp_path).stage(name, kind, compute=None)
  assert type(found) is kind
  assert json.dumps({'name': name, **records.to_json(found)}) == line
  (tmp_path / 'other').mkdir()
  again = records.StageRecords(tmp_path / 'other')
  again.stage(name, kind, lambda: found)
  assert name in again and (tmp_path / 'other' / 'records.jsonl').read_text() == line + '\n'


def test_the_fields_of_a_record_have_types():
  kind, line = RECORDED['random']
  found = records.from_json(kind, json.loads(line))
  assert found.plans == (('unit1', 'unit2'),) and found.difference.high == 0.5
  kind, line = RECORDED['round1']
  found = records.from_json(kind, json.loads(line))
  # 0xA9 0x40, the first image in the highest bit.
  np.testing.assert_array_equal(found.correct, [[1, 0, 1, 0, 1, 0, 0, 1, 0, 1]])
  older = {name: value for name, value in json.loads(line).items() if name != 'correct'}
  assert records.from_json(kind, older).correct is None
  kind, line = RECORDED['bound']
  rows = records.from_json(kind, json.loads(line)).rows
  assert np.isnan(rows[0].a_posteriori) and rows[0].layer == 'unit0'


@pytest.mark.parametrize(
  'line',
  ['{"name": "latency", "dense_ms": 0.5}', '{"name": "latency", "dense_ms": 1, "saved_ms": 2}'],
)
def test_a_record_of_another_kind_is_named(line, tmp_path):
  (tmp_path / 'records.jsonl').write_text(line + '\n')
  with pytest.raises(fields.ConfigError, match="records.jsonl: the record 'latency' is no Latency"):
    records.StageRecords(tmp_path).stage('latency', records.Latency, compute=None)


@pytest.mark.parametrize('bits', ['qQ==', 'qUA', 'qU*=', '3'])
def test_damaged_images_of_a_record_are_named(bits, tmp_path):
  line = RECORDED['round1'][1].replace('qUA=', bits)
  (tmp_path / 'records.jsonl').write_text(line + '\n')
  with pytest.raises(fields.ConfigError, match="the record 'round1' is no FineTuned"):
    records.StageRecords(tmp_path).stage('round1', records.FineTuned, compute=None)
