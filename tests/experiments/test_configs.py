"""Every file of configs/ holds what its experiment allows, and runs in a smoke form."""

import csv
import importlib
import json
import re

import pytest

from cnnopt_jax import models
from experiments.common import fields
from tests.experiments import runs

CONFIGS = sorted(path.stem for path in (runs.REPO / 'configs').glob('[a-z]*.py'))
# The smoke form of each config: the test that runs it, or what it changes here.
SMOKE = {
  'codesign': 'tests/experiments/test_nvm_eval.py',
  'codesign_vgg8': dict(
    model='plain',
    image_shape=(28, 28, 1),
    num_classes=10,
    batch=1,
    bits=(2,),
    technologies=('sram',),
    capacities_mib=(1,),
  ),
  'kernel_bench': 'tests/experiments/test_kernel_bench.py',
  'nvm_batch': dict(workloads=('resnet8',), inference_batches=(1, 2), training_batches=()),
  'nvm_bench': 'tests/nvm/test_experiments.py',
  'nvm_cache': 'tests/nvm/test_experiments.py',
  'nvm_iso_area': dict(
    workloads=('resnet8',), inference_batches=(1,), training_batches=(), baseline_mib=1
  ),
  'nvm_iso_capacity': 'tests/experiments/test_nvm_eval.py',
  'nvm_profile': 'tests/experiments/test_nvm_eval.py',
  'nvm_scaling': 'tests/experiments/test_nvm_eval.py',
  'nvm_validate': 'tests/nvm/test_experiments.py',
  'pretrained': 'tests/experiments/test_pretrained.py',
  'quant_sweep': 'tests/experiments/test_quant_sweep.py',
  'sweep_bench': dict(width_multiplier=0.1, image_size=8, members=2, batch_size=4, rounds=1),
  'vip_bench': dict(batch_size=1, image_size=32, rounds=1, training_rounds=1, form_rounds=1),
  'vip_sensitivity': dict(crops=1),
  'vip_vgg': 'tests/experiments/test_vip.py',
}
HERE = [name for name, smoke in SMOKE.items() if isinstance(smoke, dict)]


def experiment_of(name: str):
  """The experiment that a config's docstring starts it with."""
  text = importlib.import_module(f'configs.{name}').__doc__
  module = re.search(rf'python -m (experiments\.\w+) --config configs/{name}\.py', text)
  assert module, f'configs/{name}.py: its docstring names no command'
  return importlib.import_module(module[1])


def test_every_config_has_a_smoke_form():
  assert CONFIGS == sorted(SMOKE)


@pytest.mark.parametrize('name', CONFIGS)
def test_a_config_holds_what_its_experiment_allows(name):
  assert fields.check(runs.load_config(name), experiment_of(name).SPEC)


@pytest.mark.parametrize('name', sorted(set(CONFIGS) - set(HERE)))
def test_a_config_is_run_by_the_test_that_is_named(name):
  text = (runs.REPO / SMOKE[name]).read_text()
  assert f"'{name}'" in text or experiment_of(name).__name__.split('.')[-1] in text


@pytest.mark.parametrize('name', HERE)
def test_a_config_runs_in_its_smoke_form(name, tmp_path):
  changes = dict(SMOKE[name])
  if name == 'vip_sensitivity':
    try:
      models.load_efficientnet_lite0()
    except models.MissingExtraError as error:
      pytest.skip(str(error))
  if name == 'codesign_vgg8':
    changes['results'] = str(tmp_path / 'finished.csv')
    (tmp_path / 'finished.csv').write_text('bits,plan,test_accuracy\n2,none,0.8\n2,unit1,0.7\n')
  experiment = experiment_of(name)
  found = experiment.run(fields.check(runs.load_config(name, **changes), experiment.SPEC), tmp_path)
  assert found
  if name.endswith('bench'):
    assert json.loads((tmp_path / 'bench.json').read_text())
  else:
    with open(tmp_path / 'results.csv', newline='') as file:
      assert list(csv.DictReader(file))
