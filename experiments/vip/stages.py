"""The stages of a run: functions of a setting, a trained state and what earlier stages found."""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from cnnopt_jax import data, measure, models, quant, training, vip
from cnnopt_jax.vip import bounds
from experiments.common import fields, stops, sweeps
from experiments.vip.plan import Setting
from experiments.vip.records import (
  Cost,
  DenseAccuracy,
  ErrorBounds,
  FineTuned,
  Latency,
  PlanCost,
  RandomPlans,
  Sensitivity,
)


def train(
  setting: Setting,
  name: str,
  *,
  plan: vip.Plan = (),
  previous: training.TrainState | None = None,
) -> training.TrainState:
  """Trains the members, one a seed, from the last checkpoint; a finished one is only read.

  Args:
    setting: of the run.
    name: of the stage, and of its folder under networks/.
    plan: virtual units.
    previous: whose weights are fine-tuned; None to train from random ones.

  Returns:
    The trained state.

  Raises:
    Stopped: after a signal; the state is in a checkpoint.
    CheckpointError: if the checkpoint is damaged.
    ConfigError: if a member diverged.
  """
  config, dataset = setting.config, setting.dataset
  model = models.with_plan(setting.model, plan)
  fine_tuning = previous is not None
  epochs = config.fine_tune_epochs if fine_tuning else config.epochs
  rate = config.fine_tune_learning_rate if fine_tuning else config.learning_rate
  recipe = sweeps.recipe_of(config, dataset, epochs, quant.GAUSSIAN)
  seeds = jnp.asarray(config.seeds, jnp.int32)
  bits = None if setting.bits is None else jnp.full_like(seeds, setting.bits)
  members = training.Members(seeds, bits, jnp.full(seeds.shape, rate, jnp.float32))
  initial = None
  if fine_tuning:
    trained = {'params': previous.params, **previous.statistics}
    initial = training.init_state(model, recipe, members, dataset.image_shape, variables=trained)
  checkpoints = training.Checkpoints(setting.workdir / 'networks' / name)
  stops.wait_for(lambda: checkpoints.unsaved)
  try:
    state = training.train(
      model,
      recipe,
      members,
      dataset,
      batch_size=config.batch_size,
      checkpoints=checkpoints,
      checkpoint_steps=config.checkpoint_steps,
      initial=initial,
      on_step=setting.progress.bar(f'{name}: training', recipe.steps),
      stop=setting.stop,
    ).state
  finally:
    checkpoints.close()
  diverged = [seed for seed, step in zip(config.seeds, state.diverged_step) if step >= 0]
  if diverged:  # Nothing that is measured of these networks would mean anything.
    field = 'fine_tune_learning_rate' if fine_tuning else 'learning_rate'
    raise fields.ConfigError(
      f'config.{field}={rate:g}: {name} diverged with seeds {", ".join(map(str, diverged))}; '
      'allowed: a smaller one, or other seeds, with another --workdir'
    )
  return state


def inference_variables(setting: Setting, state: training.TrainState) -> list[dict[str, Any]]:
  """Variables that every member infers with: its weights are quantized."""
  plan = models.weight_plan(setting.model, setting.dataset.image_shape, quant.GAUSSIAN)
  found = []
  for i in range(len(setting.config.seeds)):
    params, others = jax.tree.map(operator.itemgetter(i), (state.params, state.statistics))
    found.append({'params': quant.quantize_params(params, setting.bits, plan), **others})
  return found


def correctness(setting: Setting, state: training.TrainState, plan: vip.Plan) -> np.ndarray:
  """Whether every member under a plan classifies each test image, bool [M, images]."""
  model = models.with_plan(setting.model, plan)
  found = [
    training.correctness(model, jax.tree.map(lambda x: x[None], variables), None, setting.dataset)
    for variables in inference_variables(setting, state)
  ]
  return np.concatenate(found)


def measure_dense(setting: Setting, state: training.TrainState) -> DenseAccuracy:
  """Accuracy without virtual units."""
  return DenseAccuracy(_accuracies(correctness(setting, state, ())))


def measure_latency(setting: Setting, state: training.TrainState) -> Latency:
  """Milliseconds that each unit alone saves."""
  programs = _programs(setting, state, [(), *((unit,) for unit in setting.units)])
  at = setting.progress.bar('latency of each unit', 1)
  dense, *alone = _milliseconds(programs, setting.config.timing_rounds)
  at(1)
  return Latency(dense, tuple(dense - ms for ms in alone))


def measure_sensitivity(setting: Setting, state: training.TrainState) -> Sensitivity:
  """Accuracy that each unit alone loses, without fine-tuning, mean over seeds."""
  plans = [(), *((unit,) for unit in setting.units)]
  count = setting.config.sensitivity_images
  # Training images: the order is not fitted to the test.
  correct = _correct(
    setting, state, plans, setting.dataset.train, count, 'sensitivity of each unit'
  )
  dense, *alone = correct.mean((1, 2)).tolist()
  return Sensitivity(dense, tuple(dense - accuracy for accuracy in alone))


