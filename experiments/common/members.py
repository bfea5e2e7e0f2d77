"""Training of the members of a sweep: programs side by side, each saved and recorded as it ends.

Order on disk: a program's checkpoints while it trains; then its members, packed; then their
records, in one append; then its checkpoints go. So a member on record has its weights, and one that
is not is trained on from the last checkpoint.
"""

import contextlib
import functools
import operator
import pathlib
import re
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnnopt_jax import data, models, quant, report, training
from experiments.common import fields, inputs, run_folder, schedule, starts, stops
from experiments.common.sweeps import Member, Plan

# Folder of checkpoints, and its name in runs of earlier versions.
UNFINISHED, FORMERLY = 'unfinished', 'checkpoints'


class Outcome(NamedTuple):
  """What became of a member.

  Attributes:
    train_loss: mean of the last epoch; None if it diverged.
    test_accuracy: of the packed weights, in 0..1; None if it diverged.
    diverged_step: first step without a finite loss; None if there was none.
    seconds: its share of its program's training.
  """

  train_loss: float | None
  test_accuracy: float | None
  diverged_step: int | None
  seconds: float


class _Setting(NamedTuple):
  """What the programs of a run share."""

  plan: Plan
  dataset: data.Dataset
  workdir: pathlib.Path
  unfinished: pathlib.Path
  progress: 'Progress'
  start: starts.Start | None

  def checkpoints(self, program: tuple[Member, ...]) -> pathlib.Path:
    """Where a program's checkpoints lie."""
    return self.unfinished / f'program{self.plan.programs.index(program)}'


def train(
  plan: Plan,
  dataset: data.Dataset,
  workdir: pathlib.Path,
  devices: Sequence[jax.Device],
  found: list[dict[str, Any]],
  *,
  stage: str = '',
  start: starts.Start | None = None,
  record: Callable[[Member, Outcome], dict[str, Any]],
  recorded: Callable[[], Any] = lambda: None,
) -> None:
  """Trains what is not on record yet.

  Args:
    plan: of the run.
    dataset: that all train on.
    workdir: of the run.
    devices: that programs share.
    found: records so far; receives the new ones, which are written too.
    stage: tells the checkpoints of one plan from those of another, where a run has several.
    start: weights that the members start from; None for random ones.
    record: makes the record of a member; it has the key 'name'.
    recorded: called after each append.

  Raises:
    ConfigError: naming what is wrong with the data, or a checkpoint that is damaged.
  """
  done = {one['name'] for one in found}
  todo = [p for p in plan.programs if not all(member.name in done for member in p)]
  costs = {i: (len(p), p[0].match.layers.macs) for i, p in enumerate(todo)}
  with Progress(plan, todo) as progress, contextlib.ExitStack() as stack:
    setting = _Setting(plan, dataset, workdir, workdir / UNFINISHED / stage, progress, start)

    def train_one(index, devices, given_up):
      return _train_program(setting, todo[index], devices, given_up)

    try:
      # Closed, so that whatever goes wrong here makes the programs in training stop as well.
      results = stack.enter_context(
        contextlib.closing(schedule.side_by_side(train_one, costs, devices))
      )
      for index, outcomes in results:
        # A kill between two lines of one append can leave some of a program's members on record.
        members = [(m, o) for m, o in zip(todo[index], outcomes) if m.name not in done]
        new = [record(member, outcome) for member, outcome in members]
        report.records.append(workdir / run_folder.RECORDS, new)
        found += new
        done |= {one['name'] for one in new}
        recorded()
        shutil.rmtree(setting.checkpoints(todo[index]))
    except training.Stopped:
      stops.end_if_requested()
      raise
    except data.DataError as error:  # An image that cannot be decoded, say.
      raise inputs.data_error(plan.config, error) from error
    except training.CheckpointError as error:
      raise fields.ConfigError(
        f'{error}; allowed: that folder deleted, so that its members are trained anew'
      ) from error
  # What a kill between a record and the removal of its checkpoints left there.
  for program in plan.programs:
    shutil.rmtree(setting.checkpoints(program), ignore_errors=True)
  with contextlib.suppress(OSError):
    setting.unfinished.rmdir()
    (workdir / UNFINISHED).rmdir()


def rename_checkpoints(workdir: pathlib.Path) -> None:
  """Gives the checkpoints of a run of an earlier version their new name."""
  old = workdir / FORMERLY
  ours = old.is_dir() and all(re.fullmatch(r'program\d+', path.name) for path in old.iterdir())
  if ours and not (workdir / UNFINISHED).exists():
    old.rename(workdir / UNFINISHED)


