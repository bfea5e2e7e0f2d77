"""What each unit of a pretrained network loses as a virtual one, without labels.

    python -m experiments.vip_sensitivity --config configs/vip_sensitivity.py

The network is EfficientNet-lite0 with its ImageNet weights, the images are random crops of
scikit-image's photos (both of the extra `pretrained`), and a unit is judged by how often the
network with that one unit virtual predicts the class that the dense network predicts. Plans are
data: one program serves all units. Writes records.jsonl, one line a unit, results.csv and
report.md; the same command goes on where a killed one stopped.
"""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_dict

from cnnopt_jax import models, report, vip
from experiments import pretrained
from experiments.common import fields, launch, reports, run_folder
from experiments.common.fields import integer

SPEC = {'crops': integer(1), 'seed': integer(0)}
PHOTOS = (*pretrained.PHOTOS, 'astronaut.png')
COLUMNS = ('name', 'kernel_size', 'agreement', 'probability_kept')


def crops_of(photo: np.ndarray, count: int, rng: np.random.Generator) -> list[np.ndarray]:
  """Random squares of half to all of a photo's shorter side, as the network takes them."""
  height, width = photo.shape[:2]
  crops = []
  for _ in range(count):
    side = int(rng.uniform(0.5, 1.0) * min(height, width))
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    crops.append(models.prepare_image(photo[top : top + side, left : left + side]))
  return crops


def run(config: config_dict.ConfigDict, workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Measures the units that are not on record yet, and writes the table.

  Args:
    config: with the fields of `SPEC`, checked.
    workdir: folder of the run.

  Returns:
    One record a unit, in the network's order.
  """
  try:
    model, variables = models.load_efficientnet_lite0()
    photos = [pretrained.read_photo(name) for name in PHOTOS]
  except (models.MissingExtraError, models.TorchFileError, OSError) as error:
    raise fields.ConfigError(str(error)) from None
  rng = np.random.default_rng(config.seed)
  images = np.stack([crop for photo in photos for crop in crops_of(photo, config.crops, rng)])
  environment = run_folder.claim(workdir, config)
  units = models.unit_names(model)
  records = {r['name']: r for r in run_folder.read_records(workdir, COLUMNS)}

  @jax.jit
  def probabilities(mask, images):
    logits = model.apply({**variables, **vip.mask_variables(units, mask)}, images)
    return jax.nn.softmax(logits)

  dense = np.asarray(probabilities(jnp.zeros(len(units)), images))
  sizes = _kernel_sizes(model, images.shape[1:])
  with report.Progress() as progress:
    at = progress.bar('agreement of each unit', len(units))
    for i, unit in enumerate(units):
      if unit not in records:
        found = np.asarray(probabilities(jnp.asarray(np.eye(len(units))[i]), images))
        records[unit] = dict(name=unit, kernel_size=sizes[unit], **_agreement(found, dense))
        report.records.append(workdir / run_folder.RECORDS, [records[unit]])
      at(i + 1)
  ordered = [records[unit] for unit in units]
  _write(ordered, config, environment, len(images), workdir)
  return ordered


def _kernel_sizes(model, image_shape) -> dict[str, int]:
  """Rows of each unit's kernel, by its name."""
  return {
    layer.path.removesuffix('/conv'): layer.kernel_shape[0]
    for layer in models.layer_table(model, image_shape)
    if layer.kind == 'conv'
  }


def _agreement(found: np.ndarray, dense: np.ndarray) -> dict[str, float]:
  """What of the dense network's predictions is left, from probabilities [images, classes]."""
  best, rows = dense.argmax(-1), np.arange(len(dense))
  return dict(
    agreement=float((found.argmax(-1) == best).mean()),
    probability_kept=float(np.mean(found[rows, best] / dense[rows, best])),
  )


def _write(records, config, environment, images: int, workdir: pathlib.Path) -> None:
  report.write_atomically(workdir / run_folder.RESULTS, report.to_csv(records, COLUMNS))
  best_first = sorted(records, key=lambda r: (-r['agreement'], -r['probability_kept']))
  rows = [
    (r['name'], str(r['kernel_size']), f'{r["agreement"]:.3f}', f'{r["probability_kept"]:.3f}')
    for r in best_first
  ]
  parts = [
    f'# EfficientNet-lite0, each unit alone virtual\n\nAgreement with the dense network on '
    f'{images} crops of {len(PHOTOS)} photos (seed {config.seed}), and the mean share of the '
    "dense network's probability that its class keeps. No fine-tuning.\n\n"
    + report.to_markdown(rows, ('unit', 'kernel', 'agreement', 'probability kept'))
  ]
  reports.write(workdir, parts, environment)
  print(
    report.to_markdown(
      rows[:5] + rows[-5:], ('unit, best and worst five', 'kernel', 'agreement', 'probability kept')
    )
  )
  print(f'results: {workdir / run_folder.RESULTS}, {workdir / run_folder.REPORT}')


if __name__ == '__main__':
  launch.main(run, SPEC, 'configs/vip_sensitivity.py', 'runs/vip_sensitivity')
