"""Measures L2 and DRAM transactions on a GPU with hardware counters, beside the traffic model's.

    python -m experiments.nvm_profile --config configs/nvm_profile.py --workdir runs/nvm_profile

Runs every workload once under Nsight Compute (`ncu`) or nvprof, whichever is on the PATH, after a
run that compiles. Caches are kept between kernels, as in a run, and `ncu` fixes the clock. Where
there is no such tool, no GPU, or no right to read its counters, it says so in one line and exits
with 1.

`profiles` compares finished profiles instead: names of CSV files, WORKLOAD.MODE.BATCH.csv or
WORKLOAD.MODE.BATCH.GPU.csv, or any names with what they cover in `profile_workload`,
`profile_mode`, `profile_batch` and `profile_gpu`. MODE says which part of the model is compared:
inference, training (a step with the update of SGD with momentum), forward, backward (the gradients
alone), or forward_backward. A profile of another GPU than `gpu`, whose kernels do not fit its mode,
or without any of the four counters is refused. A counter that the profile lacks is listed as
missing.

`layers` compares layer by layer too: 'nvtx' by the NVTX ranges of the profile; 'order' where it is
of the forward pass of a program that fuses nothing between its convolutions; or the path of a file
that says which launches are of which layer, lines such as 'conv1_1 0-2' or, of one kind of kernel
in a training step, 'conv1_1:weight_gradient 278-279'.

`gpu` is a key of `traffic.GPUS` or a dict of figures of your own, with a `base` for the others,
such as {'base': 'v100', 'l2_bytes': 8388608}. `library` ('pytorch', 'xla') and `math` ('float32',
'tf32', 'bfloat16') say what ran; what is run here is JAX's, so that `library` has to be 'xla' then.
`algorithms` gives layers an algorithm, as in
'conv1_1=implicit_gemm,conv2_1:weight_gradient=winograd_nonfused'; 'profile' gives them those of the
kernels of the profile that is compared, and the path of another profile those of its own, both
grouped as `layers` says. '' leaves them to the library.

Time is compared too where the profile has it: of all launches, with the model's roofline. Writes
`results.csv`, `report.md` and with `layers` also `layers.csv`
and `layers.png`. A total that the model misses
by more than a factor of `bound` is a warning on stderr and in the report, and with `strict` such a
total, or a missing counter, ends in exit code 3.
"""

import pathlib
import sys

from ml_collections import config_dict

from cnnopt_jax import models
from cnnopt_jax.report import to_csv
from experiments.common import fields, gpu_traffic, profiles, reports, run_folder
from experiments.nvm_profile import comparison, measuring, report
from experiments.nvm_profile.comparison import COLUMNS, LAYER_COLUMNS
from experiments.nvm_profile.measuring import execute

__all__ = ['COLUMNS', 'DISAGREES', 'LAYER_COLUMNS', 'NO_COUNTERS', 'SPEC', 'execute', 'run']

SPEC = {
  'workloads': fields.tuple_of(fields.one_of(*models.MODELS)),
  'inference_batch': fields.integer(0, 4096),
  'training_batch': fields.integer(0, 4096),
  **gpu_traffic.SPEC,
  'profiles': profiles.FILES,
  **profiles.SPEC,
  'bound': fields.number(1, above=True),
  'strict': fields.boolean(),
}
NO_COUNTERS, DISAGREES = 1, 3


def run(config: config_dict.ConfigDict, workdir: pathlib.Path) -> int:
  """Measures or reads profiles, compares, writes the files; returns the exit code."""
  gpu_traffic.library_of(config)
  try:
    found = (
      profiles.read(config, 'profiles')
      if config.profiles
      else measuring.measure_all(config, workdir)
    )
  except measuring.NoCountersError as error:
    print(f'not measured: {error}', file=sys.stderr)
    return NO_COUNTERS
  # All are checked before the first is predicted, which takes long.
  prepared = comparison.prepare(config, found)
  rows, layers, streams = [], [], []
  for one in prepared:
    streams.append(comparison.modelled(config, one))
    rows += comparison.compare(config, one, streams[-1])
    layers += comparison.compare_layers(config, one, streams[-1]) if config.layers else []
  run_folder.write_atomically(workdir / 'results.csv', to_csv(rows, COLUMNS))
  warnings = report.warnings_of(config, rows)
  parts = report.as_report(config, found, streams, rows, warnings)
  if layers:
    run_folder.write_atomically(workdir / 'layers.csv', to_csv(layers, LAYER_COLUMNS))
    report.draw_layers(workdir / 'layers.png', layers)
    parts += report.by_layer(layers)
  reports.write(workdir, parts)
  run_folder.record(workdir, config)
  print('\n'.join(parts))
  for warning in warnings:
    print(f'warning: {warning}', file=sys.stderr)
  return DISAGREES if config.strict and any(map(comparison.disagrees, rows)) else 0
