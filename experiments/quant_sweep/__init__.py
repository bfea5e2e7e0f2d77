"""Which weight bitwidth is best at equal model size?

Trains one network at several weight bitwidths, each widened so that all have the same size in bits,
and ranks them by test accuracy (One Weight Bitwidth to Rule Them All, arXiv 2008.09916).

    python -m experiments.quant_sweep --config configs/quant_sweep.py --workdir runs/quant_sweep

The folder then holds config.json, records.jsonl, results.csv, report.md, pareto.png, and in
members/ the parameters of every network trained, which `training.load_member` reads. The same
command goes on where a killed run stopped.

Each core of a CPU, or each GPU, is a device with members of its own, and programs train side by
side; results are the same bytes on any number of devices of one kind.

Order on disk: a program's checkpoints while it trains; then its members' parameters; then their
records, in one append; then results.csv, report.md and pareto.png, rebuilt from all records; then
its checkpoints go. So a member on record has its parameters, and one that is not is trained on
from the last checkpoint.

Exit code 1 if no ranked member has an accuracy, as all diverged.
"""

import contextlib
import functools
import operator
import pathlib
import re
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_dict

from cnnopt_jax import data, training
from cnnopt_jax.report import records
from cnnopt_jax.training import load_member
from experiments.common import cores, costs, fields, inputs, launch, run_folder, stops
from experiments.quant_sweep import report, schedule
from experiments.quant_sweep.plan import SAME_RESULTS, SPEC, SweepMember, SweepPlan, make_plan

__all__ = ['SPEC', 'load_member', 'run']

# Folder of checkpoints, and its name in runs of earlier versions.
UNFINISHED, FORMERLY = 'unfinished', 'checkpoints'


class _Setting(NamedTuple):
  """What the programs of a run share.

  Attributes:
    plan: of the run.
    dataset: that all train on.
    workdir: folder of the run.
    progress: shows steps and epochs.
  """

  plan: SweepPlan
  dataset: data.Dataset
  workdir: pathlib.Path
  progress: report.SweepProgress

  def checkpoints(self, program: int) -> pathlib.Path:
    """Where a program's checkpoints lie."""
    return self.workdir / UNFINISHED / f'program{program}'


def run(config: config_dict.ConfigDict, workdir: pathlib.Path) -> list[dict[str, Any]] | int:
  """Trains what is not on record yet, and writes the results.

  Args:
    config: with the fields of `SPEC`, checked.
    workdir: folder of the run.

  Returns:
    One record a member, in the order of the plan; or an exit code where all diverged.

  Raises:
    ConfigError: before any training, if data are missing or no width meets a size.
  """
  costs_so_far = costs.Costs()
  devices = cores.devices(config.devices)
  dataset = inputs.load_data(config)
  plan = make_plan(config, dataset)
  environment = run_folder.claim(workdir, config, same_results=SAME_RESULTS)
  found = run_folder.read_records(workdir, report.COLUMNS)
  _rename_checkpoints(workdir)
  done = {record['name'] for record in found}
  progress = report.SweepProgress(plan, done)
  with progress, contextlib.ExitStack() as stack:
    setting = _Setting(plan, dataset, workdir, progress)
    programs = {
      index: (len(program), program[0].match.layers.macs)
      for index, program in enumerate(plan.programs)
      if not all(member.name in done for member in program)
    }
    train = functools.partial(_train_program, setting)
    try:
      # Closed, so that whatever goes wrong here makes the programs in training stop as well.
      results = stack.enter_context(
        contextlib.closing(schedule.side_by_side(train, programs, devices))
      )
      for index, new in results:
        # A kill between two lines of one append can leave some of a program's members on record.
        new = [record for record in new if record['name'] not in done]
        records.append(workdir / run_folder.RECORDS, new)
        found += new
        done |= {record['name'] for record in new}
        report.write(plan, found, environment, workdir, costs_so_far.sentence())
        shutil.rmtree(setting.checkpoints(index))
    except training.Stopped:
      stops.end_if_requested()
      raise
    except data.DataError as error:  # An image that cannot be decoded, say.
      raise inputs.data_error(config, error) from error
    except training.CheckpointError as error:
      raise fields.ConfigError(
        f'{error}; allowed: that folder deleted, so that its members are trained anew'
      ) from error
  # What a kill between a record and the removal of its checkpoints left there.
  for index in range(len(plan.programs)):
    shutil.rmtree(setting.checkpoints(index), ignore_errors=True)
  with contextlib.suppress(OSError):
    (workdir / UNFINISHED).rmdir()
  found = report.in_order(plan, found)
  report.write(plan, found, environment, workdir, costs_so_far.sentence())
  report.show(plan, found, workdir)
  print(costs_so_far.sentence())
  return found if report.has_ranking(found) else launch.FAILED_EXIT_CODE


