"""What a comparison of mixed precision with single bitwidths trains, stage by stage."""

from collections.abc import Mapping

from ml_collections import config_dict

from cnnopt_jax import models, quant
from experiments.common import inputs, sweeps
from experiments.common.bit_search import SENSITIVITIES
from experiments.common.fields import ConfigError, integer, number, one_of, tuple_of
from experiments.common.sweeps import Member, Plan, Widths

SPEC = {
  'model': one_of(*models.MODELS),
  'width_multiplier': number(0, above=True),
  **inputs.SPEC,
  'held_out': integer(1),
  'bits': tuple_of(one_of(*quant.BITS)),
  'layer_choices': tuple_of(one_of(*quant.BITS)),
  'tolerance': number(0, 1),
  'free_widths': tuple_of(one_of(*quant.BITS), min_length=0),
  'sensitivity': one_of(*SENSITIVITIES),
  'probes': integer(2),
  'accounting': one_of(*quant.ACCOUNTINGS),
  'slack': number(0, 1),
  'seeds': tuple_of(integer(0, 2**31 - 1)),
  'learning_rate': number(0, above=True),
  **sweeps.SPEC,
}

FLOAT, MIXED, SINGLE, FREE = 'float', 'mixed', 'single', 'free'


def check(config: config_dict.ConfigDict) -> None:
  """What fields say about each other.

  Raises:
    ConfigError: naming the field.
  """
  sweeps.refuse_start(config)
  if config.levels == 'mid_tread' and 1 in config.layer_choices:
    raise ConfigError(
      "config.layer_choices holds 1, which has no 'mid_tread' level but zero; allowed: 2 to 8"
    )
  if len(set(config.layer_choices)) < len(config.layer_choices):
    raise ConfigError(f'config.layer_choices={config.layer_choices}; allowed: each bitwidth once')
  for bits in config.free_widths:
    if bits not in config.bits:
      raise ConfigError(
        f'config.free_widths holds {bits}; allowed: bitwidths of config.bits={config.bits}'
      )


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
