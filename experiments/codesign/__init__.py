"""Weight bits x virtual pooling x memory technology x capacity: one table, one Pareto front.

    python -m experiments.codesign --config configs/codesign.py --workdir runs/codesign
    python -m experiments.codesign --config configs/codesign_vgg8.py --workdir runs/codesign_vgg8

Accuracies come from finished runs: `results` names their results.csv files, with columns
`test_accuracy` and any of `model`, `bits`, `plan` and `width_multiplier`; rows that differ by seed
are averaged. A bitwidth then stands for the networks of that bitwidth in those files, at their
widths; `plans=()` takes the plans from there too. Energy, delay and EDP are the memory system's,
last-level cache and DRAM, for one inference of `batch` images; what arithmetic costs is not in
them. Weights are stored in their bits and widened in the kernels; activations have 32, or with
`math='bfloat16'` 16. `gpu`, `library`, `math` and `algorithms` are those of `experiments.nvm_eval`;
the library chooses the algorithms of virtual layers. `profile`
names a finished profile of this inference, WORKLOAD.inference.BATCH.GPU.csv, whose counters stand
in for the traffic model: as they are at 32 bits, without virtual maps and with that GPU's L2, and
scaled by the model's ratio otherwise. Writes `results.csv`, `report.md` and `codesign.png`.
"""

import pathlib
from typing import Any

from ml_collections import config_dict

from cnnopt_jax.report import to_csv
from experiments.codesign import plan, report
from experiments.codesign.plan import COLUMNS, SPEC, all_networks
from experiments.common import fields, gpu_traffic, run_folder

__all__ = ['COLUMNS', 'SPEC', 'all_networks', 'run']


def run(config: config_dict.ConfigDict, workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Evaluates all combinations, writes the files and returns the rows of results.csv."""
  if len(config.image_shape) != 3:
    raise fields.ConfigError(f'config.image_shape={config.image_shape}; allowed: (H, W, C)')
  measured = plan.measured(config)
  gpu_traffic.library_of(config)
  rows, streams = plan.evaluate(config, all_networks(config), measured)
  plan.mark_pareto(rows)
  base = plan.mark_reductions(rows)
  run_folder.write_atomically(workdir / 'results.csv', to_csv(rows, COLUMNS))
  report.write(config, workdir, rows, base, measured, streams)
  run_folder.record(workdir, config)
  print((workdir / 'report.md').read_text())
  return rows
