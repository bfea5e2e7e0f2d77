"""What a comparison of mixed precision with single bitwidths trains, stage by stage."""

from collections.abc import Mapping

from cnnopt_jax import models, quant
from experiments.common import bit_search, inputs, sweeps
from experiments.common.fields import ConfigError, number, one_of
from experiments.common.sweeps import Member, Plan, Widths

SPEC = {
  'model': one_of(*models.MODELS),
  'width_multiplier': number(0, above=True),
  **inputs.SPEC,
  **bit_search.SPEC,
  **sweeps.SPEC,
}

FLOAT, MIXED, SINGLE, FREE = 'float', 'mixed', 'single', 'free'


def at_width(plan: Plan, widths: Widths, width: float, bits: int | Mapping[str, int]):
  """The network of a width as a match of its own size."""
  return widths.at(width, bits, plan.recipe.quantizer)


def matched(plan: Plan, widths: Widths, budget: int, bits: int) -> quant.WidthMatch:
  """A network of one bitwidth, widened to a size.

  Raises:
    ConfigError: if no width meets it.
  """
  try:
    return widths.match(budget, bits, plan.recipe.quantizer, plan.config.slack)
  except quant.BudgetError as error:
    raise ConfigError(
      f'config.bits holds {bits}: {error}; allowed: bits that meet the size of the mixed network, '
      'a larger config.slack, or another config.width_multiplier'
    ) from None


def members(
  plan: Plan, role: str, kind: str, bits: int | Mapping[str, int], match: quant.WidthMatch
) -> list[Member]:
  """Networks that differ by seed alone."""
  return [
    Member(
      f'{role}_{kind}_seed{seed}' if kind else f'{role}_seed{seed}',
      role,
      None,  # Those of one width share a program, whatever they were matched to.
      bits,
      plan.config.learning_rate,
      seed,
      match,
    )
    for seed in plan.config.seeds
  ]
