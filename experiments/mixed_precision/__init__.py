"""Does one weight bitwidth beat mixed precision at equal model size?

The claim of *One Weight Bitwidth to Rule Them All* (arXiv 2008.09916), tried as it is meant:

1. Networks are trained in float at `width_multiplier`, one a seed, without the held-out images.
2. The fewest bits in each layer that lose no accuracy on these images are searched for
   (`quant.fewest_bits`: greedy, over all seeds' networks, quantized as they are, by steps of least
   error where the config has steps be learned). The network of these bits, trained with them, is
   the mixed one. Its size is the budget.
3. Networks of one bitwidth are widened to the budget and trained by the same recipe, with the same
   seeds, so that differences are paired.
4. Beyond the paper, mixed precision with its width free: at the widths of some of these networks
   another float network is trained, what each layer costs at each bitwidth is measured on the
   held-out images, and bits are allocated exactly within the budget (`quant.allocate`).

    python -m experiments.mixed_precision --config configs/mixed_precision.py --workdir runs/mixed

The folder then holds config.json, records.jsonl, results.csv, search.json with the bits that were
found, report.md, differences.png, and in members/ the packed weights. The same command goes on
where a killed run stopped, with the bits that it had found.
"""

import pathlib
from typing import Any

from ml_collections import config_dict

from cnnopt_jax import data, quant
from experiments.common import bit_search as search
from experiments.common import comparisons, cores, costs, fields, inputs, run_folder, sweeps
from experiments.common import members as training_of_members
from experiments.common.sweeps import Member, Plan, Widths
from experiments.mixed_precision import report
from experiments.mixed_precision.plan import (
  FLOAT,
  FREE,
  MIXED,
  SINGLE,
  SPEC,
  at_width,
  matched,
  members,
)

__all__ = ['SPEC', 'run']

SEARCH = search.SEARCH


def run(config: config_dict.ConfigDict, workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Searches, trains what is not on record yet, and writes the results.

  Args:
    config: with the fields of `SPEC`, checked.
    workdir: folder of the run.

  Returns:
    One record a member.

  Raises:
    ConfigError: before any training where that can be known; if no width meets a size.
  """
  costs_so_far = costs.Costs()
  devices = cores.devices(config.devices)
  dataset = inputs.load_data(config)
  search.check(config)
  try:
    dataset, held_out = data.hold_out(dataset, config.held_out)
  except ValueError as error:
    raise fields.ConfigError(f'config.held_out: {error}') from None
  plan = sweeps.plan_without_members(config, dataset)
  widths = Widths(config, dataset)
  environment = run_folder.claim(
    workdir, config, same_results=sweeps.SAME_RESULTS, added=sweeps.ADDED
  )
  found = run_folder.read_records(workdir, comparisons.COLUMNS)
  batches = search.batches_of(held_out, dataset.mean, dataset.std)

  def train(stage: str, *groups: list[Member]) -> None:
    training_of_members.train(
      plan.of([member for group in groups for member in group]),
      dataset,
      workdir,
      devices,
      found,
      stage=stage,
      record=comparisons.record,
    )

  def networks(floats: list[Member]) -> search.Networks:
    own = search.read_networks(plan, dataset, batches, workdir, floats, found)
    if own is None:
      raise fields.ConfigError(
        f'config.learning_rate={config.learning_rate:g}: all float networks of width '
        f'{floats[0].match.width:g} diverged; allowed: a smaller one, with another --workdir'
      )
    return own

  base = at_width(plan, widths, config.width_multiplier, quant.IDENTITY_BITS)
  floats = members(plan, FLOAT, f'w{base.width:g}', quant.IDENTITY_BITS, base)
  train('float', floats)

  def fewest():
    own = networks(floats)
    sizes = quant.leaf_sizes(own.plan, config.layer_choices, config.accounting)
    return search.fewest_bits(own, sizes, config.tolerance)

  searched = search.kept(workdir, MIXED, lambda: search.of_search(*fewest()))
  mixed_match = at_width(plan, widths, config.width_multiplier, searched['bits'])
  budget = mixed_match.size.total
  mixed = members(plan, MIXED, '', searched['bits'], mixed_match)
  matches = {bits: matched(plan, widths, budget, bits) for bits in config.bits}
  singles = [members(plan, SINGLE, f'b{bits}', bits, match) for bits, match in matches.items()]
  wide = {
    bits: members(
      plan,
      FLOAT,
      f'w{matches[bits].width:g}',
      quant.IDENTITY_BITS,
      at_width(plan, widths, matches[bits].width, quant.IDENTITY_BITS),
    )
    for bits in config.free_widths
  }
  train('matched', mixed, *singles, *wide.values())

  free = []
  for bits, group in wide.items():
    allocated = search.kept(
      workdir, f'{FREE}_b{bits}', lambda group=group: _allocated(plan, networks(group), budget)
    )
    match = at_width(plan, widths, matches[bits].width, allocated['bits'])
    free.append(members(plan, FREE, f'b{bits}', allocated['bits'], match))
  train('free', *free)

  everyone = [floats, mixed, *singles, *wide.values(), *free]
  found = [
    record
    for member in (m for group in everyone for m in group)
    for record in found
    if record['name'] == member.name
  ]
  searches = search.read_searches(workdir)
  report.write(plan, found, searches, budget, environment, workdir, costs_so_far.sentence())
  report.show(found, workdir)
  print(costs_so_far.sentence())
  return found


def _allocated(plan: Plan, networks: search.Networks, budget: int) -> dict[str, Any]:
  config = plan.config
  costs_of_bits = search.sensitivities(
    networks, config.layer_choices, config.sensitivity, config.probes
  )
  sizes = quant.leaf_sizes(networks.plan, costs_of_bits.bits, config.accounting)
  bits, allocation = search.allocated(costs_of_bits, sizes, budget)
  return search.of_allocation(bits, costs_of_bits, allocation)
