"""What a sweep over bitwidths trains: its members and their widths."""

from collections.abc import Iterable, Iterator

from ml_collections import config_dict

from cnnopt_jax import data, models, quant
from experiments.common import inputs, sweeps
from experiments.common.fields import ConfigError, boolean, integer, number, one_of, tuple_of
from experiments.common.sweeps import Member, Plan, Widths

SPEC = {
  'model': one_of(*models.MODELS),
  **inputs.SPEC,
  'sizes_kib': tuple_of(number(0, above=True), min_length=0),
  'width_multipliers': tuple_of(number(0, above=True), min_length=0),
  'accounting': one_of(*quant.ACCOUNTINGS),
  'bits': tuple_of(one_of(*quant.BITS, quant.IDENTITY_BITS)),
  'reference': boolean(),
  'seeds': tuple_of(integer(0, 2**31 - 1)),
  'learning_rates': tuple_of(number(0, above=True)),
  **sweeps.SPEC,
}

# See `sweeps.ADDED`.
ADDED = {**sweeps.ADDED, 'width_multipliers': ()}

# At equal size, a float32 reference is as wide as the network of this bitwidth.
REFERENCE_WIDTH_BITS = 8


def make_plan(config: config_dict.ConfigDict, dataset: data.Dataset) -> Plan:
  """Finds the width of every member and groups the members that share a shape.

  The grouping follows from the config alone: members of one width, in the order of budgets or
  widths, bits, learning rates and seeds, at most `max_members` to a program.

  Args:
    config: of the sweep, checked field by field.
    dataset: its image shape, class and image counts are read.

  Returns:
    The plan.

  Raises:
    ConfigError: if fields contradict each other or the data, or no width meets a size.
  """
  if bool(config.sizes_kib) == bool(config.width_multipliers):
    raise ConfigError(
      f'config.sizes_kib={config.sizes_kib} and '
      f'config.width_multipliers={config.width_multipliers}; allowed: exactly one of them not empty'
    )
  plan = sweeps.plan_without_members(config, dataset)
  widths = Widths(config, dataset)
  members = _members_of_widths if config.width_multipliers else _members_of_sizes
  return plan.of(list(members(plan, widths)))


def _members_of_sizes(plan: Plan, widths: Widths) -> Iterator[Member]:
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
    yield from _each(plan, f'{budget:g}kib', budget, kinds)


def _members_of_widths(plan: Plan, widths: Widths) -> Iterator[Member]:
  """Every member, in the order of widths, bits, learning rates and seeds."""
  config, ranked = plan.config, plan.config.bits
  for width in config.width_multipliers:
    kinds = [('ranked', bits, f'b{bits}', _at(plan, widths, width, bits)) for bits in ranked]
    # Float networks of this width may be among the ranked ones.
    if config.reference and quant.IDENTITY_BITS not in ranked:
      match = _at(plan, widths, width, quant.IDENTITY_BITS)
      kinds.append(('reference', quant.IDENTITY_BITS, 'reference', match))
    yield from _each(plan, f'w{width:g}', None, kinds)


def _each(
  plan: Plan,
  prefix: str,
  budget: float | None,
  kinds: Iterable[tuple[str, int, str, quant.WidthMatch]],
) -> Iterator[Member]:
  """Members of roles, bits and kinds, at every learning rate and seed."""
  for role, bits, kind, match in kinds:
    for rate in plan.config.learning_rates:
      for seed in plan.config.seeds:
        name = f'{prefix}_{kind}_lr{rate:g}_seed{seed}'
        yield Member(name, role, budget, bits, rate, seed, match)


def _at(plan: Plan, widths: Widths, width: float, bits: int) -> quant.WidthMatch:
  """The network of a width."""
  try:
    return widths.at(width, bits, plan.recipe.quantizer)
  except ValueError as error:
    raise _layer_bits_error(plan, error) from None


def _match(plan: Plan, widths: Widths, budget: float, bits: int) -> quant.WidthMatch:
  """The width at which a network of `bits`-bit weights has the size of the budget."""
  size = round(budget * 8192)
  try:
    return widths.match(size, bits, plan.recipe.quantizer)
  except quant.BudgetError as error:
    raise ConfigError(
      f'config.sizes_kib={budget:g} ({size} bits) with {bits}-bit weights: {error}; '
      'allowed: a size that every bitwidth can meet'
    ) from None
  except ValueError as error:
    raise _layer_bits_error(plan, error) from None


def _layer_bits_error(plan: Plan, error: ValueError) -> ValueError:
  """What is wrong with a plan of weights, as an error of the field that shaped it."""
  if not plan.config.layer_bits:
    return error
  return ConfigError(f'config.layer_bits={plan.config.layer_bits!r}: {error}')
