"""What a sweep trains: its members, their widths, and how they share programs."""

import collections
from collections.abc import Callable, Iterator
from typing import NamedTuple

import flax.linen as nn
import numpy as np
from ml_collections import config_dict

from cnnopt_jax import data, models, quant, training
from cnnopt_jax.workload import LayerTable
from experiments.common import cores, inputs
from experiments.common.fields import (
  ConfigError,
  boolean,
  integer,
  number,
  one_of,
  text,
  tuple_of,
)

SPEC = {
  'model': one_of(*models.MODELS),
  **inputs.SPEC,
  'sizes_kib': tuple_of(number(0, above=True)),
  'accounting': one_of(*quant.ACCOUNTINGS),
  'bits': tuple_of(one_of(*quant.BITS, quant.IDENTITY_BITS)),
  'reference': boolean(),
  'seeds': tuple_of(integer(0, 2**31 - 1)),
  'epochs': integer(1),
  'batch_size': integer(1),
  'learning_rates': tuple_of(number(0, above=True)),
  'momentum': number(0, 1),
  'weight_decay': number(0),
  'label_smoothing': number(0, 1),
  'shift': integer(0, 64),
  'flip': boolean(),
  'levels': one_of(*quant.LEVELS),
  'step': one_of(*quant.STEPS),
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

# A float32 reference is as wide as the network of this bitwidth.
REFERENCE_WIDTH_BITS = 8


class SweepMember(NamedTuple):
  """One network to train.

  Attributes:
    name: unique in the run.
    role: 'ranked', or 'reference' for a network outside the comparison.
    budget_kib: size it was matched to, in KiB (8192 bits).
    bits: weight bitwidth.
    learning_rate: at the first step.
    seed: of weights, batches and augmentation.
    match: width multiplier, layers and size.
  """

  name: str
  role: str
  budget_kib: float
  bits: int
  learning_rate: float
  seed: int
  match: quant.WidthMatch


class SweepPlan(NamedTuple):
  """All members of a run, and how they train.

  Attributes:
    programs: members that train together, in the order of training.
    recipe: of every member.
    batch_size: images a step and member.
    checkpoint_steps: 0 for one checkpoint an epoch.
    config: what the plan follows from.
    num_classes: of the data set.
  """

  programs: tuple[tuple[SweepMember, ...], ...]
  recipe: training.Recipe
  batch_size: int
  checkpoint_steps: int
  config: config_dict.ConfigDict
  num_classes: int

  @property
  def members(self) -> tuple[SweepMember, ...]:
    return tuple(member for program in self.programs for member in program)

  def model(self, member: SweepMember) -> nn.Module:
    return models.create(
      self.config.model, num_classes=self.num_classes, width_multiplier=member.match.width
    )


def make_plan(config: config_dict.ConfigDict, dataset: data.Dataset) -> SweepPlan:
  """Finds the width of every member and groups the members that share a shape.

  The grouping follows from the config alone: members of one width, in the order of budgets, bits,
  learning rates and seeds, at most `max_members` to a program.

  Args:
    config: of the sweep, checked field by field.
    dataset: its image shape, class and image counts are read.

  Returns:
    The plan.

  Raises:
    ConfigError: if fields contradict each other or the data, or no width meets a size.
  """
  _check(config, dataset)
  steps_per_epoch = data.steps_per_epoch(len(dataset.train), config.batch_size)
  most = np.iinfo(np.int32).max // steps_per_epoch
  if config.epochs > most:
    raise ConfigError(f'config.epochs={config.epochs}; allowed: at most {most}, 2^31 steps')
  try:
    quantizer = training.quantizer_from_config(config)
  except ValueError as error:
    raise ConfigError(f'config.{error}') from None
  recipe = training.Recipe(
    steps=config.epochs * steps_per_epoch,
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
  programs = collections.OrderedDict()
  for member in _members(config, dataset, quantizer):
    programs.setdefault((member.budget_kib, member.match.width), []).append(member)
  size = config.max_members
  chunks = tuple(
    tuple(members[start : start + size])
    for members in programs.values()
    for start in range(0, len(members), size)
  )
  return SweepPlan(
    chunks, recipe, config.batch_size, config.checkpoint_steps, config, dataset.num_classes
  )


def _check(config, dataset) -> None:
  """What fields say about each other and about the data."""
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


def _members(config, dataset, quantizer) -> Iterator[SweepMember]:
  """Every member, in the order of budgets, bits, learning rates and seeds."""
  tables = {}

  def table(width: float) -> LayerTable:
    if width not in tables:
      model = models.create(config.model, num_classes=dataset.num_classes, width_multiplier=width)
      tables[width] = models.layer_table(model, dataset.image_shape)
    return tables[width]

  for budget in config.sizes_kib:
    matches = {bits: _match(config, table, budget, bits, quantizer) for bits in config.bits}
    kinds = [('ranked', bits, f'b{bits}', match) for bits, match in matches.items()]
    if config.reference:
      width_of = REFERENCE_WIDTH_BITS
      match = matches.get(width_of) or _match(config, table, budget, width_of, quantizer)
      size = quant.model_size(match.plan, quant.IDENTITY_BITS, config.accounting)
      kinds.append(('reference', quant.IDENTITY_BITS, 'reference', match._replace(size=size)))
    for role, bits, kind, match in kinds:
      for rate in config.learning_rates:
        for seed in config.seeds:
          name = f'{budget:g}kib_{kind}_lr{rate:g}_seed{seed}'
          yield SweepMember(name, role, budget, bits, rate, seed, match)


def _match(
  config,
  table: Callable[[float], LayerTable],
  budget: float,
  bits: int,
  quantizer: quant.Quantizer,
) -> quant.WidthMatch:
  """The width at which a network of `bits`-bit weights has the size of the budget."""

  try:
    return quant.match_width(
      table, round(budget * 8192), bits, config.accounting, quantizer=quantizer
    )
  except quant.BudgetError as error:
    raise ConfigError(
      f'config.sizes_kib={budget:g} ({round(budget * 8192)} bits) with {bits}-bit '
      f'weights: {error}; allowed: a size that every bitwidth can meet'
    ) from None
  except ValueError as error:
    if not config.layer_bits:
      raise
    raise ConfigError(f'config.layer_bits={config.layer_bits!r}: {error}') from None
