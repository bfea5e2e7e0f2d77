"""What a sweep over bitwidths trains: its members and their widths."""

from collections.abc import Iterator

from ml_collections import config_dict

from cnnopt_jax import data, models, quant
from experiments.common import inputs, sweeps
from experiments.common.fields import ConfigError, boolean, integer, number, one_of, tuple_of
from experiments.common.sweeps import Member, Plan, Widths

SPEC = {
  'model': one_of(*models.MODELS),
  **inputs.SPEC,
  'sizes_kib': tuple_of(number(0, above=True)),
  'accounting': one_of(*quant.ACCOUNTINGS),
  'bits': tuple_of(one_of(*quant.BITS, quant.IDENTITY_BITS)),
  'reference': boolean(),
  'seeds': tuple_of(integer(0, 2**31 - 1)),
  'learning_rates': tuple_of(number(0, above=True)),
  **sweeps.SPEC,
}

# A float32 reference is as wide as the network of this bitwidth.
REFERENCE_WIDTH_BITS = 8


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
  plan = sweeps.plan_without_members(config, dataset)
  return plan.of(list(_members(plan, Widths(config, dataset))))


def _members(plan: Plan, widths: Widths) -> Iterator[Member]:
  """Every member, in the order of budgets, bits, learning rates and seeds."""
  config = plan.config
  for budget in config.sizes_kib:
    matches = {bits: _match(plan, widths, budget, bits) for bits in config.bits}
    kinds = [('ranked', bits, f'b{bits}', match) for bits, match in matches.items()]
    if config.reference:
      width_of = REFERENCE_WIDTH_BITS
      match = matches.get(width_of) or _match(plan, widths, budget, width_of)
      size = quant.model_size(match.plan, quant.IDENTITY_BITS, config.accounting)
      kinds.append(('reference', quant.IDENTITY_BITS, 'reference', match._replace(size=size)))
    for role, bits, kind, match in kinds:
      for rate in config.learning_rates:
        for seed in config.seeds:
          name = f'{budget:g}kib_{kind}_lr{rate:g}_seed{seed}'
          yield Member(name, role, budget, bits, rate, seed, match)


def _match(plan: Plan, widths: Widths, budget: float, bits: int) -> quant.WidthMatch:
  """The width at which a network of `bits`-bit weights has the size of the budget."""
  config, size = plan.config, round(budget * 8192)
  try:
    return widths.match(size, bits, plan.recipe.quantizer)
  except quant.BudgetError as error:
    raise ConfigError(
      f'config.sizes_kib={budget:g} ({size} bits) with {bits}-bit weights: {error}; '
      'allowed: a size that every bitwidth can meet'
    ) from None
  except ValueError as error:
    if not config.layer_bits:
      raise
    raise ConfigError(f'config.layer_bits={config.layer_bits!r}: {error}') from None
