"""The photos are recognised, where the extra is installed; where not, one line says how."""

import json

import pytest

from cnnopt_jax import models
from experiments import pretrained
from experiments.common import fields
from tests.experiments.configs import load_config


def test_photos_are_recognised(tmp_path):
  try:
    models.pretrained.weights_path()
    pretrained.read_photo('chelsea.png')
  except models.MissingExtraError as error:
    pytest.skip(str(error))
  assert pretrained.run(load_config('pretrained'), tmp_path) == 0
  photos = json.loads((tmp_path / 'photos.json').read_text())['photos']
  assert [photo['photo'] for photo in photos] == list(pretrained.PHOTOS)
  assert all(photo['found'] and len(photo['top']) == 5 for photo in photos)
  assert photos[1]['top'][0]['class'] == 967  # The espresso, by far.


def test_without_the_extra_one_line_names_it(monkeypatch, tmp_path):
  monkeypatch.setattr(models.pretrained, '_PACKAGE', 'no_such_package')
  with pytest.raises(fields.ConfigError, match=r'cnnopt-jax\[pretrained\]'):
    pretrained.run(load_config('pretrained'), tmp_path)
