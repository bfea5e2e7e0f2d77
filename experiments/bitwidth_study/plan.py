"""What the study trains: cells to compare in, the networks that they need, and who trains which.

A cell is a network, a cost and a budget; in it networks of one bitwidth each, and mixed ones, cost
the same. Budgets are named as in the paper (as recalled), 'plain@0.5' being what plain at width 0.5
costs with weights of `budget_bits`; it is a little less where not every bitwidth can meet that. A
trained network is a point; cells may share points. Points that need each other are a unit: networks
of one width and bitwidth, one a seed, or all that the mixed networks of a cell are made from. Units
are what shards divide.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ml_collections import config_dict

from cnnopt_jax import data, models, quant
from experiments.common import bit_search, inputs, sweeps
from experiments.common.fields import ConfigError, integer, one_of, text, tuple_of
from experiments.common.sweeps import Member, Plan, Widths

_BUDGET = re.compile(r'(\w+)@(\d+(?:\.\d+)?)')


def _budget(entry: str) -> tuple[str, float] | None:
  """Network and width multiplier of 'NETWORK@WIDTH'; None of anything else."""
  found = _BUDGET.fullmatch(entry)
  if not found or found[1] not in models.MODELS or not float(found[2]):
    return None
  return found[1], float(found[2])


FLOAT, SINGLE, MIXED, FREE = 'float', 'single', 'mixed', 'free'

SPEC = {
  'budgets': tuple_of(
    text(
      "'NETWORK@WIDTH', such as 'plain@0.5', with a network of " + ', '.join(models.MODELS),
      lambda entry: _budget(entry) is not None,
    )
  ),
  'budget_bits': one_of(*quant.BITS),
  'costs': tuple_of(one_of(*quant.COSTS)),
  **inputs.SPEC,
  **bit_search.SPEC,
  'mixed': tuple_of(one_of(*quant.COSTS), min_length=0),
  'mixed_width_bits': one_of(*quant.BITS),
  'fan_ins': tuple_of(integer(1)),
  'shard': text("'I/N', the I-th of N shares of the work, or empty for all of it", lambda v: True),
  'merge': tuple_of(
    text(
      'the folder of a run of the same study, without a comma', lambda folder: ',' not in folder
    ),
    min_length=0,
  ),
  **sweeps.SPEC,
}

# By which a budget may cost less than the network that names it: channel counts are integers, and a
# few channels are a large part of a small network.
_MOST_LOWERED = 0.25

# Fields that shards of one study may differ in, and a run be gone on with.
SAME_RESULTS = (*sweeps.SAME_RESULTS, 'shard', 'merge')


class Cell(NamedTuple):
  """Where networks are compared.

  Attributes:
    network: a key of `models.MODELS`.
    cost: that they have in common, of `quant.COSTS`.
    budget_width: names the budget.
    budget: in the unit of the cost.
    singles: the match of each bitwidth.
  """

  network: str
  cost: str
  budget_width: float
  budget: int
  singles: Mapping[int, quant.WidthMatch]

  @property
  def name(self) -> str:
    """Names its searches and its mixed networks."""
    return f'{self.network}_{self.cost}_w{self.budget_width:g}'


class Unit(NamedTuple):
  """Points that are trained by one shard.

  Attributes:
    name: unique in the study.
    network: whose they are.
    members: networks of one bitwidth, or in float, whose shape is known from the start.
    cell: whose mixed networks are searched for in the float `members`; None for none.
    work: multiply-accumulates of its training, but for a constant.
  """

  name: str
  network: str
  members: tuple[Member, ...]
  cell: Cell | None
  work: int


class Network(NamedTuple):
  """One network of the study.

  Attributes:
    name: a key of `models.MODELS`.
    plan: how it trains; without members.
    widths: it at every width.
  """

  name: str
  plan: Plan
  widths: Widths


def networks_of(config: config_dict.ConfigDict, dataset: data.Dataset) -> dict[str, Network]:
  """The networks of a study by name.

  Raises:
    ConfigError: if fields contradict each other or the data.
  """
  _check(config)
  found = {}
  for name in dict.fromkeys(entry.partition('@')[0] for entry in config.budgets):
    own = config_dict.ConfigDict({**config.to_dict(), 'model': name})
    found[name] = Network(name, sweeps.plan_without_members(own, dataset), Widths(own, dataset))
  return found


def _check(config: config_dict.ConfigDict) -> None:
  bit_search.check(config)
  if config.mixed and config.mixed_width_bits not in config.bits:
    raise ConfigError(
      f'config.mixed_width_bits={config.mixed_width_bits}; allowed: a bitwidth of '
      f'config.bits={config.bits}'
    )
  for cost in config.mixed:
    if cost not in config.costs:
      raise ConfigError(
        f'config.mixed holds {cost!r}; allowed: costs of config.costs={config.costs}'
      )


def cells_of(networks: Mapping[str, Network], config: config_dict.ConfigDict) -> list[Cell]:
  """All cells, in the order of networks, costs and budgets.

  Raises:
    ConfigError: if a bitwidth cannot meet a budget.
  """
  budgets = [found for entry in config.budgets if (found := _budget(entry)) is not None]
  return [
    _cell(network, cost, width)
    for network in networks.values()
    for cost in config.costs
    for name, width in budgets
    if name == network.name
  ]


def _cell(network: Network, cost: str, width: float) -> Cell:
  """A cell, whose budget is lowered until every bitwidth meets it."""
  config = network.plan.config
  layers = network.widths.layers(width)
  weights = quant.plan_weights(layers, network.plan.recipe.quantizer)
  named = cost_of(layers, weights, config.budget_bits, cost, config.accounting)
  budget = named
  while budget >= named * (1 - _MOST_LOWERED):
    try:
      singles = {bits: match(network, bits, cost, budget) for bits in config.bits}
    except quant.BudgetError:
      break
    cheapest = min(one.cost for one in singles.values())
    if cheapest * (1 + config.slack) >= budget:
      return Cell(network.name, cost, width, budget, singles)
    budget = cheapest
  name, unit = quant.COSTS[cost]
  least = round(named * (1 - _MOST_LOWERED))
  raise ConfigError(
    f'config.budgets holds {network.name}@{width:g}: no {name} of {least} to {named} {unit} is '
    f'met with each of config.bits={config.bits} to within '
    f'{config.slack:.0%}; allowed: widths of which there is one, or a larger config.slack'
  )


def cost_of(layers, weights: quant.WeightPlan, bits, cost: str, accounting: str) -> int:
  """What a network costs, in the unit of `quant.COSTS`."""
  if cost == 'size':
    return quant.model_size(weights, bits, accounting).total
  return quant.bit_operations(layers, weights, bits)


def match(network: Network, bits, cost: str, budget: int) -> quant.WidthMatch:
  """The widest network that costs no more than a budget with some bits.

  Raises:
    BudgetError: if the narrowest costs more, or the widest less than half of it.
  """
  return quant.match_width(
    network.widths.layers,
    budget,
    bits,
    network.plan.config.accounting,
    cost=cost,
    quantizer=network.plan.recipe.quantizer,
    slack=1.0,
  )


def in_float(network: Network, found: quant.WidthMatch) -> quant.WidthMatch:
  """The float network of a match's width."""
  size = quant.model_size(found.plan, quant.IDENTITY_BITS, network.plan.config.accounting)
  return found._replace(size=size, cost=size.total)


