"""Virtual pooling of one network: the knob between speed, energy and accuracy.

    python -m experiments.vip --config configs/vip_vgg.py --workdir runs/vip_vgg

Trains the dense network, measures what each conv unit alone saves in time and costs in accuracy,
orders the units by accuracy lost per millisecond saved, makes them virtual group by group with
fine-tuning after each (ViP, arXiv 1906.07912), compares the order with random plans image by
image, bounds the interpolation error, and ends with accuracy against latency, multiply-accumulates
and energy, one point a round. What fine-tuning alone gains is told apart by a `control`: the dense
network, fine-tuned just as long. Below 32 `bits` everything trains with quantized weights, and is
measured with the weights that this leaves; convolutions compute in float32 all the same.

The folder holds config.json, records.jsonl (one line for each finished stage), results.csv,
report.md, pareto.png and every network. The same command goes on where a killed run stopped.
"""

import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import config_dict

from cnnopt_jax import data, measure, models, quant, report, training, vip
from cnnopt_jax.quant import LEAVE_ALONE, Rule
from experiments import vip_bounds, vip_report
from experiments.common import fields, huge_pages, inputs, launch, run_folder
from experiments.common.fields import boolean, integer, number, one_of, tuple_of

FLOAT_BITS = 32
IN_FLOAT = quant.Quantizer(rules=(Rule('', LEAVE_ALONE),))
SPEC = {
  'model': one_of(*models.MODELS),
  'width_multiplier': number(0, above=True),
  'bits': one_of(*range(1, 9), FLOAT_BITS),
  **inputs.SPEC,
  'seeds': tuple_of(integer(0, 2**31 - 1)),
  'epochs': integer(1),
  'batch_size': integer(1),
  'learning_rate': number(0, above=True),
  'momentum': number(0, 1),
  'weight_decay': number(0),
  'label_smoothing': number(0, 1),
  'shift': integer(0, 64),
  'flip': boolean(),
  'checkpoint_steps': integer(0),
  'rounds': integer(1),
  'fine_tune_epochs': integer(1),
  'fine_tune_learning_rate': number(0, above=True),
  'control': boolean(),
  'sensitivity_images': integer(1),
  'random_plans': integer(1),
  'bound_images': integer(1),
  'timing_batch': integer(1),
  'timing_rounds': integer(1),
  'energy_seconds': number(0, above=True),
}
PREDICT_BATCH = 500


