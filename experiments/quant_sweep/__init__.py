"""Which weight bitwidth is best at equal model size?

Trains one network at several weight bitwidths, each widened so that all have the same size in bits,
and ranks them by test accuracy (One Weight Bitwidth to Rule Them All, arXiv 2008.09916). Or, with
`config.width_multipliers` in place of `config.sizes_kib`, networks of given widths at several
bitwidths, which may start from the trained float networks of an earlier run, or from published
weights (`config.start`).

    python -m experiments.quant_sweep --config configs/quant_sweep.py --workdir runs/quant_sweep

The folder then holds config.json, records.jsonl, results.csv, report.md, pareto.png, and in
members/ the packed weights of every network trained, which `training.load_member` reads. The same
command goes on where a killed run stopped.

Each core of a CPU, or each GPU, is a device with members of its own, and programs train side by
side; results are the same bytes on any number of devices of one kind.

Exit code 1 if no ranked member has an accuracy, as all diverged.
"""

import pathlib
from typing import Any

from ml_collections import config_dict

from cnnopt_jax.training import load_member
from experiments.common import cores, costs, inputs, launch, members, run_folder, starts, sweeps
from experiments.quant_sweep import report
from experiments.quant_sweep.plan import ADDED, SPEC, make_plan

__all__ = ['SPEC', 'load_member', 'run']


def run(config: config_dict.ConfigDict, workdir: pathlib.Path) -> list[dict[str, Any]] | int:
  """Trains what is not on record yet, and writes the results.

  Args:
    config: with the fields of `SPEC`, checked.
    workdir: folder of the run.

  Returns:
    One record a member, in the order of the plan; or an exit code where all diverged.

  Raises:
    ConfigError: before any training, if data or weights to start from are missing, or no width
      meets a size.
  """
  costs_so_far = costs.Costs()
  devices = cores.devices(config.devices)
  dataset = starts.as_read(config, inputs.load_data(config))
  plan = make_plan(config, dataset)
  start = starts.find(plan, dataset)
  environment = run_folder.claim(workdir, config, same_results=sweeps.SAME_RESULTS, added=ADDED)
  starts.record_normalization(config, dataset, workdir)
  found = run_folder.read_records(workdir, report.OLDEST_COLUMNS)
  members.rename_checkpoints(workdir)

  def write():
    report.write(plan, found, environment, workdir, costs_so_far.sentence())

  def record(member, outcome):
    return report.record(plan, member, outcome)

  members.train(plan, dataset, workdir, devices, found, start=start, record=record, recorded=write)
  found = report.in_order(plan, found)
  write()
  report.show(plan, found, workdir)
  print(costs_so_far.sentence())
  return found if report.has_ranking(found) else launch.FAILED_EXIT_CODE