def members(network: Network, name: str, role: str, bits, found: quant.WidthMatch) -> list[Member]:
  """Networks that differ by seed alone."""
  config = network.plan.config
  return [
    Member(
      f'{name}_seed{seed}',
      role,
      None,  # Those of one width share a program, whatever they were matched to.
      bits,
      config.learning_rate,
      seed,
      found,
    )
    for seed in config.seeds
  ]


def singles_of(network: Network, cell: Cell, bits: int) -> list[Member]:
  """The networks of one bitwidth of a cell; another cell may have the same."""
  found = cell.singles[bits]
  return members(network, f'{network.name}_x{found.width:g}_b{bits}', SINGLE, bits, found)


def floats_of(network: Network, cell: Cell, bits: int) -> list[Member]:
  """The float networks as wide as those of one bitwidth of a cell."""
  found = in_float(network, cell.singles[bits])
  name = f'{network.name}_x{found.width:g}_float'
  return members(network, name, FLOAT, quant.IDENTITY_BITS, found)


def units_of(
  networks: Mapping[str, Network], cells: Sequence[Cell], config: config_dict.ConfigDict
) -> list[Unit]:
  """All that there is to train, each point once where cells share it."""
  units: dict[str, Unit] = {}
  for cell in cells:
    network = networks[cell.network]
    for bits in config.bits:
      group = singles_of(network, cell, bits)
      name = group[0].name.rpartition('_')[0]
      units[name] = Unit(name, network.name, tuple(group), None, _work(group))
    if cell.cost in config.mixed:
      floats = {
        one.name: one
        for bits in dict.fromkeys((config.mixed_width_bits, *config.free_widths))
        for one in floats_of(network, cell, bits)
      }
      group = list(floats.values())
      # What is found in them is trained as well, and is about as wide.
      units[cell.name] = Unit(cell.name, network.name, tuple(group), cell, 2 * _work(group))
  return list(units.values())


def _work(group: Sequence[Member]) -> int:
  return sum(one.match.layers.macs for one in group)


def shard_of(units: Sequence[Unit], shard: str) -> list[Unit]:
  """The units of a shard: each, the dearest first, goes to who has the least so far.

  Args:
    units: of the study.
    shard: 'I/N' with I from 1 to N; '' for all units.

  Returns:
    Its units, in their order.

  Raises:
    ConfigError: if there is no such shard.
  """
  if not shard:
    return list(units)
  index, _, count = shard.partition('/')
  if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count) <= len(units)):
    raise ConfigError(
      f"config.shard={shard!r}; allowed: 'I/N' with I from 1 to N and N up to {len(units)}, the "
      'number of parts, or empty for all of it'
    )
  loads, owner = [0] * int(count), {}
  for unit in sorted(units, key=lambda unit: (-unit.work, unit.name)):
    least = loads.index(min(loads))
    loads[least] += unit.work
    owner[unit.name] = least
  return [unit for unit in units if owner[unit.name] == int(index) - 1]
