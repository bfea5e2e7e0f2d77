"""Which weight bitwidth is best at equal model size?

Trains one network at several weight bitwidths, each widened so that all have the same size in bits,
and ranks them by test accuracy (One Weight Bitwidth to Rule Them All, arXiv 2008.09916).

    python -m experiments.quant_sweep --config configs/quant_sweep.py --workdir runs/quant_sweep

The folder then holds config.json, records.jsonl, results.csv, report.md, pareto.png, and in
members/ the parameters of every network trained, which `load_member` reads. The same command goes
on where a killed run stopped.

Order on disk: a program's checkpoints while it trains; then its members' parameters; then their
records, in one append; then results.csv, report.md and pareto.png, rebuilt from all records; then
its checkpoints go. So a member on record has its parameters, and one that is not is trained on
from the last checkpoint.
"""

import json
import pathlib
import shutil
import sys
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import config_dict

from cnnopt_jax import data, models, quant, report, training
from experiments import quant_report
from experiments.common import fields, inputs, launch, run_folder
from experiments.common.fields import boolean, integer, number, one_of, text, tuple_of
from experiments.quant_plan import Member, Plan, make_plan

SPEC = {
  'model': one_of(*models.MODELS),
  **inputs.SPEC,
  'sizes_kib': tuple_of(number(0, above=True)),
  'accounting': one_of(*quant.ACCOUNTINGS),
  'bits': tuple_of(one_of(*quant.BITS, 32)),
  'reference': boolean(),
  'seeds': tuple_of(integer(0, 2**31 - 1)),
  'epochs': integer(1),
  'batch_size': integer(1),
  'learning_rates': tuple_of(number(0, above=True)),
  'momentum': number(0, 1),
  'weight_decay': number(0),
  'label_smoothing': number(0, 1),
  'shift': integer(0, 64),
  'flip': boolean(),
  'levels': one_of(*quant.LEVELS),
  'step': one_of(*quant.STEPS),
  'per_channel': boolean(),
  'clip_gradient': boolean(),
  'layer_bits': tuple_of(
    text(
      "'PATTERN=BITS', a regular expression for parameter paths and 1 to 8 or 32, such as head=8"
    ),
    min_length=0,
  ),
  'max_members': integer(1),
  'checkpoint_steps': integer(0),
}


def run(config: config_dict.ConfigDict, workdir: pathlib.Path) -> list[dict[str, Any]] | int:
  """Trains what is not on record yet, and writes the results.

  Args:
    config: with the fields of `SPEC`, checked.
    workdir: folder of the run.

  Returns:
    One record a member, in the order of the plan; or an exit code after SIGTERM.

  Raises:
    ConfigError: before any training, if data are missing or no width meets a size.
  """
  dataset = inputs.load_data(config)
  plan = make_plan(config, dataset)
  environment = run_folder.claim(workdir, config)
  try:
    records = report.records.read(workdir / run_folder.RECORDS)
  except ValueError as error:
    raise fields.ConfigError(f'{error}; allowed: another --workdir') from None
  done = {record['name'] for record in records}
  progress = quant_report.Progress(plan, done)
  with launch.sigterm_sets_flag() as terminated, progress:
    for index, program in enumerate(plan.programs):
      if all(member.name in done for member in program):
        continue
      checkpoints = training.Checkpoints(workdir / 'checkpoints' / f'program{index}')
      try:
        new = _train_program(plan, program, dataset, checkpoints, workdir, progress, terminated)
      except training.Stopped:
        checkpoints.close()
        print(f'stopped by SIGTERM; the same command goes on from {workdir}', file=sys.stderr)
        return launch.SIGTERM_EXIT_CODE
      except data.DataError as error:  # An image that cannot be decoded, say.
        raise inputs.data_error(config, error) from error
      # A kill between two lines of one append can leave some of a program's members on record.
      new = [record for record in new if record['name'] not in done]
      report.records.append(workdir / run_folder.RECORDS, new)
      records += new
      done |= {record['name'] for record in new}
      quant_report.write(plan, records, environment, workdir)
      checkpoints.remove()
  # What a kill between a record and the removal of its checkpoints left there.
  shutil.rmtree(workdir / 'checkpoints', ignore_errors=True)
  records = quant_report.in_order(plan, records)
  quant_report.write(plan, records, environment, workdir)
  quant_report.show(plan, records, workdir)
  return records


