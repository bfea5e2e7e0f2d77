"""Trained members of a sweep, read back from the folder of their run."""

import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from flax import linen as nn

from cnnopt_jax import data, models, quant, report
from cnnopt_jax.training.checkpoints import load_variables
from cnnopt_jax.training.saved import WEIGHTS, load_saved
from cnnopt_jax.training.testing import accuracy

CONFIG, RECORDS, MEMBERS = 'config.json', 'records.jsonl', 'members'
# Of a run whose networks started from trained weights: how these read images.
NORMALIZATION = 'normalization.json'


@dataclasses.dataclass(frozen=True)
class FinishedMember:
  """A trained network of a sweep.

  Attributes:
    record: what its run recorded of it, a row of results.csv.
    model: Flax module.
    variables: trained variables; 'params' are the quantized weights that it computes with, of a run
      with the accounting 'folded' in units of their steps, which its norms have taken.
    bits: weight bitwidth, or that of each weight by path.
    plan: how weights were quantized.
    dataset: what it was trained and tested on.
  """

  record: Mapping[str, Any]
  model: nn.Module
  variables: Mapping[str, Any]
  bits: int | Mapping[str, int]
  plan: quant.WeightPlan
  dataset: data.Dataset

  def test_accuracy(self) -> float:
    """Accuracy on the run's test images."""
    as_they_are = quant.IDENTITY_BITS
    steps = quant.initial_steps(self.variables['params'], as_they_are, self.plan)  # Not read.
    return accuracy(
      self.model, self.variables, as_they_are, self.dataset, self.plan.quantizer, steps=steps
    )


def load_member(workdir: str | pathlib.Path, name: str) -> FinishedMember:
  """Reads a trained network from the folder of a run of `experiments.quant_sweep`.

      member = load_member('runs/quant_sweep', '8kib_b4_lr0.1_seed0')
      member.test_accuracy() == member.record['test_accuracy']

  The record names the network, its width and its bitwidth, the run's config the data set and how
  weights are quantized; so nothing is planned anew.

  Args:
    workdir: folder of a run.
    name: of a member, as in results.csv.

  Returns:
    The member.

  Raises:
    FileNotFoundError: if the folder holds no run, or not the member's variables.
    KeyError: if no member of that name is on record.
    DataError: if the run's data set is missing.
  """
  workdir = pathlib.Path(workdir)
  config = json.loads((workdir / CONFIG).read_text())['config']
  records = {record['name']: record for record in report.records.read(workdir / RECORDS)}
  if name not in records:
    raise KeyError(f'{name!r}; allowed: {", ".join(sorted(records))}')
  record = records[name]
  dataset = data.load(
    config['dataset'],
    data_dir=config['data_dir'] or None,
    image_size=config['image_size'] or None,
    download=config['download'],
  )
  dataset = with_normalization(dataset, workdir)
  model = models.create(
    record['model'],
    num_classes=dataset.num_classes,
    width_multiplier=record['width_multiplier'],
  )
  like = models.abstract_variables(model, dataset.image_shape)
  plan = models.weight_plan(model, dataset.image_shape, quantizer_from_config(config))
  bits = record.get('layer_bits') or record['bits']
  folder = member_folder(workdir, name)
  if (folder / WEIGHTS).exists():
    variables = load_saved(folder, like)
  else:  # Of a run of an earlier version, which kept them in float.
    variables = load_variables(folder, like)
    variables['params'] = quant.quantize_params(variables['params'], bits, plan)
  return FinishedMember(record, model, variables, bits, plan, dataset)


def with_normalization(dataset: data.Dataset, workdir: pathlib.Path) -> data.Dataset:
  """A data set as the networks of a run read it.

  Args:
    dataset: that the run's config names.
    workdir: folder of the run.

  Returns:
    The data set, with the mean and deviation that are on record there, if any are.
  """
  path = pathlib.Path(workdir) / NORMALIZATION
  if not path.exists():
    return dataset
  found = json.loads(path.read_text())
  return dataclasses.replace(dataset, mean=tuple(found['mean']), std=tuple(found['std']))


def member_folder(workdir: pathlib.Path, name: str) -> pathlib.Path:
  """Where the variables of a member lie in the folder of its run."""
  return pathlib.Path(workdir) / MEMBERS / name


def quantizer_from_config(config: Mapping[str, Any]) -> quant.Quantizer:
  """The quantizer that a sweep's config describes.

  The rules of `layer_bits` decide in the order given; every other weight has its member's bitwidth.

  Args:
    config: with `levels`, `step`, `clip_gradient`, `per_channel` and `layer_bits`, strings
      'PATTERN=BITS'; with `group_size`, which configs of earlier versions lack.

  Returns:
    The quantizer.

  Raises:
    ValueError: naming the entry of `layer_bits` that is none, or `group_size` where another field
      rules groups out.
  """
  group_size = config.get('group_size', 0)
  if group_size and not config['per_channel']:
    raise ValueError(
      f'group_size={group_size} with per_channel=False; allowed: per_channel=True, or group_size=0'
    )
  quantizer = quant.Quantizer(
    _rules(config['layer_bits']),
    'channel' if config['per_channel'] else 'layer',
    config['levels'],
    config['step'],
    config['clip_gradient'],
    group_size,
  )
  quant.validate_quantizer(quantizer)
  return quantizer


def _rules(layer_bits: Sequence[str]) -> tuple[quant.Rule, ...]:
  rules = []
  for entry in layer_bits:
    pattern, _, bits = entry.rpartition('=')
    try:
      re.compile(pattern)
      quant.validate_bits(int(bits))
    except (re.error, ValueError):
      pattern = ''
    if not pattern:
      raise ValueError(
        f"layer_bits={entry!r}; allowed: 'PATTERN=BITS', a regular expression for whole parts of "
        'parameter paths and 1 to 8 or 32'
      )
    rules.append(quant.Rule(pattern, int(bits)))
  return tuple(rules)
