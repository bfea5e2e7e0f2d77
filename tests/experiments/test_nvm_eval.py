"""The evaluation of small networks, codesign with and without accuracies, and bad input."""

import csv
import pathlib

import pytest

from experiments import codesign, nvm_eval
from experiments.common import fields
from tests.experiments import runs

REPO = pathlib.Path(__file__).resolve().parents[2]


def load(name, **changes):
  module = codesign if name.startswith('codesign') else nvm_eval
  return fields.check(runs.load_config(name, **changes), module.SPEC)


SMALL = dict(workloads=('resnet8',), inference_batches=(1,), training_batches=(2,))


@pytest.fixture(scope='module')
def evaluated(tmp_path_factory):
  folder = tmp_path_factory.mktemp('iso')
  return folder, nvm_eval.run(load('nvm_iso_capacity', **SMALL), folder)


def test_results_have_every_combination_and_consistent_figures(evaluated):
  folder, rows = evaluated
  with open(folder / 'results.csv', newline='') as file:
    written = list(csv.DictReader(file))
  assert list(written[0]) == list(nvm_eval.COLUMNS) and len(written) == len(rows)
  keys = {(r['source'], r['technology'], r['mode'], r['with_dram']) for r in rows}
  assert len(keys) == len(rows) == 2 * 3 * 2 * 2
  for r in rows:
    parts = r['dynamic_energy_j'] + r['leakage_energy_j'] + r['dram_energy_j']
    assert r['total_energy_j'] == pytest.approx(parts)
    assert r['edp_js'] == pytest.approx(r['total_energy_j'] * r['delay_s'])
    assert (r['dram_energy_j'] > 0) == r['with_dram'] == (r['dram_energy_reduction'] is not None)
    if r['technology'] == 'sram':
      assert r['edp_reduction'] == r['area_reduction'] == 1
  sot = [r for r in rows if (r['source'], r['technology']) == ('published', 'sot')]
  assert {round(r['area_reduction'], 2) for r in sot} == {2.84}


def test_report_names_versions_sources_and_doubts(evaluated):
  folder, _ = evaluated
  text = (folder / 'report.md').read_text()
  for words in (
    'DeepNVM, DATE 2020',
    'DeepNVM++, TCAD 2021',
    'recalled, unverified',
    'compared with the counters of a V100, for VGG-16 in PyTorch',
    'library: PyTorch, eager, with cuDNN; products in float32',
    'Algorithms, by layers of all cases: forward ',
    'our own constants',
    '14.6 %',
    '19.8 %',
    'reproduced',
  ):
    assert words in text, words
  for name in ('iso_capacity.png', 'dram.png', 'dram_sensitivity.png'):
    assert (folder / name).stat().st_size > 10_000 and name in text


def test_scaling_compares_equal_capacities(tmp_path):
  config = load('nvm_scaling', **{**SMALL, 'training_batches': ()}, capacities_mib=(1, 3))
  rows = nvm_eval.run(config, tmp_path)
  assert {(r['source'], r['capacity_mib']) for r in rows} == {
    ('published', 3),
    ('model', 1),
    ('model', 3),
  }
  assert all(r['edp_reduction'] == 1 for r in rows if r['technology'] == 'sram')


def test_no_batches_is_refused(tmp_path):
  config = load('nvm_batch', inference_batches=(), training_batches=())
  with pytest.raises(fields.ConfigError, match='at least one batch'):
    nvm_eval.run(config, tmp_path)


TINY = dict(
  model='plain',
  image_shape=(28, 28, 1),
  num_classes=10,
  batch=1,
  bits=(2, 32),
  plans=('none', 'unit1+unit2'),
  technologies=('sram', 'sot'),
  capacities_mib=(1,),
)


def test_codesign_joins_accuracies(tmp_path):
  results = tmp_path / 'finished.csv'
  results.write_text(
    'model,bits,width_multiplier,seed,test_accuracy\n'
    'plain,2,0.5,0,0.8\nplain,2,0.5,1,0.9\nplain,32,1.0,0,0.86\n'
    'plain,32,1.0,1,\nvgg11,2,1.0,0,0.99\n'
  )
  rows = codesign.run(load('codesign', **TINY, results=str(results)), tmp_path)
  assert len(rows) == 2 * 2 * 2
  known = {
    (r['bits'], r['width_multiplier'], r['plan']): (r['test_accuracy'], r['seeds']) for r in rows
  }
  assert known == {
    (2, 0.5, 'none'): (pytest.approx(0.85), 2),
    (2, 0.5, 'unit1+unit2'): (None, 0),
    (32, 1.0, 'none'): (0.86, 1),
    (32, 1.0, 'unit1+unit2'): (None, 0),
  }
  edp = {(r['bits'], r['plan'], r['technology']): r['edp_js'] for r in rows}
  assert edp[2, 'none', 'sram'] < edp[32, 'none', 'sram']
  assert edp[32, 'unit1+unit2', 'sram'] < edp[32, 'none', 'sram']
  front = [r for r in rows if r['pareto']]
  assert front and all(r['test_accuracy'] is not None for r in front)
  assert not any(
    a['edp_js'] < b['edp_js']
    and a['area_mm2'] <= b['area_mm2']
    and a['test_accuracy'] >= b['test_accuracy']
    for a in front
    for b in front
  )
  assert '0.8500' in (tmp_path / 'report.md').read_text()


def test_codesign_takes_the_plans_of_finished_runs(tmp_path):
  results = tmp_path / 'finished.csv'
  results.write_text(
    'bits,plan,test_accuracy\n2,unit2+unit1,0.8\n2,none,0.9\n32,unit1+unit2,0.85\n32,none,0.95\n'
  )
  config = load('codesign', **{**TINY, 'plans': ()}, results=str(results))
  assert [(n.bits, n.plan, n.test_accuracy) for n in codesign.all_networks(config)] == [
    (2, 'none', 0.9),
    (2, 'unit1+unit2', 0.8),
    (32, 'none', 0.95),
    (32, 'unit1+unit2', 0.85),
  ]
  with pytest.raises(fields.ConfigError, match=r'config.plans=\(\)'):
    codesign.all_networks(load('codesign', **{**TINY, 'plans': ()}))
  results.write_text('plan,test_accuracy\nunit99,0.8\n')
  with pytest.raises(fields.ConfigError, match="config.results: 'unit99'"):
    codesign.all_networks(config)


@pytest.mark.parametrize(
  'content, message',
  [
    ('bits,loss\n2,1\n', "no column 'test_accuracy'"),
    ('model,bits,test_accuracy\nvgg11,2,0.5\n', "no accuracy of model 'plain'"),
    ('bits,test_accuracy\n2,0.5\ntwo,0.5\n', 'line 3'),
    ('bits,test_accuracy\n5,0.5\n', r'it has \(5 bits, plan none\)'),
  ],
)
def test_codesign_refuses_other_files(tmp_path, content, message):
  path = tmp_path / 'results.csv'
  path.write_text(content)
  with pytest.raises(fields.ConfigError, match=message):
    codesign.all_networks(load('codesign', **TINY, results=str(path)))


def test_codesign_refuses_unknown_units(tmp_path):
  config = load('codesign', **{**TINY, 'plans': ('unit1+unit99',)})
  with pytest.raises(fields.ConfigError, match="config.plans: 'unit1.unit99'.*unit99"):
    codesign.run(config, tmp_path)


def test_command_line():
  code, _, error = runs.run('nvm_eval', '/tmp/unused', analysis='iso_cost')
  assert code == 2 and "config.analysis='iso_cost'" in error and 'iso_area' in error