def load_member(workdir: str | pathlib.Path, name: str) -> 'LoadedMember':
  """Reads a trained network from a run's folder.

      member = load_member('runs/quant_sweep', '8kib_b4_lr0.1_seed0')
      member.test_accuracy() == member.record['test_accuracy']

  Args:
    workdir: folder of a run.
    name: of a member, as in results.csv.

  Returns:
    The member.

  Raises:
    KeyError: if no member of that name is on record.
  """
  return LoadedMember(pathlib.Path(workdir), name)


class LoadedMember:
  """A trained network of a sweep.

  Attributes:
    record: its record, a dict.
    model: Flax module.
    variables: trained variables, 'params' in float.
    bits: weight bitwidth.
    quantizer: `quantizer(variables['params'], bits)` gives the weights that the network computes
      with.
  """

  def __init__(self, workdir: pathlib.Path, name: str):
    config = config_dict.ConfigDict(
      {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in _read_config(workdir).items()
      }
    )
    records = {r['name']: r for r in report.records.read(workdir / run_folder.RECORDS)}
    if name not in records:
      raise KeyError(f'{name!r}; allowed: {", ".join(records)}')
    self.record = records[name]
    self._dataset = inputs.load_data(config)
    plan = make_plan(config, self._dataset)
    member = next(member for member in plan.members if member.name == name)
    self.bits, self.quantizer = member.bits, plan.recipe.quantizer
    self.model = plan.model(member)
    images = jnp.zeros((1, *self._dataset.image_shape))
    like = jax.eval_shape(self.model.init, jax.random.key(0), images)
    self.variables = training.load_variables(_member_folder(workdir, member), like)

  def test_accuracy(self) -> float:
    """Accuracy on the run's test images."""
    return training.accuracy(self.model, self.variables, self.bits, self._dataset, self.quantizer)


def _read_config(workdir: pathlib.Path) -> dict[str, Any]:
  return json.loads((workdir / run_folder.CONFIG).read_text())['config']


def _member_folder(workdir: pathlib.Path, member: Member) -> pathlib.Path:
  return workdir / 'members' / member.name


def _train_program(
  plan: Plan,
  program: tuple[Member, ...],
  dataset: data.Dataset,
  checkpoints: training.Checkpoints,
  workdir: pathlib.Path,
  progress: 'quant_report.Progress',
  terminated,
) -> list[dict[str, Any]]:
  """Trains the members of one program; saves their parameters; returns their records."""
  model = plan.model(program[0])
  members = training.Members(
    seed=jnp.asarray([member.seed for member in program], jnp.int32),
    bits=jnp.asarray([member.bits for member in program], jnp.int32),
    learning_rate=jnp.asarray([member.learning_rate for member in program], jnp.float32),
  )

  def accuracy_of(state, index):
    variables = jax.tree.map(lambda x: x[index], {'params': state.params, **state.statistics})
    return variables, training.accuracy(
      model, variables, program[index].bits, dataset, plan.recipe.quantizer
    )

  trained = training.train(
    model,
    plan.recipe,
    members,
    dataset,
    batch_size=plan.batch_size,
    checkpoints=checkpoints,
    checkpoint_steps=plan.checkpoint_steps,
    on_step=lambda step: progress.step(program, step),
    on_epoch=lambda epoch, state: progress.epoch(
      program, epoch, [accuracy_of(state, i)[1] for i in range(len(program))]
    ),
    stop=terminated,
  )
  records = []
  for index, member in enumerate(program):
    variables, accuracy = accuracy_of(trained.state, index)
    training.save_variables(_member_folder(workdir, member), variables)
    diverged_step = int(trained.state.diverged_step[index])
    loss = float(trained.state.loss_sum[index]) / plan.recipe.steps_per_epoch
    records.append(
      quant_report.record(
        plan,
        member,
        train_loss=loss,
        test_accuracy=accuracy,
        diverged_step=diverged_step,
        seconds=trained.seconds / len(program),
      )
    )
  return records


if __name__ == '__main__':
  launch.main(run, SPEC, 'configs/quant_sweep.py', 'runs/quant_sweep')