def _train_program(
  setting: _Setting,
  program: tuple[Member, ...],
  devices: list[jax.Device],
  given_up: Callable[[], bool],
) -> list[Outcome]:
  """Trains the members of one program, saves them, and tells what became of them."""
  plan, dataset, progress = setting.plan, setting.dataset, setting.progress
  model, members = plan.model(program[0]), as_arrays(program)
  quantizer = plan.recipe.quantizer
  weights = models.weight_plan(model, dataset.image_shape, quantizer)
  tested = functools.partial(
    training.accuracies, model, dataset=dataset, quantizer=quantizer, devices=devices
  )

  def end_of_epoch(epoch, state):
    variables = {'params': state.params, **state.statistics}
    accuracies = tested(variables, members.bits, steps=state.quantizer_steps)
    progress.epoch(program, epoch, accuracies)

  initial = None
  if setting.start is not None:
    setting_of_init = model, plan.recipe, members, dataset.image_shape
    initial = training.init_state(*setting_of_init, variables=setting.start.of(program))
  checkpoints = training.Checkpoints(setting.checkpoints(program))
  stops.wait_for(lambda: checkpoints.unsaved)
  try:
    trained = training.train(
      model,
      plan.recipe,
      members,
      dataset,
      batch_size=plan.config.batch_size,
      checkpoints=checkpoints,
      checkpoint_steps=plan.config.checkpoint_steps,
      devices=devices,
      initial=initial,
      on_step=lambda step: progress.step(program, step),
      on_epoch=end_of_epoch,
      stop=lambda: stops.requested() or given_up(),
    )
  finally:
    checkpoints.close()
  state = trained.state
  variables = {'params': state.params, **state.statistics}
  each = list(_each((variables, state.quantizer_steps), program))
  finite = [_finite(loss, own) for loss, own in zip(state.loss_sum, each)]
  saved = []
  fold = quant.ACCOUNTINGS[plan.config.accounting].folds  # So that bytes are those counted.
  for member, (own, steps), is_finite in zip(program, each, finite):
    # What diverged has no levels to be packed.
    bits = member.bits if is_finite else quant.IDENTITY_BITS
    folder = training.member_folder(setting.workdir, member.name)
    saved.append(training.save_member(folder, own, bits, weights, steps, fold=fold))
  # Those of the weights that were saved, which are quantized already: 32 leaves them as they are.
  as_they_are = jax.tree.map(lambda b: jnp.full_like(b, quant.IDENTITY_BITS), members.bits)
  stacked = jax.tree.map(lambda *x: np.stack(x), *saved)
  accuracies = tested(stacked, as_they_are, steps=state.quantizer_steps)
  outcomes = []
  for loss, accuracy, step, is_finite in zip(
    state.loss_sum, accuracies, state.diverged_step.tolist(), finite
  ):
    if step < 0 and not is_finite:
      step = plan.recipe.steps  # A loss that would come next, or the sum of the last ones.
    diverged = step >= 0
    outcomes.append(
      Outcome(
        train_loss=None if diverged else float(loss) / plan.recipe.steps_per_epoch,
        test_accuracy=None if diverged else float(accuracy),
        diverged_step=step if diverged else None,
        seconds=round(trained.seconds / len(program), 2),
      )
    )
  return outcomes


def _finite(*trees) -> bool:
  return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trees))


def as_arrays(program: Sequence[Member]) -> training.Members:
  """What tells the members apart, as the training step takes it: bits by path if any has them."""
  bits: Any = [member.bits for member in program]
  mixed = [b for b in bits if isinstance(b, Mapping)]
  if mixed:
    paths = list(mixed[0])
    each = [b if isinstance(b, Mapping) else dict.fromkeys(paths, b) for b in bits]
    bits = {path: jnp.asarray([b[path] for b in each], jnp.int32) for path in paths}
  else:
    bits = jnp.asarray(bits, jnp.int32)
  return training.Members(
    seed=jnp.asarray([member.seed for member in program], jnp.int32),
    bits=bits,
    learning_rate=jnp.asarray([member.learning_rate for member in program], jnp.float32),
  )


def _each(variables: Any, program: Sequence[Member]):
  """Yields the variables of every member, without their leading axis."""
  for index in range(len(program)):
    yield jax.tree.map(operator.itemgetter(index), variables)


class Progress:
  """Progress over all the multiply-accumulates of a run; one line an epoch off a terminal.

  Programs may report from threads of their own.
  """

  def __init__(self, plan: Plan, todo: Sequence[tuple[Member, ...]]):
    self._progress = report.Progress()
    self._epochs = plan.config.epochs
    total = sum(map(_step_macs, todo)) * plan.recipe.steps
    self._at = self._progress.bar('compiling', total, announce=False)
    self._lock = threading.Lock()
    self._done: dict[str, int] = {}  # Multiply-accumulates of each program.
    self._last = ''

  def __enter__(self):
    self._progress.__enter__()
    return self

  def __exit__(self, *exc):
    self._progress.__exit__(*exc)

  def step(self, program: tuple[Member, ...], step: int) -> None:
    """Says that a program has taken `step` steps."""
    with self._lock:
      self._done[program[0].name] = _step_macs(program) * step
      self._at(sum(self._done.values()), self._last or _describe(program))

  def epoch(self, program: tuple[Member, ...], epoch: int, accuracies: Sequence[float]) -> None:
    """Says that a program has finished `epoch` epochs, and its members' test accuracies."""
    shown = ' '.join(f'{a:.3f}' for a in accuracies)
    with self._lock:
      self._last = f'{_describe(program)}, epoch {epoch}/{self._epochs}, accuracy {shown}'
      if not self._progress.is_terminal or epoch == self._epochs:
        self._progress.line(self._last)


def _step_macs(program: tuple[Member, ...]) -> int:
  """What a step of a program costs, in multiply-accumulates for one image forward."""
  return len(program) * program[0].match.layers.macs


def _describe(program: tuple[Member, ...]) -> str:
  kinds = dict.fromkeys(bits_text(m.bits) + f' ({m.role})' * (m.role != 'ranked') for m in program)
  budget, width = program[0].budget_kib, program[0].match.width
  shared = f'width {width:.4g}' if budget is None else f'{budget:.4g} KiB'
  return f'{shared}, {", ".join(kinds)}'


def bits_text(bits: int | Mapping[str, int]) -> str:
  """A bitwidth in words."""
  return 'mixed bits' if isinstance(bits, Mapping) else f'{bits} bit' + 's' * (bits > 1)