class Run:
  """One run: what its stages share, and the records of those that are finished."""

  def __init__(self, config: config_dict.ConfigDict, workdir: pathlib.Path, terminated):
    self.config, self.workdir, self.terminated = config, workdir, terminated
    self.dataset = inputs.load_data(config)
    self.model = models.create(
      config.model, num_classes=self.dataset.num_classes, width_multiplier=config.width_multiplier
    )
    self.units = models.unit_names(self.model)
    self.quantizer = IN_FLOAT if config.bits == FLOAT_BITS else quant.Quantizer()
    self._check()
    self.environment = run_folder.claim(workdir, config)
    try:
      self.records = {r['name']: r for r in report.records.read(workdir / run_folder.RECORDS)}
    except ValueError as error:
      raise fields.ConfigError(f'{error}; allowed: another --workdir') from None
    self.progress = vip_report.Progress()

  def _check(self):
    config = self.config
    for field, limit, what in (
      ('rounds', len(self.units), f'the {len(self.units)} conv units of {config.model}'),
      ('batch_size', len(self.dataset.train), 'the number of training images'),
      ('sensitivity_images', len(self.dataset.train), 'the number of training images'),
      ('bound_images', len(self.dataset.test), 'the number of test images'),
    ):
      if config[field] > limit:
        raise fields.ConfigError(
          f'config.{field}={config[field]}; allowed: at most {what}, {limit}'
        )

  def stage(self, name: str, function) -> dict[str, Any]:
    """The record of a stage, from the file or by running it."""
    if name not in self.records:
      record = {'name': name, **function()}
      report.records.append(self.workdir / run_folder.RECORDS, [record])
      self.records[name] = record
    return self.records[name]

  def plans(self) -> tuple[vip.Plan, ...]:
    """The plan of every round, once the units are measured."""
    losses, saved = self.records['sensitivity']['losses'], self.records['latency']['saved_ms']
    return vip.cumulative_plans(vip.order_units(self.units, losses, saved), self.config.rounds)

  def train(
    self,
    name: str,
    model: nn.Module,
    epochs: int,
    learning_rate: float,
    previous: training.TrainState | None,
  ) -> training.TrainState:
    """Trains the members, one a seed, from the last checkpoint; a finished one is only read."""
    config, dataset = self.config, self.dataset
    steps_per_epoch = len(dataset.train) // config.batch_size
    recipe = training.Recipe(
      steps=epochs * steps_per_epoch,
      steps_per_epoch=steps_per_epoch,
      momentum=config.momentum,
      weight_decay=config.weight_decay,
      label_smoothing=config.label_smoothing,
      shift=config.shift,
      flip=config.flip,
      mean=dataset.mean,
      std=dataset.std,
      quantizer=self.quantizer,
    )
    seeds = jnp.asarray(config.seeds, jnp.int32)
    members = training.Members(
      seeds, jnp.full_like(seeds, config.bits), jnp.full(seeds.shape, learning_rate, jnp.float32)
    )
    initial = None
    if previous is not None:
      fresh = training.init_state(model, recipe, members, dataset.image_shape)
      initial = fresh._replace(params=previous.params, statistics=previous.statistics)
    checkpoints = training.Checkpoints(self.workdir / 'networks' / name)
    try:
      with self.progress.stage(f'{name}: training', recipe.steps) as at:
        return training.train(
          model,
          recipe,
          members,
          dataset,
          batch_size=config.batch_size,
          checkpoints=checkpoints,
          checkpoint_steps=config.checkpoint_steps,
          initial=initial,
          on_step=at,
          stop=self.terminated,
        ).state
    finally:
      checkpoints.close()

  def accuracies(self, model: nn.Module, state: training.TrainState) -> list[float]:
    """Test accuracy of every member."""
    return [
      training.accuracy(model, member, FLOAT_BITS, self.dataset, IN_FLOAT)
      for member in self.members(state)
    ]

  def members(self, state: training.TrainState) -> list[dict[str, Any]]:
    """Variables that every member infers with: its weights are quantized."""
    pick = lambda i: jax.tree.map(lambda x: x[i], (state.params, state.statistics))
    return [
      {'params': self.quantizer(params, self.config.bits), **statistics}
      for params, statistics in map(pick, range(len(self.config.seeds)))
    ]

  def correct(
    self, state: training.TrainState, plans, split: data.Split, count: int, stage: str
  ) -> np.ndarray:
    """Whether each member under each plan classifies each of the first images, [P, M, N]."""
    predict = vip.make_predictor(
      lambda v, x: self.model.apply(v, data.normalize(x, self.dataset.mean, self.dataset.std)),
      self.units,
    )
    masks, members = vip.plan_masks(self.units, plans), self.members(state)
    correct = np.zeros((len(plans), len(members), count), bool)
    with self.progress.stage(stage, len(plans) * len(members)) as at:
      for p, mask in enumerate(masks):
        for m, variables in enumerate(members):
          for start in range(0, count, PREDICT_BATCH):
            # The last batch is filled up with the first images: one shape, one program.
            indices = np.arange(start, start + PREDICT_BATCH) % count
            images, labels = split.get(indices)
            right = np.asarray(predict(variables, mask, images)) == labels
            end = min(start + PREDICT_BATCH, count)
            correct[p, m, start:end] = right[: end - start]
          at(p * len(members) + m + 1)
    return correct

  def programs(self, state: training.TrainState, plans) -> list:
    """Inference of the first member under each plan, prepared, as functions without arguments."""
    shape = self.dataset.image_shape
    images = jax.random.normal(jax.random.key(0), (self.config.timing_batch, *shape))
    variables = self.members(state)[0]

    def program(plan):
      model = models.with_plan(self.model, plan)
      prepared = {**variables, 'params': models.inference_params(model, variables['params'], shape)}
      apply = jax.jit(model.apply)
      return lambda: apply(prepared, images)

    return [program(plan) for plan in plans]


def measure_latency(run: Run, state: training.TrainState) -> dict[str, Any]:
  """Milliseconds that each unit alone saves."""
  programs = run.programs(state, [(), *((unit,) for unit in run.units)])
  with run.progress.stage('latency of each unit', 1) as at:
    seconds = measure.interleaved_seconds(
      dict(enumerate(programs)), rounds=run.config.timing_rounds
    )
    at(1)
  dense, *alone = (1e3 * measure.summarize(s).median_s for s in seconds.values())
  return dict(dense_ms=dense, saved_ms=[dense - ms for ms in alone])


def measure_sensitivity(run: Run, state: training.TrainState) -> dict[str, Any]:
  """Accuracy that each unit alone loses, without fine-tuning, mean over seeds."""
  plans = [(), *((unit,) for unit in run.units)]
  correct = run.correct(
    state, plans, run.dataset.train, run.config.sensitivity_images, 'sensitivity of each unit'
  )
  dense, *alone = correct.mean((1, 2))
  return dict(dense_accuracy=float(dense), losses=[float(dense - a) for a in alone])


