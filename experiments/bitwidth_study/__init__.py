"""Which weight bitwidth is best, for which network, at which budget, of what?

The whole of *One Weight Bitwidth to Rule Them All* (arXiv 2008.09916), and beyond it. For each
network, cost and budget (a cell) networks of one bitwidth each are made to cost the same, in bits
of size or in bit operations, by their width multiplier, and so are two mixed ones:

- 'mixed' has in each layer the fewest bits that lose no accuracy (`quant.fewest_bits`, on held-out
  images), as found in a float network as wide as that of `mixed_width_bits`;
- 'free', beyond the paper, has the width of one of the networks of one bitwidth and the bits that
  cost it least within the budget (`quant.allocate`).

All train by one recipe with the same seeds, so that differences are paired. Besides, what fan-in
does to quantization is measured (`quant.fan_in`), and a law of accuracy in weights and bits fitted.

    python -m experiments.bitwidth_study --config configs/bitwidth_study.py --workdir runs/study

The folder then holds config.json, records.jsonl, results.csv, search.json, report.md with its
plots, and in members/ the packed weights. The same command goes on where a killed run stopped. The
work can be shared out, and put together in a folder of its own, which trains what is missing:

    python -m experiments.bitwidth_study --workdir runs/one --config.shard=1/2
    python -m experiments.bitwidth_study --workdir runs/two --config.shard=2/2
    python -m experiments.bitwidth_study --workdir runs/all --config.merge=runs/one,runs/two
"""

import pathlib
from typing import Any

from ml_collections import config_dict

from cnnopt_jax import data, quant
from experiments.bitwidth_study import merging, report
from experiments.bitwidth_study.plan import (
  FREE,
  MIXED,
  SAME_RESULTS,
  SPEC,
  Cell,
  Network,
  Unit,
  cells_of,
  cost_of,
  floats_of,
  match,
  members,
  networks_of,
  shard_of,
  units_of,
)
from experiments.bitwidth_study.results import Results
from experiments.common import (
  bit_search,
  comparisons,
  cores,
  costs,
  fields,
  inputs,
  run_folder,
  sweeps,
)
from experiments.common import members as training_of_members
from experiments.common.sweeps import Member

__all__ = ['SPEC', 'run']


def run(config: config_dict.ConfigDict, workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Trains what is not on record yet, and writes the results.

  Args:
    config: with the fields of `SPEC`, checked.
    workdir: folder of the run.

  Returns:
    One record a trained network.

  Raises:
    ConfigError: before any training, if fields contradict each other or the data, a budget cannot
      be met, or a folder to merge is of another study.
  """
  costs_so_far = costs.Costs()
  dataset = inputs.load_data(config)
  try:
    dataset, held_out = data.hold_out(dataset, config.held_out)
  except ValueError as error:
    raise fields.ConfigError(f'config.held_out: {error}') from None
  networks = networks_of(config, dataset)
  cells = cells_of(networks, config)
  units = units_of(networks, cells, config)
  own = shard_of(units, config.shard)
  merging.check(config)
  environment = run_folder.claim(workdir, config, same_results=SAME_RESULTS, added=sweeps.ADDED)
  merging.take(config, workdir)
  found = run_folder.read_records(workdir, comparisons.COLUMNS)
  study = _Study(config, workdir, dataset, held_out, found)
  for network in networks.values():
    study.train_network(network, [unit for unit in own if unit.network == network.name])
  results = Results(config, networks, cells, units, found, workdir)
  report.write(results, environment, costs_so_far.sentence())
  report.show(results)
  print(costs_so_far.sentence())
  return found


class _Study:
  """What the training of every network of a study shares."""

  def __init__(self, config, workdir: pathlib.Path, dataset, held_out, found):
    self._config, self._workdir, self._dataset = config, workdir, dataset
    self._devices = cores.devices(config.devices)
    self._batches = bit_search.batches_of(held_out, dataset.mean, dataset.std)
    self._found = found

  def train_network(self, network: Network, units: list[Unit]) -> None:
    """Trains a network's units: first all of known shape, then what was found in those in float."""
    self._train(network, 'known', [member for unit in units for member in unit.members])
    searching = [unit.cell for unit in units if unit.cell is not None]
    self._train(
      network, 'found', [one for cell in searching for one in self._mixed_of(network, cell)]
    )

  def _train(self, network: Network, stage: str, group: list[Member]) -> None:
    group = list({member.name: member for member in group}.values())
    shard = self._config.shard.replace('/', 'of') or 'all'
    training_of_members.train(
      network.plan.of(group),
      self._dataset,
      self._workdir,
      self._devices,
      self._found,
      stage=f'{network.name}_{stage}_{shard}',
      record=comparisons.record,
    )

  def _mixed_of(self, network: Network, cell: Cell) -> list[Member]:
    """The mixed networks of a cell; what is searched for is kept."""
    config = self._config

    def networks(bits: int) -> bit_search.Networks | None:
      floats = floats_of(network, cell, bits)
      return bit_search.read_networks(
        network.plan, self._dataset, self._batches, self._workdir, floats, self._found
      )

    def leaf_costs(bits: int, weights: quant.WeightPlan) -> quant.LeafSizes:
      if cell.cost == 'size':
        return quant.leaf_sizes(weights, config.layer_choices, config.accounting)
      return quant.leaf_operations(cell.singles[bits].layers, weights, config.layer_choices)

    def fewest(own: bit_search.Networks) -> dict[str, Any]:
      sizes = leaf_costs(config.mixed_width_bits, own.plan)
      return bit_search.of_search(*bit_search.fewest_bits(own, sizes, config.tolerance))

    def free(own: bit_search.Networks, bits: int) -> dict[str, Any]:
      values = bit_search.sensitivities(
        own, config.layer_choices, config.sensitivity, config.probes
      )
      chosen, allocation = bit_search.allocated(values, leaf_costs(bits, own.plan), cell.budget)
      return bit_search.of_allocation(chosen, values, allocation)

    wide = {bits: networks(bits) for bits in (config.mixed_width_bits, *config.free_widths)}
    if None in wide.values():
      print(f'{cell.name}: float networks diverged, so that there are no mixed ones')
      return []
    kept = bit_search.kept(
      self._workdir, f'{cell.name}_{MIXED}', lambda: fewest(wide[config.mixed_width_bits])
    )
    # How its layers grow with the width is its own: what fits, at whatever distance.
    found = [
      members(
        network,
        f'{cell.name}_{MIXED}',
        MIXED,
        kept['bits'],
        match(network, kept['bits'], cell.cost, cell.budget),
      )
    ]
    for bits in config.free_widths:
      name = f'{cell.name}_{FREE}_b{bits}'
      kept = bit_search.kept(self._workdir, name, lambda bits=bits: free(wide[bits], bits))
      one = cell.singles[bits]
      size = quant.model_size(one.plan, kept['bits'], config.accounting)
      cost = cost_of(one.layers, one.plan, kept['bits'], cell.cost, config.accounting)
      width = one._replace(size=size, cost=cost)
      found.append(members(network, name, FREE, kept['bits'], width))
    return [member for group in found for member in group]
