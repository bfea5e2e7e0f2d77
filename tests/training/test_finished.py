"""What a run's config and records say of a trained member; `test_quant_sweep` reads whole runs."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax import models, quant, training

QUANTIZATION = dict(
  levels='mid_rise',
  step='absmax',
  clip_gradient=True,
  per_channel=False,
  layer_bits=['unit0=8', 'head=32'],
)


def test_quantizer_is_that_of_the_config():
  quantizer = training.quantizer_from_config(QUANTIZATION)
  assert quantizer.levels == 'mid_rise' and quantizer.step == 'absmax' and quantizer.clip_gradient
  assert quantizer.granularity == 'layer'
  plan = models.weight_plan(models.create('plain', num_classes=10), (28, 28, 1), quantizer)
  bits = quant.bits_by_path(plan, 2)
  paths = ('unit0/conv/kernel', 'unit1/conv/kernel', 'head/dense/kernel', 'head/dense/bias')
  assert [bits[path] for path in paths] == [8, 2, 32, 32]
  assert all(leaf.output_axes == () for leaf in plan.quantized)
  plain = training.quantizer_from_config({**QUANTIZATION, 'per_channel': True, 'layer_bits': ()})
  assert plain.rules == () and plain.granularity == 'channel'


@pytest.mark.parametrize('entry', ['head', 'head=9', '(=8', 'head=many', '=8'])
def test_an_entry_that_is_none_is_named(entry):
  with pytest.raises(ValueError, match=r"layer_bits='.*'; allowed: 'PATTERN=BITS'"):
    training.quantizer_from_config({**QUANTIZATION, 'layer_bits': [entry]})


@pytest.mark.parametrize('kept', ['packed', 'folded', 'formerly'])
def test_a_member_is_read_from_config_record_and_variables(tmp_path, kept):
  """A member's weights are kept packed; runs of earlier versions kept them in float."""
  model = models.create('plain', num_classes=10, width_multiplier=0.25)
  variables = jax.jit(model.init)(jax.random.key(3), jnp.zeros((1, 28, 28, 1)))
  quantizer = training.quantizer_from_config(QUANTIZATION)
  plan = models.weight_plan(model, (28, 28, 1), quantizer)
  folder = training.member_folder(tmp_path, 'one')
  if kept == 'formerly':
    training.save_variables(folder, variables)
  else:
    saved = training.save_member(folder, variables, 2, plan, fold=kept == 'folded')
  data_set = dict(dataset='fashion_mnist_subset', data_dir='', image_size=0, download=False)
  content = {'config': {**data_set, **QUANTIZATION}, 'environment': {}}
  (tmp_path / 'config.json').write_text(json.dumps(content))
  record = dict(name='one', model='plain', width_multiplier=0.25, bits=2)
  (tmp_path / 'records.jsonl').write_text(json.dumps(record) + '\n')
  member = training.load_member(tmp_path, 'one')
  quantized = quant.quantize_params(variables['params'], 2, plan)
  expected = {**variables, 'params': quantized}
  if kept == 'folded':
    kernel = member.variables['params']['unit1']['conv']['kernel']
    assert set(np.unique(kernel)) <= {-1.5, -0.5, 0.5, 1.5}
    x = np.asarray(member.dataset.test.images[:4], np.float32) / 255
    logits = [jax.jit(model.apply)(these, x) for these in (member.variables, expected)]
    np.testing.assert_allclose(*logits, rtol=1e-4, atol=1e-5)
  else:
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6)
    jax.tree.map(close, member.variables, expected)
  if kept != 'formerly':
    jax.tree.map(np.testing.assert_array_equal, member.variables, saved)
  assert member.record == record and member.bits == 2 and member.model == model
  assert member.plan == plan
  expected = training.accuracy(model, variables, 2, member.dataset, quantizer)
  assert member.test_accuracy() == expected
  with pytest.raises(KeyError, match='allowed: one'):
    training.load_member(tmp_path, 'two')
