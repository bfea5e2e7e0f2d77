"""Sweeps whose quantization steps are learned, or shared by groups of inputs, in a tiny form."""

import json

import jax
import numpy as np
import pytest

from cnnopt_jax import data, models, quant, training
from experiments.common import fields, members, run_folder, sweeps
from experiments.mixed_precision import plan as mixed_plan
from tests.experiments import runs


@pytest.fixture(scope='module')
def dataset():
  """64 training and 30 test images of 8x8, dark or bright at the top."""
  rng = np.random.default_rng(0)

  def split(count):
    labels = rng.integers(0, 2, count).astype(np.int32)
    images = rng.integers(0, 80, (count, 8, 8, 1))
    images[:, :4] += 120 * labels[:, None, None, None]
    return data.ArraySplit(images.astype(np.uint8), labels)

  return data.Dataset('halves', split(64), split(30), (8, 8, 1), 2, (60.0,), (70.0,))


def config_of(**changes):
  small = dict(epochs=2, batch_size=16, devices=1)
  return runs.load_config('quant_sweep', **small, **changes)


@pytest.mark.parametrize(
  'changes', [dict(step='learned', accounting='folded'), dict(step='absmax', group_size=6)]
)
def test_members_of_one_mixed_and_no_bitwidth(dataset, changes, tmp_path, monkeypatch):
  """They share a program, and are tested as they are saved."""
  net = models.PlainNet(2, channels=(4, 4), strides=(2, 1))
  monkeypatch.setattr(models, 'create', lambda name, **options: net)
  plan = sweeps.plan_without_members(config_of(**changes), dataset)
  match = mixed_plan.at_width(plan, sweeps.Widths(plan.config, dataset), 1.0, 2)
  paths = [leaf.path for leaf in match.plan.quantized]
  mixed = {path: 1 + 3 * (i % 2) for i, path in enumerate(paths)}
  kinds = {'two': (2, 0.1), 'mixed': (mixed, 0.1), 'float': (32, 0.1), 'lost': (2, 1e30)}
  group = [
    sweeps.Member(name, 'ranked', 1.0, bits, rate, 3, match) for name, (bits, rate) in kinds.items()
  ]
  outcomes = {}

  def record(member, outcome):
    outcomes[member.name] = outcome
    return {'name': member.name}

  members.train(plan.of(group), dataset, tmp_path, jax.devices()[:1], [], record=record)
  model = plan.model(group[0])
  weights = models.weight_plan(model, dataset.image_shape, plan.recipe.quantizer)
  like = models.abstract_variables(model, dataset.image_shape)
  for member in group:
    folder = training.member_folder(tmp_path, member.name)
    packed = quant.load(folder / 'weights.safetensors', like=like['params'])
    if member.name == 'lost':
      assert outcomes['lost'].test_accuracy is None
      continue
    for leaf in weights.quantized:
      bits = mixed[leaf.path] if member.name == 'mixed' else member.bits
      if bits == 32:
        assert isinstance(packed[leaf.path], jax.Array)
      else:
        assert packed[leaf.path].bits == bits
        if 'accounting' in changes and leaf.folds:
          assert packed[leaf.path].steps is None
        else:
          assert packed[leaf.path].steps.size == leaf.steps
          assert np.all(np.asarray(packed[leaf.path].steps) > 0)
    size, counted = (
      quant.file_size(packed),
      quant.model_size(weights, member.bits, plan.config.accounting),
    )
    assert size.steps == counted.scales / 8
    assert size.total - size.header <= counted.total / 8 + len(packed.paths)
    member_read = training.FinishedMember(
      {}, model, training.load_saved(folder, like), member.bits, weights, dataset
    )
    assert member_read.test_accuracy() == outcomes[member.name].test_accuracy > 0.5


@pytest.mark.parametrize(
  'changes, message',
  [
    (
      dict(group_size=16, per_channel=False),
      'config.group_size=16 with per_channel=False; allowed: per_channel=True, or group_size=0',
    ),
    (dict(group_size=16, step='learned'), "config.group_size=16 with step='learned'; allowed: ga"),
    (dict(group_size=-1), 'config.group_size=-1; allowed: an integer of at least 0'),
    (dict(step='lsq'), "config.step='lsq'; allowed: one of gaussian, mse, absmax, learned"),
  ],
)
def test_fields_that_contradict_each_other(dataset, changes, message):
  with pytest.raises(fields.ConfigError, match=message):
    sweeps.plan_without_members(config_of(**changes), dataset)


def test_a_run_from_before_there_were_groups_goes_on(tmp_path):
  config = config_of()
  claim = dict(same_results=sweeps.SAME_RESULTS, added=sweeps.ADDED)
  run_folder.claim(tmp_path, config, **claim)
  path = tmp_path / 'config.json'
  content = json.loads(path.read_text())
  del content['config']['group_size']
  path.write_text(json.dumps(content))
  run_folder.claim(tmp_path, config, **claim)
  assert training.quantizer_from_config(content['config']) == training.quantizer_from_config(config)
  with pytest.raises(fields.ConfigError, match='config.group_size=32 but .* was made with 0; all'):
    run_folder.claim(tmp_path, config_of(group_size=32), **claim)
  with pytest.raises(fields.ConfigError, match='config.group_size=0 but .* was made with None'):
    run_folder.claim(tmp_path, config, same_results=sweeps.SAME_RESULTS)
