"""Where the networks of a sweep start: from random weights, an earlier run's, or published ones."""

import collections
import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import config_dict

from cnnopt_jax import data, models, quant, report, training
from experiments.common import run_folder
from experiments.common.fields import ConfigError
from experiments.common.sweeps import Member, Plan

# The value of `config.start` that stands for published weights, and the network that has some.
PRETRAINED = 'pretrained'
PRETRAINED_MODEL, PRETRAINED_CLASSES = 'efficientnet_lite0', 1000
# Within which widths are one: a report shows six digits.
_WIDTH_TOLERANCE = 1e-5


class Start(NamedTuple):
  """Trained weights that members start from.

  Attributes:
    variables: of each member, by its name, NumPy arrays; members may share them.
  """

  variables: Mapping[str, Mapping[str, Any]]

  def of(self, program: Sequence[Member]) -> dict[str, Any]:
    """Those of a program's members, every leaf [M, ...]."""
    each = [dict(self.variables[member.name]) for member in program]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *each)


def as_read(config: config_dict.ConfigDict, dataset: data.Dataset) -> data.Dataset:
  """The data set with the mean and deviation by which the networks were trained that start here."""
  if config.start == PRETRAINED:
    channels = dataset.image_shape[-1]
    return dataclasses.replace(
      dataset, mean=(models.PIXEL_MEAN,) * channels, std=(models.PIXEL_STD,) * channels
    )
  if config.start:
    return training.with_normalization(dataset, _folder(config))
  return dataset


def record_normalization(
  config: config_dict.ConfigDict, dataset: data.Dataset, workdir: pathlib.Path
) -> None:
  """Keeps beside the networks how they read images, where they do not start from random weights."""
  if config.start:
    content = {'mean': dataset.mean, 'std': dataset.std}
    report.write_atomically(workdir / training.NORMALIZATION, json.dumps(content) + '\n')


def find(plan: Plan, dataset: data.Dataset) -> Start | None:
  """Finds and reads what each member of a plan starts from.

  A member takes the float network of its model, width and seed; where its seed is not among those
  of its width and there is only one, that one.

  Args:
    plan: of the run.
    dataset: that it trains on.

  Returns:
    The weights; None for random ones.

  Raises:
    ConfigError: if there are none for a member, or they do not fit.
  """
  if not plan.config.start:
    return None
  if plan.config.start == PRETRAINED:
    return Start(dict.fromkeys((m.name for m in plan.members), _published(plan)))
  floats = _floats(plan.config)
  read: dict[str, Mapping[str, Any]] = {}
  variables = {}
  for member in plan.members:
    name = source(plan.config, floats, member)
    if name not in read:
      read[name] = _read(plan, dataset, member, name)
    variables[member.name] = read[name]
  return Start(variables)


def _folder(config: config_dict.ConfigDict) -> pathlib.Path:
  return pathlib.Path(config.start).expanduser()


def _error(config: config_dict.ConfigDict, what: str, allowed: str) -> ConfigError:
  return ConfigError(f'config.start={config.start!r}: {what}; allowed: {allowed}')


def _published(plan: Plan) -> Mapping[str, Any]:
  """The published variables, for the one network that has some."""
  config = plan.config
  allowed = (
    f"config.model='{PRETRAINED_MODEL}', {PRETRAINED_CLASSES} classes (imagenet2012) and "
    'config.width_multipliers=(1.0,)'
  )
  if config.model != PRETRAINED_MODEL:
    raise _error(config, f'there are none for config.model={config.model!r}', allowed)
  if plan.num_classes != PRETRAINED_CLASSES:
    raise _error(config, f'there are none for the {plan.num_classes} classes of the data', allowed)
  for member in plan.members:
    if member.match.width != 1:
      raise _error(config, f'there are none for width {member.match.width:g}', allowed)
  try:
    return models.load_efficientnet_lite0()[1]
  except (models.MissingExtraError, models.TorchFileError, OSError) as error:
    raise ConfigError(f'config.start={config.start!r}: {error}') from None


def _floats(config: config_dict.ConfigDict) -> list[dict[str, Any]]:
  """Records of the float networks of the model that a run has finished."""
  folder = _folder(config)
  try:
    theirs = json.loads((folder / run_folder.CONFIG).read_text())['config']
    records = report.records.read(folder / run_folder.RECORDS)
  except (OSError, ValueError, KeyError, TypeError):
    raise _error(
      config, 'no run is there that can be read', "'', 'pretrained', or the folder of a run"
    ) from None
  found = [
    r
    for r in records
    if r.get('bits') == quant.IDENTITY_BITS
    and r.get('model', theirs.get('model')) == config.model
    and r.get('test_accuracy') is not None
  ]
  if not found:
    raise _error(
      config,
      f'no finished network of {config.model} with float weights is there',
      'the folder of a run that trained some (bits 32, or config.reference)',
    )
  return found


def source(
  config: config_dict.ConfigDict, floats: Sequence[Mapping[str, Any]], member: Member
) -> str:
  """The name of the float network that a member starts from.

  Args:
    config: of the run.
    floats: records of the networks that there are.
    member: of the run.

  Raises:
    ConfigError: if none or more than one is right for it; lists those that there are.
  """
  width = member.match.width
  alike = [
    r for r in floats if math.isclose(r['width_multiplier'], width, rel_tol=_WIDTH_TOLERANCE)
  ]
  if len({r['seed'] for r in alike}) > 1:
    alike = [r for r in alike if r['seed'] == member.seed]
  if len(alike) == 1:
    return alike[0]['name']
  which = f'width {width:g} and seed {member.seed}'
  if alike:
    names = ', '.join(r['name'] for r in alike)
    raise _error(config, f'{names} are all of {which}', 'a run with one')
  seeds = collections.defaultdict(set)
  for r in floats:
    seeds[r['width_multiplier']].add(r['seed'])
  there = '; '.join(
    f'width {known:g}, seed {", ".join(map(str, sorted(found)))}'
    for known, found in sorted(seeds.items())
  )
  raise _error(config, f'no float network of {which} is there', there)


def _read(plan: Plan, dataset: data.Dataset, member: Member, name: str) -> Mapping[str, Any]:
  """The variables of a float network, in the shapes of a member's."""
  like = models.abstract_variables(plan.model(member), dataset.image_shape)
  try:
    return training.load_saved(training.member_folder(_folder(plan.config), name), like)
  except (OSError, ValueError) as error:
    raise ConfigError(f'config.start={plan.config.start!r}: {name}: {error}') from None
