"""What a sweep trains: its members, how they train, and how they share programs."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from flax import linen as nn
from ml_collections import config_dict

from cnnopt_jax import data, models, quant, training
from cnnopt_jax.workload import LayerTable
from experiments.common import cores
from experiments.common.fields import (
  ConfigError,
  boolean,
  integer,
  number,
  one_of,
  text,
  tuple_of,
)

# How all members of a run train, and how their weights are quantized.
SPEC = {
  'start': text("'' for random weights, 'pretrained', or the folder of an earlier run"),
  'epochs': integer(1),
  'batch_size': integer(1),
  'momentum': number(0, 1),
  'weight_decay': number(0),
  'label_smoothing': number(0, 1),
  'shift': integer(0, 64),
  'flip': boolean(),
  'levels': one_of(*quant.LEVELS),
  'step': one_of(*quant.WEIGHT_STEPS),
  'group_size': integer(0),
  'per_channel': boolean(),
  'clip_gradient': boolean(),
  'layer_bits': tuple_of(
    text(
      "'PATTERN=BITS', a regular expression for whole parts of parameter paths and 1 to 8 or 32, "
      'such as head=8'
    ),
    min_length=0,
  ),
  'max_members': integer(1),
  'checkpoint_steps': integer(0),
  'devices': integer(0, cores.MOST_DEVICES),
}

# Fields that a run may be gone on with changed.
SAME_RESULTS = ('checkpoint_steps', 'devices')

# Fields that runs of earlier versions lack, each with the value by which it changes nothing.
ADDED = {'group_size': 0, 'start': ''}


class Member(NamedTuple):
  """One network to train.

  Attributes:
    name: unique in the run.
    role: what it stands for, such as 'ranked', or 'reference' for one outside the comparison.
    budget_kib: size it was matched to, in KiB (8192 bits); None for one of a given width.
    bits: weight bitwidth, or that of each weight by path.
    learning_rate: at the first step.
    seed: of weights, batches and augmentation.
    match: width multiplier, layers and size.
  """

  name: str
  role: str
  budget_kib: float | None
  bits: int | Mapping[str, int]
  learning_rate: float
  seed: int
  match: quant.WidthMatch


class Plan(NamedTuple):
  """All members of a run, and how they train.

  Attributes:
    programs: members that train together, in the order of training.
    recipe: of every member.
    config: of the run.
    num_classes: of the data set.
  """

  programs: tuple[tuple[Member, ...], ...]
  recipe: training.Recipe
  config: config_dict.ConfigDict
  num_classes: int

  @property
  def members(self) -> tuple[Member, ...]:
    return tuple(member for program in self.programs for member in program)

  def model(self, member: Member) -> nn.Module:
    return models.create(
      self.config.model, num_classes=self.num_classes, width_multiplier=member.match.width
    )

  def of(self, members: Sequence[Member]) -> 'Plan':
    """The plan of other members: those of one width and budget share a program.

    Members of a program stand in their order, at most `max_members` together.
    """
    programs: dict[tuple[float | None, float], list[Member]] = {}
    for member in members:
      programs.setdefault((member.budget_kib, member.match.width), []).append(member)
    size = self.config.max_members
    chunks = tuple(
      tuple(group[start : start + size])
      for group in programs.values()
      for start in range(0, len(group), size)
    )
    return self._replace(programs=chunks)


class Widths:
  """A network at every width multiplier, each traced once."""

  def __init__(self, config: config_dict.ConfigDict, dataset: data.Dataset):
    """The network that a config names, for a data set."""
    self._config, self._dataset = config, dataset
    self._tables: dict[float, LayerTable] = {}

  def layers(self, width: float) -> LayerTable:
    """Its layers."""
    if width not in self._tables:
      model = models.create(
        self._config.model, num_classes=self._dataset.num_classes, width_multiplier=width
      )
      self._tables[width] = models.layer_table(model, self._dataset.image_shape)
    return self._tables[width]

  def at(
    self, width: float, bits: int | Mapping[str, int], quantizer: quant.Quantizer
  ) -> quant.WidthMatch:
    """The network of a width, as a match of its own size.

    Raises:
      ValueError: as `quant.plan_weights`.
    """
    layers = self.layers(width)
    weights = quant.plan_weights(layers, quantizer)
    size = quant.model_size(weights, bits, self._config.accounting)
    return quant.WidthMatch(width, layers, weights, size, size.total)

  def match(
    self,
    size: int,
    bits: int | Mapping[str, int],
    quantizer: quant.Quantizer,
    slack: float = quant.EQUAL_SIZE_SLACK,
  ) -> quant.WidthMatch:
    """The width at which it has a size, in bits, or is at most by a share of `slack` smaller.

    Raises:
      BudgetError, ValueError: as `quant.match_width`.
    """
    accounting = self._config.accounting
    return quant.match_width(self.layers, size, bits, accounting, quantizer=quantizer, slack=slack)


def recipe_of(
  config: config_dict.ConfigDict, dataset: data.Dataset, epochs: int, quantizer: quant.Quantizer
) -> training.Recipe:
  """The recipe that a config's fields of the optimizer and of augmentation describe."""
  steps_per_epoch = data.steps_per_epoch(len(dataset.train), config.batch_size)
  return training.Recipe(
    steps=epochs * steps_per_epoch,
    steps_per_epoch=steps_per_epoch,
    momentum=config.momentum,
    weight_decay=config.weight_decay,
    label_smoothing=config.label_smoothing,
    shift=config.shift,
    flip=config.flip,
    mean=dataset.mean,
    std=dataset.std,
    quantizer=quantizer,
  )


def plan_without_members(config: config_dict.ConfigDict, dataset: data.Dataset) -> Plan:
  """How the members of a run will train.

  Args:
    config: with the fields of `SPEC`, checked one by one.
    dataset: that they train on.

  Returns:
    A plan that has none yet.

  Raises:
    ConfigError: if fields contradict each other or the data.
  """
  if config.levels == 'mid_tread' and 1 in config.bits:
    raise ConfigError(
      "config.bits holds 1, which has no 'mid_tread' level but zero; allowed: 2 to "
      "8 and 32, or config.levels 'auto' or 'mid_rise'"
    )
  if config.batch_size > len(dataset.train):
    raise ConfigError(
      f'config.batch_size={config.batch_size}; allowed: at most the '
      f'{len(dataset.train)} training images'
    )
  side = min(dataset.image_shape[:2])
  if config.shift >= side:
    raise ConfigError(f'config.shift={config.shift}; allowed: less than the image side, {side}')
  steps_per_epoch = data.steps_per_epoch(len(dataset.train), config.batch_size)
  most = np.iinfo(np.int32).max // steps_per_epoch
  if config.epochs > most:
    raise ConfigError(f'config.epochs={config.epochs}; allowed: at most {most}, 2^31 steps')
  try:
    quantizer = training.quantizer_from_config(config)
  except ValueError as error:
    raise ConfigError(f'config.{error}') from None
  recipe = recipe_of(config, dataset, config.epochs, quantizer)
  return Plan((), recipe, config, dataset.num_classes)


def refuse_start(config: config_dict.ConfigDict) -> None:
  """For runs of which no other has all the networks.

  Raises:
    ConfigError: if the config names one to start from.
  """
  if config.start:
    raise ConfigError(
      f"config.start={config.start!r}: widths follow from this run's own searches, so that no "
      "other run has networks to start all of them from; allowed: ''"
    )
