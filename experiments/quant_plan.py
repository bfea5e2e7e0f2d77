"""What a sweep trains: its members, their widths, and how they share programs."""

import collections
import re
from typing import NamedTuple

import flax.linen as nn
import jax
from ml_collections import config_dict

from cnnopt_jax import data, models, quant, training
from cnnopt_jax.workload import LayerTable
from experiments.common.fields import ConfigError

# A float32 reference is as wide as the network of this bitwidth.
REFERENCE_WIDTH_BITS = 8


class Member(NamedTuple):
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


class Plan(NamedTuple):
  """All members of a run, and how they train.

  Attributes:
    programs: members that train together, in the order of training.
    recipe: of every member.
    batch_size: images a step and member.
    checkpoint_steps: 0 for one checkpoint an epoch.
    config: what the plan follows from.
    num_classes: of the data set.
  """

  programs: tuple[tuple[Member, ...], ...]
  recipe: training.Recipe
  batch_size: int
  checkpoint_steps: int
  config: config_dict.ConfigDict
  num_classes: int

  @property
  def members(self) -> tuple[Member, ...]:
    return tuple(member for program in self.programs for member in program)

  def model(self, member: Member) -> nn.Module:
    return models.create(
      self.config.model, num_classes=self.num_classes, width_multiplier=member.match.width
    )


def make_plan(config: config_dict.ConfigDict, dataset: data.Dataset) -> Plan:
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
    quantizer=quant.Quantizer(_rules(config), config.levels, config.step, config.clip_gradient),
  )
  programs = collections.OrderedDict()
  for member in _members(config, dataset, recipe.quantizer.rules):
    programs.setdefault((member.budget_kib, member.match.width), []).append(member)
  size = config.max_members
  chunks = tuple(
    tuple(members[start : start + size])
    for members in programs.values()
    for start in range(0, len(members), size)
  )
  return Plan(
    chunks, recipe, config.batch_size, config.checkpoint_steps, config, dataset.num_classes
  )


def _members(config, dataset, rules):
  tables = {}

  def table(width: float) -> LayerTable:
    if width not in tables:
      model = models.create(config.model, num_classes=dataset.num_classes, width_multiplier=width)
      tables[width] = models.layer_table(model, dataset.image_shape)
    return tables[width]

  bits_at = {}
  for budget in config.sizes_kib:
    kinds = [('ranked', bits) for bits in config.bits]
    kinds += [('reference', quant.IDENTITY_BITS)] * config.reference
    for role, bits in kinds:
      width_bits = REFERENCE_WIDTH_BITS if role == 'reference' else bits
      key = budget, width_bits
      if key not in bits_at:
        bits_at[key] = _match(config, table, budget, width_bits, rules)
      match = bits_at[key]
      if role == 'reference':
        size = quant.model_size(match.layers, quant.IDENTITY_BITS, config.accounting)
        match = match._replace(size=size)
      for rate in config.learning_rates:
        for seed in config.seeds:
          kind = f'b{bits}' if role == 'ranked' else 'reference'
          yield Member(
            f'{budget:g}kib_{kind}_lr{rate:g}_seed{seed}', role, budget, bits, rate, seed, match
          )


def _match(config, table, budget, bits, rules) -> quant.WidthMatch:
  def by_path(layers):
    leaves = {p.path: jax.ShapeDtypeStruct(p.shape, p.dtype) for p in layers.parameters}
    return quant.bits_by_path(leaves, bits, rules=rules)

  try:
    return quant.match_width(
      table,
      round(budget * 8192),
      bits if bits == quant.IDENTITY_BITS else by_path,
      config.accounting,
      per_channel=config.per_channel,
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


def _rules(config) -> tuple[quant.Rule, ...]:
  """`layer_bits` first, in the order given; then every kernel at its member's bitwidth.

  A member of 32 bits is float throughout, whatever `layer_bits` says (`quant.Quantizer`).
  """
  axes = -1 if config.per_channel else ()
  rules = []
  for entry in config.layer_bits:
    pattern, _, bits = entry.rpartition('=')
    try:
      re.compile(pattern)
      quant.validate_bits(int(bits))
    except (re.error, ValueError):
      pattern = ''
    if not pattern:
      raise ConfigError(
        f"config.layer_bits={entry!r}; allowed: 'PATTERN=BITS', a regular "
        'expression for parameter paths and 1 to 8 or 32'
      )
    rules.append(quant.Rule(rf'^(?=.*(?:{pattern})).*\bkernel$', axes, int(bits)))
  return (*rules, *(rule._replace(output_axes=axes) for rule in quant.DEFAULT_RULES))