def compare_with_random(
  setting: Setting, state: training.TrainState, order: Sequence[str]
) -> RandomPlans:
  """The ordered plan against random ones of the same number of units, without fine-tuning.

  Args:
    setting: of the run.
    state: of the dense network.
    order: units, the first to become virtual first.

  Returns:
    Accuracies, paired differences and milliseconds.
  """
  random = vip.random_plans(0, setting.units, setting.config.random_plans)
  ordered = [tuple(order[: len(plan)]) for plan in random]
  plans, test = [*random, *ordered], setting.dataset.test
  correct = _correct(setting, state, plans, test, len(test), 'random plans')
  theirs, ours = correct[: len(random)], correct[len(random) :]
  # Times are an aside here: a third of the rounds.
  rounds = max(1, setting.config.timing_rounds // 3)
  ms = _milliseconds(_programs(setting, state, plans), rounds)
  return RandomPlans(
    plans=random,
    random_accuracy=tuple(theirs.mean((1, 2)).tolist()),
    ordered_accuracy=tuple(ours.mean((1, 2)).tolist()),
    differences=tuple(vip.paired_difference(a, b) for a, b in zip(ours, theirs)),
    difference=vip.paired_difference(ours, theirs),
    random_ms=ms[: len(random)],
    ordered_ms=ms[len(random) :],
  )


def measure_bounds(setting: Setting, state: training.TrainState) -> ErrorBounds:
  """Bounds of every unit of the first member, and of the chain where the units are one."""
  dataset = setting.dataset
  images, _ = dataset.test.get(np.arange(setting.config.bound_images))
  images = data.normalize(images, dataset.mean, dataset.std)
  variables, rows = inference_variables(setting, state)[0], []
  at = setting.progress.bar('error bound of each unit', len(setting.units))
  for layer in models.bounded_layers(setting.model, variables, images):
    rows += bounds.bound_report([layer])
    at(len(rows))
  chain = models.chain_bound(setting.model, variables, images)
  return ErrorBounds(tuple(rows), chain and tuple(chain))


def measure_fine_tuned(
  setting: Setting,
  plan: vip.Plan,
  before: training.TrainState,
  after: training.TrainState,
) -> FineTuned:
  """Accuracy under a plan before and after the members were trained on under it."""
  untuned, tuned = (correctness(setting, state, plan) for state in (before, after))
  return FineTuned(plan, _accuracies(untuned), _accuracies(tuned), tuned)


def _accuracies(correct: np.ndarray) -> tuple[float, ...]:
  return tuple((correct.sum(-1) / correct.shape[-1]).tolist())


def measure_cost(setting: Setting, state: training.TrainState, plans: Sequence[vip.Plan]) -> Cost:
  """Time, multiply-accumulates and energy of the first member under each plan, in one run."""
  config = setting.config
  programs = _programs(setting, state, plans)
  meter = measure.find_meter()
  at = setting.progress.bar('time and energy of each round', 1)
  seconds = measure.interleaved_seconds(dict(enumerate(programs)), rounds=config.timing_rounds)
  energies = [
    measure.measure_energy(program, meter, seconds=config.energy_seconds) for program in programs
  ]
  at(1)
  timings = map(measure.summarize, seconds.values())
  rows = tuple(
    _plan_cost(setting, state, plan, timing, energy)
    for plan, timing, energy in zip(plans, timings, energies)
  )
  return Cost(rows, meter.reason if isinstance(meter, measure.NotMeasured) else '')


def _plan_cost(setting, state, plan, timing, energy) -> PlanCost:
  shape = setting.dataset.image_shape
  model = models.with_plan(setting.model, plan)
  work = measure.layer_work(
    models.layer_table(setting.model, shape),
    virtual=plan,
    readers=models.virtual_inputs(model, shape),
    weight_bits=setting.config.bits,
  )
  modelled = measure.model_energy(work, measure.horowitz_costs())
  joules = energy.measured_energy_j
  variables = inference_variables(setting, state)[0]
  return PlanCost(
    latency_ms=1e3 * timing.median_s,
    latency_p25_ms=1e3 * timing.lower_quartile_s,
    latency_p75_ms=1e3 * timing.upper_quartile_s,
    macs=float(np.sum(work.macs)),
    energy_source=energy.source,
    measured_energy_mj=None if joules is None else 1e3 * joules / setting.config.timing_batch,
    modelled_energy_mj=1e3 * modelled.modelled_energy_j,
    written_maps=len(vip.written_maps(model.apply, variables, jnp.zeros((1, *shape)))),
  )


def _correct(
  setting: Setting,
  state: training.TrainState,
  plans: Sequence[vip.Plan],
  split: data.Split,
  count: int,
  description: str,
) -> np.ndarray:
  """Whether each member under each plan classifies each of the first images, [P, M, count]."""
  mean, std = setting.dataset.mean, setting.dataset.std

  def apply(variables, images):
    return setting.model.apply(variables, data.normalize(images, mean, std))

  predict = vip.make_predictor(apply, setting.units)
  members = inference_variables(setting, state)
  correct = np.zeros((len(plans), len(members), count), bool)
  at = setting.progress.bar(description, len(plans) * len(members))
  for p, mask in enumerate(vip.plan_masks(setting.units, plans)):
    for m, variables in enumerate(members):
      predict_images = functools.partial(predict, variables, mask)
      correct[p, m] = training.correct_predictions(predict_images, split, count=count)
      at(p * len(members) + m + 1)
  return correct


def _programs(
  setting: Setting, state: training.TrainState, plans: Sequence[vip.Plan]
) -> list[Callable[[], jax.Array]]:
  """Inference of the first member under each plan, prepared, as functions without arguments."""
  shape = setting.dataset.image_shape
  images = jax.random.normal(jax.random.key(0), (setting.config.timing_batch, *shape))
  variables = inference_variables(setting, state)[0]

  def program(model: nn.Module):
    params = models.inference_params(model, variables['params'], shape)
    return functools.partial(jax.jit(model.apply), {**variables, 'params': params}, images)

  return [program(models.with_plan(setting.model, plan)) for plan in plans]


def _milliseconds(programs: Sequence[Callable[[], Any]], rounds: int) -> tuple[float, ...]:
  """Median time of a call of each, in turn."""
  seconds = measure.interleaved_seconds(dict(enumerate(programs)), rounds=rounds)
  return tuple(1e3 * measure.summarize(s).median_s for s in seconds.values())
