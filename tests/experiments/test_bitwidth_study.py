"""The study of bitwidths, in a small form: whole, in shards, and of the paper's data sets."""

import csv
import json
import re

import numpy as np
import pytest

from cnnopt_jax import models, quant, training
from experiments import bitwidth_study
from experiments.bitwidth_study import fan_in, law, plan, results, verdicts
from experiments.common import bit_search, comparisons, fields
from tests.data import test_prepared
from tests.experiments import runs

SMALL = dict(
  budgets=('plain@0.25',),
  costs=('size',),
  mixed=('size',),
  held_out=100,
  bits=(2, 4),
  layer_choices=(2, 4, 8),
  tolerance=0.5,
  slack=0.25,
  seeds=(0, 1),
  epochs=1,
  batch_size=100,
  fan_ins=(9, 64),
)


def small(**changes):
  return runs.load_config('bitwidth_study', **{**SMALL, **changes})


@pytest.fixture(scope='module')
def few_images(tmp_path_factory):
  return runs.few_images(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def shard(few_images, tmp_path_factory):
  """One shard, by the long form's config, which differs in what these tests change alone."""
  workdir = tmp_path_factory.mktemp('shard')
  config = runs.load_config('bitwidth_study_long', **SMALL, **few_images, shard='1/2')
  return bitwidth_study.run(config, workdir), workdir


@pytest.fixture(scope='module')
def whole(few_images, shard, tmp_path_factory):
  """What a shard has trained is taken over, the rest trained."""
  workdir = tmp_path_factory.mktemp('study')
  return bitwidth_study.run(small(merge=(str(shard[1]),), **few_images), workdir), workdir


def rows_of(workdir):
  with open(workdir / 'results.csv') as file:
    return list(csv.DictReader(file))


def test_networks_of_a_cell_cost_the_same(whole):
  records, workdir = whole
  rows = rows_of(workdir)
  assert len({r['name'] for r in records}) == len(records)
  budget = int(rows[0]['budget'])
  singles = [row for row in rows if row['role'] == 'single']
  assert [row['kind'] for row in singles] == ['2 bits', '2 bits', '4 bits', '4 bits']
  assert all(budget / 1.25 <= int(row['size_bits']) <= budget for row in singles)
  mixed = [row for row in rows if row['role'] in ('mixed', 'free')]
  assert [row['kind'] for row in mixed] == ['mixed'] * 2 + ['free, width of 4 bits'] * 2
  assert all(int(row['size_bits']) <= budget for row in mixed)
  widths = {row['kind']: float(row['width_multiplier']) for row in rows}
  assert widths['2 bits'] > widths['4 bits'] == widths['free, width of 4 bits']
  floats = [r for r in records if r['role'] == 'float']
  assert [r['width_multiplier'] for r in floats] == [widths['4 bits']] * 2
  assert len(records) == len(rows) + len(floats)


@pytest.mark.parametrize('cost', quant.COSTS)
def test_budgets_are_lowered_to_what_all_bitwidths_meet(cost):
  config = small(costs=(cost,), mixed=(), bits=(1, 2, 4, 8), slack=0.05)
  networks = plan.networks_of(config, bitwidth_study.inputs.load_data(config))
  (cell,) = plan.cells_of(networks, config)
  layers = networks['plain'].widths.layers(0.25)
  weights = quant.plan_weights(layers, quant.GAUSSIAN)
  named = plan.cost_of(layers, weights, 8, cost, 'stored')
  assert 0.75 * named <= cell.budget <= named
  for bits, match in cell.singles.items():
    assert match.cost == plan.cost_of(match.layers, match.plan, bits, cost, 'stored')
    assert cell.budget / 1.05 <= match.cost <= cell.budget


def test_no_other_bits_within_the_budget_cost_less(whole):
  _, workdir = whole
  searches = json.loads((workdir / 'search.json').read_text())
  assert list(searches) == ['plain_size_w0.25_mixed', 'plain_size_w0.25_free_b4']
  # No other choice of bits within the budget costs less, by all of them.
  found = searches['plain_size_w0.25_free_b4']
  costs = np.array(list(found['costs'].values()))
  chosen = [found['choices'].index(found['bits'][path]) for path in found['costs']]
  assert np.isclose(costs[np.arange(len(costs)), chosen].sum(), found['cost'])
  assert found['cost'] <= found['bound'] + 1e-9


def test_the_report_says_what_held(whole):
  _, workdir = whole
  text = (workdir / 'report.md').read_text()
  for words in (
    'One bitwidth beats mixed precision that loses no accuracy, at equal cost: ',
    'Fewer than 4 bits are best',
    'Beyond the paper, mixed precision whose width is free: of 1 such networks',
    'Does a filter of few weights lose more of its norm than one of many',
    '(no more at any bitwidth); with a step for each layer',
    "Spearman's rank correlation",
    '## Verdicts',
  ):
    assert words in text
  assert 'Not complete' not in text
  for name in ('plain', 'differences', 'fan_in'):
    assert (workdir / f'{name}.png').stat().st_size > 5_000


def test_what_a_shard_trained_is_taken_over(few_images, shard, whole, tmp_path, capsys):
  (one, folder), (records, workdir) = shard, whole
  merged = dict(few_images, merge=(str(folder),))
  assert 0 < len(one) < len(records) and records[: len(one)] == one
  report_of_shard = (folder / 'report.md').read_text()
  assert re.search(r'\*\*Not complete: [12] of 3 parts of the work are missing', report_of_shard)
  for record in one:
    folders = (training.member_folder(w, record['name']) for w in (folder, workdir))
    first, second = (path / 'weights.safetensors' for path in folders)
    assert first.read_bytes() == second.read_bytes()
  # Taken over again, and gone on with: nothing is trained, nothing changes.
  again = bitwidth_study.run(small(**merged), workdir)
  assert again == records and '0 networks taken' in capsys.readouterr().out
  with pytest.raises(fields.ConfigError, match=r'config.seeds=\[0\] but .*/config.json'):
    bitwidth_study.run(small(**merged, seeds=(0,)), tmp_path)
  with pytest.raises(fields.ConfigError, match="config.merge holds '.*two': no config.json"):
    bitwidth_study.run(small(merge=(str(tmp_path / 'two'),)), tmp_path)
  assert not any(tmp_path.iterdir())


def test_a_budget_that_no_lowering_meets_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(plan, '_MOST_LOWERED', 0.001)
  message = r'config.budgets holds plain@0.25: no size of \d+ to \d+ bits is met .* within 0%;'
  with pytest.raises(fields.ConfigError, match=message):
    bitwidth_study.run(small(slack=0.0), tmp_path)
  assert not any(tmp_path.iterdir())


def test_every_unit_has_one_shard():
  units = [plan.Unit(f'u{i}', 'plain', (), None, work) for i, work in enumerate((5, 1, 1, 9, 2))]
  for count in range(1, 6):
    shards = [plan.shard_of(units, f'{i}/{count}') for i in range(1, count + 1)]
    assert all(shards) and sorted(u.name for s in shards for u in s) == [u.name for u in units]
  loads = [sum(u.work for u in plan.shard_of(units, f'{i}/2')) for i in (1, 2)]
  assert sorted(loads) == [9, 9]
  assert plan.shard_of(units, '') == units
  for shard in ('0/2', '3/2', '1/6', '1', 'a/b', '1/0'):
    with pytest.raises(fields.ConfigError, match=f"config.shard='{shard}'; allowed: 'I/N'"):
      plan.shard_of(units, shard)


@pytest.mark.parametrize(
  'changes, message',
  [
    (dict(budgets=('plain',)), r"config.budgets\[0\]='plain'; allowed: 'NETWORK@WIDTH'"),
    (dict(budgets=('plane@1',)), r"config.budgets\[0\]='plane@1'"),
    (dict(free_widths=(3,)), 'config.free_widths holds 3; allowed: bitwidths of config.bits'),
    (dict(mixed_width_bits=8), 'config.mixed_width_bits=8; allowed: a bitwidth of'),
    (dict(layer_choices=(6, 8)), 'config.free_widths holds 4, a width at which config.layer_choi'),
    (
      dict(budgets=('plain@0.001',), budget_bits=2),
      r'config.budgets holds plain@0.001: no size of \d+ to \d+',
    ),
    (dict(costs=('bit_operations',)), "config.mixed holds 'size'; allowed: costs of"),
    (dict(held_out=12_000), 'config.held_out: count=12000; allowed: 1 to 11999'),
    (dict(shard='9/8'), "config.shard='9/8'; allowed: 'I/N' with I from 1 to N and N up to"),
  ],
)
def test_wrong_input_is_refused_before_any_work(changes, message, tmp_path):
  with pytest.raises(fields.ConfigError, match=message):
    bitwidth_study.run(small(**changes), tmp_path)
  assert not any(tmp_path.iterdir())


def made_up(members, gain):
  """Records of members of one kind: accuracies are 0.8, a seed's share, and the kind's gain."""
  return [
    dict.fromkeys(comparisons.COLUMNS)
    | dict(
      name=member.name,
      role=member.role,
      seed=member.seed,
      bits=member.bits,
      average_bits=member.bits,
      width_multiplier=member.match.width,
      size_bits=member.match.size.total,
      bit_operations=1,
      macs=member.match.layers.macs,
      test_accuracy=0.8 + 0.02 * member.seed + gain,
    )
    for member in members
  ]


def test_verdicts_on_depthwise_networks_follow_the_winners(tmp_path):
  config = small(budgets=('plain@0.25', 'ir_resnet8@0.25'), mixed=())
  networks = plan.networks_of(config, bitwidth_study.inputs.load_data(config))
  cells = plan.cells_of(networks, config)
  gains = {('plain', 2): 0.02, ('plain', 4): 0.0, ('ir_resnet8', 2): 0.0, ('ir_resnet8', 4): 0.03}
  found = [
    record
    for cell in cells
    for bits in config.bits
    for record in made_up(
      plan.singles_of(networks[cell.network], cell, bits), gains[cell.network, bits]
    )
  ]
  units = plan.units_of(networks, cells, config)
  found_so_far = results.Results(config, networks, cells, units, found, tmp_path)
  assert found_so_far.missing == 0
  assert [found_so_far.best(cell) for cell in cells] == [2, 4]
  text = '\n'.join(verdicts.verdicts(found_so_far))
  assert 'Fewer than 4 bits are best: holds here. In 1 of 1 cells' in text
  assert 'those with depth-wise layers (ir_resnet8) want more (4 against 2)' in text
  assert '4 over 2 bits in plain: -0.0200 [-0.0200, -0.0200].' in text
  assert '4 over 2 bits in ir_resnet8: +0.0300 [+0.0300, +0.0300].' in text
  assert results.Results(*found_so_far[:4], found[1:], tmp_path).missing == 1


def test_a_claim_follows_its_intervals():
  one, other = (
    [dict(seed=seed, test_accuracy=0.8 + seed / 50 + gain) for seed in range(3)]
    for gain in (0.05, 0.0)
  )
  clear = comparisons.difference('a', 'b', comparisons.paired_differences(one, other))
  assert clear.mean == pytest.approx(0.05) and clear.low == pytest.approx(0.05)
  unclear = comparisons.difference('a', 'b', [0.01, -0.01, 0.02])
  assert unclear.low < 0 < unclear.high
  worse = comparisons.difference('a', 'b', [-0.01, -0.011, -0.012])
  assert 'holds here' in verdicts._claim('C', [clear])
  assert 'is refuted here' in verdicts._claim('C', [worse])
  assert 'is neither confirmed nor refuted here' in verdicts._claim('C', [unclear])
  assert 'holds in some cells here. In 1 of 2' in verdicts._claim('C', [clear, unclear])
  assert 'fails in some cells' in verdicts._claim('C', [clear, worse])
  assert comparisons.difference('a', 'b', [0.1]) is None


def test_float_networks_that_diverged_are_left_out_of_searches(whole):
  records, workdir = whole
  config = small()
  dataset = bitwidth_study.inputs.load_data(config)
  network = plan.networks_of(config, dataset)['plain']
  (cell,) = plan.cells_of({'plain': network}, config)
  floats = plan.floats_of(network, cell, 4)

  def read(diverged):
    found = [r | ({'test_accuracy': None} if r['name'] in diverged else {}) for r in records]
    return bit_search.read_networks(network.plan, dataset, None, workdir, floats, found)

  assert len(read([]).variables) == 2
  assert len(read([floats[0].name]).variables) == 1
  assert read([one.name for one in floats]) is None


def test_a_damaged_search_is_named(tmp_path):
  assert bit_search.read_searches(tmp_path) == {}
  for text in ('{', '[1]', '{"a": 1}'):
    (tmp_path / bit_search.SEARCH).write_text(text)
    with pytest.raises(fields.ConfigError, match='search.json: damaged; allowed: that file'):
      bit_search.read_searches(tmp_path)


def law_points(noise=0.0):
  rng = np.random.default_rng(0)
  weights = np.repeat([2e3, 4e3, 8e3, 16e3], 4)
  bits = np.tile([1, 2, 4, 8], 4)
  n = weights / 6e3 * -np.expm1(-bits / 1.7)
  errors = (0.05 + 0.1 * n**-0.4) * np.exp(noise * rng.normal(size=len(bits)))
  return law.Points(weights, bits, errors, weights)


def test_a_law_is_found_again():
  found = law.fit(law_points(), 'saturating')
  assert found.g == pytest.approx(1.7, rel=0.02)
  assert found.floor == pytest.approx(0.05, rel=0.05)
  assert found.exponent == pytest.approx(0.4, rel=0.05)
  assert found.fitted < 1e-4 and found.held_out < 1e-3


def test_held_out_errors_tell_laws_apart():
  points = law_points(noise=0.01)
  errors = {name: law.fit(points, name).held_out for name in law.LAWS}
  assert errors['saturating'] < errors['power'] < min(errors['size'], errors['weights'])
  few = law.Points(*(column[:5] for column in points))
  assert law.fit(few, 'size') is None
  one_group = points._replace(groups=np.zeros(len(points.bits)))
  assert law.fit(one_group, 'size').held_out is None


def test_fan_in_of_trained_layers_is_that_of_their_kernels(whole):
  records, workdir = whole
  config = small()
  dataset = bitwidth_study.inputs.load_data(config)
  networks = plan.networks_of(config, dataset)
  cells = plan.cells_of(networks, config)
  rows = fan_in.trained_layers(networks['plain'], cells, config, workdir, dataset.image_shape)
  name = next(r['name'] for r in records if r['role'] == 'float')
  layers = cells[0].singles[4].layers
  assert {row.path: row.fan_in for row in rows} == {la.weight: la.fan_in for la in layers}
  like = models.abstract_variables(
    networks['plain'].plan.model(plan.floats_of(networks['plain'], cells[0], 4)[0]), (28, 28, 1)
  )
  folders = [
    training.member_folder(workdir, name.replace('seed0', f'seed{seed}')) for seed in (0, 1)
  ]
  want = []
  for folder in folders:
    w = training.load_saved(folder, like)['params']['unit1']['conv']['kernel']
    q = np.asarray(quant.fake_quantize(w, 2, step='gaussian'))
    want.append((((w - q) ** 2).sum((0, 1, 2)) / (w**2).sum((0, 1, 2))).mean())
  (row,) = [row for row in rows if row.path == 'unit1/conv/kernel']
  assert row.errors['channel', 2] == pytest.approx(np.mean(want), rel=1e-4)


def run_on(name, folder, workdir, **changes):
  config = runs.load_config(
    name,
    data_dir=str(folder),
    held_out=4,
    bits=(4,),
    mixed=(),
    slack=0.25,
    seeds=(0,),
    epochs=1,
    batch_size=8,
    fan_ins=(9,),
    **changes,
  )
  workdir.mkdir()
  records = bitwidth_study.run(config, workdir)
  assert [r['bits'] for r in records] == [4]
  assert all(0 <= r['test_accuracy'] <= 1 for r in records)
  assert json.loads((workdir / 'config.json').read_text())['config']['budgets'] == [*config.budgets]


def test_cifar100(tmp_path):
  splits = {
    split: test_prepared.cifar_examples('cifar100', count, seed)[2]
    for seed, (split, count) in enumerate((('train', 12), ('test', 5)))
  }
  folder = test_prepared.prepare('cifar100', tmp_path / 'data', splits)
  run_on('bitwidth_study_cifar100', folder, tmp_path / 'run', budgets=('plain@0.25',))


def test_imagenet(tmp_path):
  examples = [
    {'image': test_prepared.png(test_prepared.ramp(40, 50 + i)), 'label': i, 'file_name': f'{i}'}
    for i in range(12)
  ]
  splits = {'train': examples, 'validation': examples[:3]}
  folder = test_prepared.prepare('imagenet2012', tmp_path / 'data', splits)
  options = dict(image_size=32, shift=2, budgets=('plain@0.25',))
  run_on('bitwidth_study_imagenet', folder, tmp_path / 'run', **options)
