"""Sweeps that start from trained weights: of an earlier run, or published ones."""

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

from cnnopt_jax import data, models, training
from cnnopt_jax.models import efficientnet
from experiments import mixed_precision, quant_sweep
from experiments.common import fields, starts
from experiments.quant_sweep import plan
from tests.experiments import runs

WIDE = dict(sizes_kib=(), width_multipliers=(0.25,), epochs=1, batch_size=2000, reference=False)
# A rate at which nothing moves by a bit of float32, zeros by 1e-30.
STANDSTILL = 1e-30


def assert_at_rest(found, start):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-28), found, start)


@pytest.fixture(scope='module')
def earlier(tmp_path_factory):
  """A run's folder with a float network of two seeds."""
  workdir = tmp_path_factory.mktemp('earlier')
  quant_sweep.run(runs.load_config('quant_sweep', **WIDE, bits=(32,), seeds=(0, 1)), workdir)
  return workdir


@pytest.fixture(scope='module')
def dataset():
  return data.load('fashion_mnist_subset')


def test_networks_start_from_those_of_their_seed(earlier, tmp_path):
  changes = WIDE | dict(reference=True, bits=(4,), seeds=(1,), learning_rates=(STANDSTILL,))
  config = runs.load_config('quant_sweep', **changes, start=str(earlier))
  records = quant_sweep.run(config, tmp_path)
  names = [f'w0.25_{kind}_lr1e-30_seed1' for kind in ('b4', 'reference')]
  assert [r['name'] for r in records] == names
  assert [r['budget_kib'] for r in records] == [None] * 2
  old = quant_sweep.load_member(earlier, 'w0.25_b32_lr0.1_seed1')
  new = quant_sweep.load_member(tmp_path, names[1])
  assert_at_rest(new.variables['params'], old.variables['params'])
  assert new.dataset.mean == old.dataset.mean
  assert new.test_accuracy() == records[1]['test_accuracy']
  text = (tmp_path / 'report.md').read_text()
  assert '# Weight bitwidths of plain at equal width, on' in text
  assert '\nAt width 0.25, ' in text and '\n## Width 0.25\n' in text
  assert f'start from `{earlier}`' in text and 'KiB, ' not in text


def test_statistics_are_taken_over_and_the_optimizer_is_fresh(earlier, dataset):
  changes = WIDE | dict(bits=(2, 3), seeds=(0, 1), start=str(earlier))
  found = plan.make_plan(runs.load_config('quant_sweep', **changes), dataset)
  (program,), model = found.programs, found.model(found.members[0])
  members = training.Members(np.array([0, 1, 0, 1]), np.array([2, 2, 3, 3]), np.full(4, 0.1))
  setting = model, found.recipe, members, dataset.image_shape
  fresh = training.init_state(*setting)
  state = training.init_state(*setting, variables=starts.find(found, dataset).of(program))
  jax.tree.map(np.testing.assert_array_equal, state.optimizer, fresh.optimizer)
  assert (np.asarray(state.step) == 0).all()
  for i, member in enumerate(program):
    old = quant_sweep.load_member(earlier, f'w0.25_b32_lr0.1_seed{member.seed}').variables
    own = jax.tree.map(lambda leaf: leaf[i], (state.params, state.statistics))  # noqa: B023
    jax.tree.map(
      np.testing.assert_array_equal, own, (old['params'], {'batch_stats': old['batch_stats']})
    )


@pytest.mark.parametrize(
  'changes, message',
  [
    (dict(seeds=(2,)), r'no float network of width 0.25 and seed 2 .*: width 0.25, seed 0, 1$'),
    (dict(width_multipliers=(0.5,)), 'no float network of width 0.5 and seed 0 is there; allowed'),
    (dict(model='resnet8'), 'no finished network of resnet8 with float weights is there'),
    (dict(start='/nowhere'), "config.start='/nowhere': no run is there that can be read"),
    (dict(start='pretrained'), "there are none for config.model='plain'; allowed: config.model='e"),
    (
      dict(start='pretrained', model='efficientnet_lite0', width_multipliers=(0.1,)),
      'there are none for the 10 classes of the data',
    ),
    (dict(width_multipliers=()), r'config.sizes_kib=\(\) and config.width_multipliers=\(\); allo'),
    (dict(sizes_kib=(8.0,)), 'allowed: exactly one of them not empty'),
  ],
)
def test_what_there_is_no_start_for(changes, message, earlier, tmp_path):
  config = runs.load_config(
    'quant_sweep', **(WIDE | dict(bits=(4,), seeds=(0,), start=str(earlier)) | changes)
  )
  with pytest.raises(fields.ConfigError, match=message) as error:
    quant_sweep.run(config, tmp_path)
  assert '\n' not in str(error.value) and not any(tmp_path.iterdir())


def test_a_lone_seed_serves_all_and_two_networks_of_it_none(earlier, dataset):
  def find(records, **changes):
    folder_of = runs.load_config('quant_sweep', **(WIDE | dict(start='x', bits=(2,)) | changes))
    member = plan.make_plan(folder_of, dataset).members[-1]
    return starts.source(folder_of, records, member)

  alone = dict(name='a', width_multiplier=0.2500001, seed=7)
  assert find([alone], seeds=(3,)) == 'a'
  with pytest.raises(fields.ConfigError, match="'x': a, b are all of width 0.25 and seed 7; all"):
    find([alone, alone | {'name': 'b'}], seeds=(7,))


def test_a_search_of_its_own_widths_starts_from_nothing_else(tmp_path):
  with pytest.raises(fields.ConfigError, match="config.start='pretrained': widths follow .*: ''$"):
    mixed_precision.run(runs.load_config('mixed_precision', start='pretrained'), tmp_path)


def test_from_published_weights(tmp_path, monkeypatch):
  """ImageNet from the mock of TFDS, a network of two blocks, random weights for the published."""
  monkeypatch.setattr(efficientnet, 'STAGES', efficientnet.STAGES[:1])
  model = models.create('efficientnet_lite0', num_classes=1000)
  variables = jax.jit(model.init)(jax.random.key(5), np.zeros((1, 16, 16, 3), np.float32))
  monkeypatch.setattr(models, 'load_efficientnet_lite0', lambda: (model, variables))
  config = runs.load_config(
    'quant_sweep_pretrained',
    data_dir=str(tmp_path),
    image_size=16,
    batch_size=4,
    shift=1,
    bits=(8,),
    step='gaussian',
    learning_rates=(STANDSTILL,),
  )
  workdir = tmp_path / 'run'
  workdir.mkdir()
  with tfds.testing.mock_data(num_examples=8):
    records = quant_sweep.run(config, workdir)
    reference = quant_sweep.load_member(workdir, 'w1_reference_lr1e-30_seed0')
    assert [r['bits'] for r in records] == [8, 32]
    # Read as the weights expect, not as ImageNet's mean and deviation have it.
    assert (reference.dataset.mean, reference.dataset.std) == ((127.0,) * 3, (128.0,) * 3)
    assert_at_rest(reference.variables['params'], variables['params'])
    # And so where a run goes on from that one.
    again = runs.load_config(
      'quant_sweep_pretrained', **(config.to_dict() | dict(start=str(workdir)))
    )
    read = starts.as_read(again, data.load('imagenet2012', data_dir=tmp_path, image_size=16))
  assert (read.mean, read.std) == ((127.0,) * 3, (128.0,) * 3)
  text = (workdir / 'report.md').read_text()
  assert 'All networks start from published weights' in text and '## Width 1\n' in text
