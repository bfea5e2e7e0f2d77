"""Mixed precision against single bitwidths, in a small form."""

import json

import numpy as np
import pytest

from cnnopt_jax import quant, training
from experiments import mixed_precision
from experiments.common import fields
from experiments.mixed_precision import report
from tests.experiments import runs

SMALL = dict(
  width_multiplier=0.25,
  held_out=100,
  bits=(2, 4),
  layer_choices=(2, 4, 8),
  tolerance=0.5,
  slack=0.2,
  free_widths=(4,),
  seeds=(0, 1),
  epochs=1,
  batch_size=100,
)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('mixed')
  config = runs.load_config('mixed_precision', **SMALL, **runs.few_images(workdir / 'data'))
  return mixed_precision.run(config, workdir), workdir, config


def test_all_have_the_size_of_the_mixed_network(finished):
  records, workdir, _ = finished
  kinds = report.groups(records)
  assert list(kinds)[:4] == ['float, width 0.25', 'mixed, fewest bits', '2 bits', '4 bits']
  budget = kinds['mixed, fewest bits'][0]['size_bits']
  for name in ('2 bits', '4 bits'):
    assert budget / 1.2 <= kinds[name][0]['size_bits'] <= budget
  (free,) = [rows for name, rows in kinds.items() if rows[0]['role'] == 'free']
  assert free[0]['size_bits'] <= budget
  assert free[0]['width_multiplier'] == kinds['4 bits'][0]['width_multiplier']
  assert all([r['seed'] for r in rows] == [0, 1] for rows in kinds.values())
  searches = json.loads((workdir / mixed_precision.SEARCH).read_text())
  assert set(searches['mixed']['bits'].values()) <= {2, 4, 8}
  assert searches['mixed']['accuracy'] >= searches['mixed']['float_accuracy'] - 0.5
  # No other choice of bits within the budget costs less, by all of them.
  found = searches['free_b4']
  costs = np.array(list(found['costs'].values()))
  chosen = [found['choices'].index(found['bits'][path]) for path in found['costs']]
  assert np.isclose(costs[np.arange(len(costs)), chosen].sum(), found['cost'])
  assert found['cost'] <= found['bound'] + 1e-9
  text = (workdir / 'report.md').read_text()
  assert 'Claim of arXiv 2008.09916' in text and 'Beyond the paper' in text
  assert (workdir / 'differences.png').stat().st_size > 5_000


def test_mixed_members_are_saved_in_their_bits(finished):
  records, workdir, _ = finished
  (record, _) = [r for r in records if r['role'] == 'mixed']
  packed = quant.load(training.member_folder(workdir, record['name']) / 'weights.safetensors')
  for path, bits in record['layer_bits'].items():
    assert packed[path].bits == bits


def test_the_same_again_trains_nothing_and_says_the_same(finished, capsys):
  records, workdir, config = finished
  again = mixed_precision.run(config, workdir)
  assert again == records and 'epoch' not in capsys.readouterr().out


def test_differences_are_paired_and_their_intervals_students():
  def record(role, bits, seed, accuracy):
    return dict(role=role, bits=bits, seed=seed, test_accuracy=accuracy, width_multiplier=1.0)

  mixed = [record('mixed', None, seed, 0.8 + seed / 10) for seed in range(3)]
  gains = (0.01, 0.02, 0.03)
  single = [record('single', 4, seed, 0.8 + seed / 10 + gain) for seed, gain in enumerate(gains)]
  (found,) = report.differences([*mixed, *single])
  assert found.mean == pytest.approx(0.02) and found.seeds == 3
  # t of 97.5 % with two degrees of freedom: 4.3027.
  reach = 4.3027 * 0.01 / 3**0.5
  assert (found.low, found.high) == pytest.approx((0.02 - reach, 0.02 + reach), abs=1e-6)
  diverged = [single[0] | {'test_accuracy': None}, *single[1:]]
  (found,) = report.differences([*mixed, *diverged])
  assert found.seeds == 2
  assert report.verdicts([*mixed, *single[:1]]) == ['Too few seeds or networks to compare.']


@pytest.mark.parametrize(
  'changes, message',
  [
    (dict(free_widths=(3,)), r'config.free_widths holds 3; allowed: bitwidths of config.bits'),
    (dict(held_out=12_000), 'config.held_out: count=12000; allowed: 1 to 11999'),
    (dict(levels='mid_tread', layer_choices=(1, 2)), 'config.layer_choices holds 1'),
  ],
)
def test_fields_that_contradict_each_other(changes, message, tmp_path):
  with pytest.raises(fields.ConfigError, match=message):
    mixed_precision.run(runs.load_config('mixed_precision', **{**SMALL, **changes}), tmp_path)
  assert not any(tmp_path.iterdir())
