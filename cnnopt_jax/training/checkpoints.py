"""Atomic checkpoints of training state, and finished parameters, on orbax."""

import pathlib
import shutil
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

from cnnopt_jax.training.step import TrainState


class Checkpoints:
  """The checkpoints of one program in one folder; only the newest is kept.

  Orbax writes a checkpoint beside the old one and renames it into place, so a kill at any moment
  leaves the old one or the new one.
  """

  def __init__(self, folder: pathlib.Path):
    self._folder = pathlib.Path(folder).resolve()
    self._manager = ocp.CheckpointManager(
      self._folder,
      options=ocp.CheckpointManagerOptions(
        max_to_keep=1, enable_async_checkpointing=False, cleanup_tmp_directories=True
      ),
    )

  def save(self, step: int, state: TrainState, seconds: float) -> None:
    """Writes `state` after `step` steps and `seconds` of training."""
    if step != self._manager.latest_step():
      tree = {'state': state._asdict(), 'seconds': np.float64(seconds)}
      self._manager.save(step, args=ocp.args.StandardSave(tree))

  def restore(self, like: TrainState) -> tuple[TrainState, float] | None:
    """Reads the newest checkpoint.

    Args:
      like: a state of the same structure, shapes and dtypes, abstract or not.

    Returns:
      The state and its seconds; None where there is no checkpoint.
    """
    step = self._manager.latest_step()
    if step is None:
      return None
    tree = self._manager.restore(
      step, args=ocp.args.StandardRestore({'state': like._asdict(), 'seconds': np.float64(0)})
    )
    return TrainState(**tree['state']), float(tree['seconds'])

  def close(self) -> None:
    self._manager.close()

  def remove(self) -> None:
    """Deletes the folder: its members are finished and recorded."""
    self.close()
    shutil.rmtree(self._folder, ignore_errors=True)


def save_variables(folder: pathlib.Path, variables: Any) -> None:
  """Writes a member's variables, a pytree of dicts, to `folder`, replacing what is there."""
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(pathlib.Path(folder).resolve(), variables, force=True)


def load_variables(folder: pathlib.Path, like: Any) -> Any:
  """Reads what `save_variables` wrote.

  Args:
    folder: of the member.
    like: a pytree of the same structure, shapes and dtypes (`jax.eval_shape` of `model.init`).

  Returns:
    The variables.

  Raises:
    FileNotFoundError: if there is nothing there.
    ValueError: if what is there has another structure or other shapes.
  """
  with ocp.StandardCheckpointer() as checkpointer:
    return checkpointer.restore(pathlib.Path(folder).resolve(), like)
