"""Classifies photos with the pretrained EfficientNet-lite0 and checks that it sees what is there.

    python -m experiments.pretrained --config configs/pretrained.py --workdir runs/pretrained

Needs the extra `pretrained`, whose packages hold the weights and the photos. Writes
`photos.json`, prints a table, and ends with exit code 1 if a photo's class is not listed.
"""

import importlib.util
import json
import pathlib
from typing import Any

import jax
import numpy as np
from ml_collections import config_dict
from PIL import Image
from rich import console, table

from cnnopt_jax import models, report
from experiments.common import fields, launch, run_folder

SPEC = {'top': fields.integer(1, 1000)}

# What the photos of scikit-image show, by class index: ILSVRC2012's WordNet ids, sorted.
PHOTOS = {
  'chelsea.png': {
    281: 'tabby',
    282: 'tiger cat',
    283: 'Persian cat',
    284: 'Siamese cat',
    285: 'Egyptian cat',
  },
  'coffee.png': {967: 'espresso', 968: 'cup'},
  'rocket.jpg': {657: 'missile', 744: 'projectile', 812: 'space shuttle'},
}


def run(config: config_dict.ConfigDict, workdir: pathlib.Path) -> int:
  """Classifies all photos and returns the exit code."""
  try:
    model, variables = models.load_efficientnet_lite0()
    photos = {name: read_photo(name) for name in PHOTOS}
  except (models.MissingExtraError, models.TorchFileError, OSError) as error:
    raise fields.ConfigError(str(error)) from None
  images = np.stack([models.prepare_image(photo) for photo in photos.values()])
  probabilities = np.asarray(jax.nn.softmax(jax.jit(model.apply)(variables, images)))
  records = [_record(name, row, config.top) for name, row in zip(photos, probabilities)]
  content = {'environment': run_folder.describe_environment(), 'photos': records}
  report.write_atomically(workdir / 'photos.json', json.dumps(content, indent=1) + '\n')
  _show(records)
  return int(not all(r['found'] for r in records))


def read_photo(name: str) -> np.ndarray:
  """A photo that scikit-image ships, uint8 [H, W, 3]."""
  spec = importlib.util.find_spec('skimage')
  if spec is None:
    raise models.MissingExtraError('scikit-image')
  path = pathlib.Path(spec.submodule_search_locations[0], 'data', name)
  return np.asarray(Image.open(path).convert('RGB'))


def _record(name: str, probabilities: np.ndarray, top: int) -> dict[str, Any]:
  """The likeliest classes of a photo, and whether one that it shows is among them."""
  listed = np.argsort(-probabilities, kind='stable')[:top].tolist()
  return {
    'photo': name,
    'found': any(index in PHOTOS[name] for index in listed),
    'top': [{'class': index, 'probability': float(probabilities[index])} for index in listed],
  }


def _show(records: list[dict[str, Any]]) -> None:
  """Prints the records; classes that no photo shows have no names here."""
  names = {index: name for classes in PHOTOS.values() for index, name in classes.items()}
  out = table.Table('photo', 'classes, likeliest first', 'found')
  for entry in records:
    classes = (
      f'{c["class"]} {names.get(c["class"], "")}'.strip() + f' {c["probability"]:.3f}'
      for c in entry['top']
    )
    out.add_row(entry['photo'], ', '.join(classes), 'yes' if entry['found'] else 'no')
  console.Console().print(out)


if __name__ == '__main__':
  launch.main(run, SPEC, 'configs/pretrained.py', 'runs/pretrained')
