"""Networks on last-level caches of SRAM, STT and SOT: energy, delay, EDP and area.

    python -m experiments.nvm_eval --config configs/nvm_iso_capacity.py --workdir runs/iso_capacity
    python -m experiments.nvm_eval --config configs/nvm_iso_area.py --workdir runs/iso_area
    python -m experiments.nvm_eval --config configs/nvm_scaling.py --workdir runs/scaling
    python -m experiments.nvm_eval --config configs/nvm_batch.py --workdir runs/batch

Every figure comes twice: from DeepNVM++'s caches as recalled, unverified (source `published`), and
from this library's own cache model (source `model`). L2 and DRAM accesses are this library's
traffic model in both; `profile` names finished profiles, WORKLOAD.MODE.BATCH.GPU.csv with MODE
inference or training, whose counters stand in for the model in their cases. DRAM's counts hold for
the L2 of that GPU, which `gpu` has to name: for other capacities they are scaled by the model's
ratio.

`gpu` is a key of `traffic.GPUS` or a dict of figures of your own, with a `base` for the others,
such as {'base': 'v100', 'l2_bytes': 8388608}. `library`, `math` and `algorithms` say what runs on
it, as in `experiments.nvm_profile`. A profile that `algorithms` names gives the layers of its
workload the algorithms of its kernels; `layers` says which launches are of which, '' by NVTX
ranges.

Writes `results.csv`, `report.md`, plots and `config.json`.
"""

import pathlib
from typing import Any

from ml_collections import config_dict

from cnnopt_jax.report import to_csv
from experiments.common import fields, gpu_traffic, run_folder
from experiments.nvm_eval import plan, report
from experiments.nvm_eval.plan import COLUMNS, SPEC

__all__ = ['COLUMNS', 'SPEC', 'run']


def run(config: config_dict.ConfigDict, workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Evaluates, writes the files and returns the rows of results.csv."""
  if not config.inference_batches and not config.training_batches:
    raise fields.ConfigError(
      'config.inference_batches=(): and config.training_batches=(): '
      'allowed: at least one batch size in one of them'
    )
  measured = plan.measured(config)  # Before the long work: it may be refused.
  gpu_traffic.library_of(config)
  asked = plan.algorithms(config)
  caches = plan.all_caches(config)
  found = plan.evaluate(config, caches, measured, asked)
  rows = plan.as_rows(caches, found)
  run_folder.write_atomically(workdir / 'results.csv', to_csv(rows, COLUMNS))
  report.write(config, workdir, rows, caches, plan.all_traffic(found))
  run_folder.record(workdir, config)
  print((workdir / 'report.md').read_text())
  return rows
