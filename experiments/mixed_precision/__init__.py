"""Does one weight bitwidth beat mixed precision at equal model size?

The claim of *One Weight Bitwidth to Rule Them All* (arXiv 2008.09916), tried as it is meant:

1. Networks are trained in float at `width_multiplier`, one a seed, without the held-out images.
2. The fewest bits in each layer that lose no accuracy on these images are searched for
   (`quant.fewest_bits`: greedy, over all seeds' networks, quantized as they are). The network of
   these bits, trained with them, is the mixed one. Its size is the budget.
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

import json
import pathlib
from collections.abc import Callable
from typing import Any

from ml_collections import config_dict

from cnnopt_jax import data, models, quant, training
from cnnopt_jax.report import write_atomically
from experiments.common import cores, costs, fields, inputs, run_folder, sweeps
from experiments.common import members as training_of_members
from experiments.common.sweeps import Member, Plan, Widths
from experiments.mixed_precision import report, search
from experiments.mixed_precision.plan import (
  FLOAT,
  FREE,
  MIXED,
  SINGLE,
  SPEC,
  at_width,
  check,
  matched,
  members,
)

__all__ = ['SPEC', 'run']

SEARCH = 'search.json'


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
  check(config)
  try:
    dataset, held_out = data.hold_out(dataset, config.held_out)
  except ValueError as error:
    raise fields.ConfigError(f'config.held_out: {error}') from None
  plan = sweeps.plan_without_members(config, dataset)
  widths = Widths(config, dataset)
  environment = run_folder.claim(workdir, config, same_results=sweeps.SAME_RESULTS)
  found = run_folder.read_records(workdir, report.COLUMNS)
  batches = search.batches_of(held_out, dataset.mean, dataset.std)

  def train(stage: str, *groups: list[Member]) -> None:
    training_of_members.train(
      plan.of([member for group in groups for member in group]),
      dataset,
      workdir,
      devices,
      found,
      stage=stage,
      record=lambda member, outcome: report.record(plan, member, outcome),
    )

  def networks(floats: list[Member]) -> search.Networks:
    return _networks(plan, dataset, batches, workdir, floats)

  base = at_width(plan, widths, config.width_multiplier, quant.IDENTITY_BITS)
  floats = members(plan, FLOAT, f'w{base.width:g}', quant.IDENTITY_BITS, base)
  train('float', floats)

  def fewest():
    try:
      return search.fewest_bits(
        networks(floats), config.layer_choices, config.tolerance, config.accounting
      )
    except ValueError as error:
      raise fields.ConfigError(f'config.layer_choices, config.tolerance: {error}') from None

  searched = _kept(workdir, MIXED, lambda: report.of_search(*fewest()))
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
    allocated = _kept(
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
  searches = json.loads((workdir / SEARCH).read_text())
  report.write(plan, found, searches, budget, environment, workdir, costs_so_far.sentence())
  report.show(found, workdir)
  print(costs_so_far.sentence())
  return found


def _networks(
  plan: Plan, dataset: data.Dataset, batches, workdir: pathlib.Path, floats: list[Member]
) -> search.Networks:
  """Float networks of one width, read back."""
  model = plan.model(floats[0])
  like = models.abstract_variables(model, dataset.image_shape)
  variables = [
    training.load_saved(training.member_folder(workdir, member.name), like) for member in floats
  ]
  return search.Networks(model, floats[0].match.plan, variables, batches)


def _allocated(plan: Plan, networks: search.Networks, budget: int) -> dict[str, Any]:
  config = plan.config
  costs_of_bits = search.sensitivities(
    networks, config.layer_choices, config.sensitivity, config.probes
  )
  bits, allocation = search.allocated(networks, costs_of_bits, budget, config.accounting)
  return report.of_allocation(bits, costs_of_bits, allocation)


def _kept(workdir: pathlib.Path, name: str, find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
  """What a search found, read from the run's folder where it is there already."""
  path = workdir / SEARCH
  kept = json.loads(path.read_text()) if path.exists() else {}
  if name not in kept:
    kept[name] = find()
    write_atomically(path, json.dumps(kept, indent=1) + '\n')
  return kept[name]