def _rename_checkpoints(workdir: pathlib.Path) -> None:
  """Gives the checkpoints of a run of an earlier version their new name."""
  old = workdir / FORMERLY
  ours = old.is_dir() and all(re.fullmatch(r'program\d+', path.name) for path in old.iterdir())
  if ours and not (workdir / UNFINISHED).exists():
    old.rename(workdir / UNFINISHED)


def _train_program(
  setting: _Setting, index: int, devices: list[jax.Device], given_up: Callable[[], bool]
) -> list[dict[str, Any]]:
  """Trains the members of one program; saves their parameters; returns their records."""
  plan, dataset, progress = setting.plan, setting.dataset, setting.progress
  program = plan.programs[index]
  model, members = plan.model(program[0]), _as_arrays(program)

  def accuracies(state):
    variables = {'params': state.params, **state.statistics}
    return training.accuracies(
      model, variables, members.bits, dataset, plan.recipe.quantizer, devices=devices
    )

  of_epoch = {}

  def end_of_epoch(epoch, state):
    of_epoch[epoch] = accuracies(state)
    progress.epoch(program, epoch, of_epoch[epoch])

  checkpoints = training.Checkpoints(setting.checkpoints(index))
  stops.wait_for(lambda: checkpoints.unsaved)
  try:
    trained = training.train(
      model,
      plan.recipe,
      members,
      dataset,
      batch_size=plan.batch_size,
      checkpoints=checkpoints,
      checkpoint_steps=plan.checkpoint_steps,
      devices=devices,
      on_step=lambda step: progress.step(program, step),
      on_epoch=end_of_epoch,
      stop=lambda: stops.requested() or given_up(),
    )
  finally:
    checkpoints.close()
  state = trained.state
  final = of_epoch.get(plan.config.epochs)  # Unless a killed run took the last step.
  final = accuracies(state) if final is None else final
  new = []
  for member, variables, loss, accuracy, diverged_step in zip(
    program,
    _variables_of_each(state, program),
    state.loss_sum,
    final,
    state.diverged_step,
  ):
    training.save_variables(training.member_folder(setting.workdir, member.name), variables)
    if diverged_step < 0 and not all(map(_is_finite, (loss, *jax.tree.leaves(variables)))):
      diverged_step = plan.recipe.steps  # A loss that would come next, or the sum of the last ones.
    new.append(
      report.record(
        plan,
        member,
        train_loss=float(loss) / plan.recipe.steps_per_epoch,
        test_accuracy=float(accuracy),
        diverged_step=int(diverged_step),
        seconds=trained.seconds / len(program),
      )
    )
  return new


def _is_finite(array) -> bool:
  return bool(np.isfinite(array).all())


def _as_arrays(program: tuple[SweepMember, ...]) -> training.Members:
  """What tells the members apart, as the training step takes it."""
  return training.Members(
    seed=jnp.asarray([member.seed for member in program], jnp.int32),
    bits=jnp.asarray([member.bits for member in program], jnp.int32),
    learning_rate=jnp.asarray([member.learning_rate for member in program], jnp.float32),
  )


def _variables_of_each(state: training.TrainState, program: tuple[SweepMember, ...]):
  """Yields the variables of every member, without their leading axis."""
  for index in range(len(program)):
    yield jax.tree.map(operator.itemgetter(index), {'params': state.params, **state.statistics})
