"""Virtual pooling of one network: the knob between speed, energy and accuracy.

    python -m experiments.vip --config configs/vip_vgg.py --workdir runs/vip_vgg

Trains the dense network, measures what each conv unit alone saves in time and costs in accuracy,
orders the units by accuracy lost per millisecond saved, makes them virtual group by group with
fine-tuning after each (ViP, arXiv 1906.07912), compares the order with random plans image by
image, bounds the interpolation error, and ends with accuracy against latency, multiply-accumulates
and energy, one point a round. What fine-tuning alone gains is told apart by a `control`: the dense
network, fine-tuned just as long. Below 32 `bits` everything trains with quantized weights, and is
measured with the weights that this leaves; convolutions compute in float32 all the same. What a
round loses to its control is bounded from the test images, on which nothing was chosen.

The folder holds config.json, records.jsonl (one line for each finished stage), results.csv,
report.md, pareto.png and every network. The same command goes on where a killed run stopped.
"""

import pathlib

from ml_collections import config_dict

from cnnopt_jax import data, training, vip
from cnnopt_jax.report import Progress
from experiments.common import fields, inputs, run_folder, stops
from experiments.vip import report, stages
from experiments.vip.plan import SPEC, Setting, make_setting
from experiments.vip.records import (
  Cost,
  DenseAccuracy,
  ErrorBounds,
  FineTuned,
  Latency,
  RandomPlans,
  Results,
  Sensitivity,
  StageRecords,
)

__all__ = ['SPEC', 'run']


def run(config: config_dict.ConfigDict, workdir: pathlib.Path) -> Results:
  """Runs the stages that are not on record yet, and writes the report.

  Args:
    config: with the fields of `SPEC`, checked.
    workdir: folder of the run.

  Returns:
    What all stages found.

  Raises:
    ConfigError: before any training, if data are missing or a number exceeds what there is.
  """
  setting = make_setting(config, workdir, Progress(), stops.requested)
  environment = run_folder.claim(workdir, config)
  records = StageRecords(workdir)
  try:
    with setting.progress:
      results = _run_stages(setting, records)
  except training.Stopped:
    stops.end_if_requested()
    raise
  except data.DataError as error:
    raise inputs.data_error(config, error) from error
  except training.CheckpointError as error:
    raise fields.ConfigError(
      f'{error}; allowed: that folder deleted, so that its networks are trained anew'
    ) from error
  report.write(setting, results, environment)
  report.show(setting, results)
  return results


def _run_stages(setting: Setting, records: StageRecords) -> Results:
  """Every stage in turn; those on record are read."""
  stage, config = records.stage, setting.config
  state = stages.train(setting, 'dense')
  dense = stage('dense', DenseAccuracy, lambda: stages.measure_dense(setting, state))
  latency = stage('latency', Latency, lambda: stages.measure_latency(setting, state))
  sensitivity = stage(
    'sensitivity', Sensitivity, lambda: stages.measure_sensitivity(setting, state)
  )
  order = vip.order_units(setting.units, sensitivity.losses, latency.saved_ms)
  random = stage('random', RandomPlans, lambda: stages.compare_with_random(setting, state, order))
  bound = stage('bound', ErrorBounds, lambda: stages.measure_bounds(setting, state))
  plans = vip.cumulative_plans(order, config.rounds)
  rounds, controls, tuned, control = [], [], state, state
  for i, plan in enumerate(plans, 1):
    found, tuned = _fine_tune(setting, records, f'round{i}', plan, tuned)
    rounds.append(found)
    if config.control:
      found, control = _fine_tune(setting, records, f'control{i}', (), control)
      controls.append(found)
  cost = stage('cost', Cost, lambda: stages.measure_cost(setting, state, [(), *plans]))
  return Results(dense, latency, sensitivity, random, bound, tuple(rounds), tuple(controls), cost)


def _fine_tune(
  setting: Setting,
  records: StageRecords,
  name: str,
  plan: vip.Plan,
  before: training.TrainState,
) -> tuple[FineTuned, training.TrainState]:
  """Trains every member on under a plan; returns its accuracies and the new state."""
  after = stages.train(setting, name, plan=plan, previous=before)
  measured = records.stage(
    name, FineTuned, lambda: stages.measure_fine_tuned(setting, plan, before, after)
  )
  return measured, after