def compare_with_random(run: Run, state: training.TrainState) -> dict[str, Any]:
  """The ordered plan against random ones of the same number of units, without fine-tuning."""
  random = vip.random_plans(0, run.units, run.config.random_plans)
  order = vip.order_units(
    run.units, run.records['sensitivity']['losses'], run.records['latency']['saved_ms']
  )
  ordered = [tuple(order[: len(plan)]) for plan in random]
  correct = run.correct(
    state, [*random, *ordered], run.dataset.test, len(run.dataset.test), 'random plans'
  )
  theirs, ours = correct[: len(random)], correct[len(random) :]
  ms = [
    1e3 * measure.summarize(s).median_s
    for s in measure.interleaved_seconds(
      dict(enumerate(run.programs(state, [*random, *ordered]))),
      rounds=max(1, run.config.timing_rounds // 3),
    ).values()
  ]
  each = [vip.paired_difference(a, b)._asdict() for a, b in zip(ours, theirs)]
  return dict(
    plans=[list(plan) for plan in random],
    random_accuracy=theirs.mean((1, 2)).tolist(),
    ordered_accuracy=ours.mean((1, 2)).tolist(),
    differences=each,
    difference=vip.paired_difference(ours, theirs)._asdict(),
    random_ms=ms[: len(random)],
    ordered_ms=ms[len(random) :],
  )


def measure_cost(run: Run, state: training.TrainState, plans) -> dict[str, Any]:
  """Time, multiply-accumulates and energy of the dense network and every round, in one run."""
  programs = run.programs(state, plans)
  meter = measure.find_meter()
  with run.progress.stage('time and energy of each round', 1) as at:
    seconds = measure.interleaved_seconds(
      dict(enumerate(programs)), rounds=run.config.timing_rounds
    )
    energies = [
      measure.measure_energy(program, meter, seconds=run.config.energy_seconds)
      for program in programs
    ]
    at(1)
  table = models.layer_table(run.model, run.dataset.image_shape)
  rows = []
  for plan, s, energy in zip(plans, seconds.values(), energies):
    model = models.with_plan(run.model, plan)
    work = measure.layer_work(
      table,
      virtual=plan,
      readers=models.virtual_inputs(model, run.dataset.image_shape),
      weight_bits=run.config.bits,
    )
    timing = measure.summarize(s)
    joules = energy.measured_energy_j
    rows.append(
      dict(
        latency_ms=1e3 * timing.median_s,
        latency_p25_ms=1e3 * timing.lower_quartile_s,
        latency_p75_ms=1e3 * timing.upper_quartile_s,
        macs=float(np.sum(work.macs)),
        energy_source=energy.source,
        measured_energy_mj=None if joules is None else 1e3 * joules / run.config.timing_batch,
        modelled_energy_mj=1e3
        * measure.model_energy(work, measure.horowitz_costs()).modelled_energy_j,
        written_maps=len(
          vip.written_maps(
            model.apply, run.members(state)[0], jnp.zeros((1, *run.dataset.image_shape))
          )
        ),
      )
    )
  reason = meter.reason if isinstance(meter, measure.NotMeasured) else ''
  return dict(rows=rows, energy_not_measured=reason)


def run(config: config_dict.ConfigDict, workdir: pathlib.Path) -> dict[str, Any] | int:
  """Runs the stages that are not on record yet, and writes the report.

  Args:
    config: with the fields of `SPEC`, checked.
    workdir: folder of the run.

  Returns:
    The records by stage; or an exit code after SIGTERM.

  Raises:
    ConfigError: before any training, if data are missing or a number exceeds what there is.
  """
  with launch.sigterm_sets_flag() as terminated:
    run = Run(config, workdir, terminated)
    try:
      with run.progress:
        _stages(run)
    except training.Stopped:
      print(f'stopped by SIGTERM; the same command goes on from {workdir}', file=sys.stderr)
      return launch.SIGTERM_EXIT_CODE
    except data.DataError as error:
      raise inputs.data_error(config, error) from error
  vip_report.write(run)
  vip_report.show(run)
  return run.records


def _stages(run: Run) -> None:
  config = run.config
  state = run.train('dense', run.model, config.epochs, config.learning_rate, None)
  run.stage('dense', lambda: dict(accuracies=run.accuracies(run.model, state)))
  run.stage('latency', lambda: measure_latency(run, state))
  run.stage('sensitivity', lambda: measure_sensitivity(run, state))
  run.stage('random', lambda: compare_with_random(run, state))
  run.stage('bound', lambda: vip_bounds.measure(run, state))
  plans = run.plans()
  tuned = control = state
  for i, plan in enumerate(plans, 1):
    tuned = fine_tune(run, f'round{i}', plan, tuned)
    if config.control:
      control = fine_tune(run, f'control{i}', (), control)
  run.stage('cost', lambda: measure_cost(run, state, [(), *plans]))


def fine_tune(
  run: Run, name: str, plan: vip.Plan, before: training.TrainState
) -> training.TrainState:
  """Trains every member on under a plan, and records its accuracy before and after."""
  model, config = models.with_plan(run.model, plan), run.config
  untuned = run.accuracies(model, before) if name not in run.records else []
  # The training step gives up the memory of what it starts from.
  after = run.train(
    name,
    model,
    config.fine_tune_epochs,
    config.fine_tune_learning_rate,
    jax.tree.map(jnp.copy, before),
  )
  run.stage(
    name,
    lambda: dict(
      plan=list(plan), accuracies_before=untuned, accuracies=run.accuracies(model, after)
    ),
  )
  return after


if __name__ == '__main__':
  huge_pages.use_huge_pages()
  launch.main(run, SPEC, 'configs/vip_vgg.py', 'runs/vip_vgg')
