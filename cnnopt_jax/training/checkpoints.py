"""Atomic checkpoints of training state, and finished parameters, on orbax.

Orbax leaves some faults to its callers. It reads arrays of other shapes and dtypes than it is asked
for, so these are compared first; it reads some damaged files, so a checkpoint is kept with digests;
and where a disk is full its threads print what they meet, so room is asked for first.
"""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import shutil
import threading
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from cnnopt_jax import report
from cnnopt_jax.training.step import TrainState

# In the folder of a checkpoint: SHA-256 by file.
DIGESTS = 'sha256.json'

# What orbax writes besides the arrays' bytes: its own files, and shape, dtype and name of an array.
_BYTES, _BYTES_OF_AN_ARRAY = 1 << 17, 1 << 11

# Programs side by side must not take the room that another has found.
_writing = threading.Lock()


class CheckpointError(ValueError):
  """What a file holds cannot be gone on from, being damaged or of something else; one line."""


class Checkpoints:
  """The checkpoints of one program in one folder; only the newest is kept.

  Orbax writes a checkpoint beside the old one and renames it into place, so a kill at any moment
  leaves the old one or the new one.

  Attributes:
    unsaved: whether training has gone on since the newest checkpoint; `train` keeps it.
  """

  def __init__(self, folder: pathlib.Path):
    """Makes the folder where there is none.

    Raises:
      CheckpointError: if a checkpoint in it is damaged.
    """
    self.unsaved = False
    self._folder = pathlib.Path(folder).resolve()
    _check_digests(self._folder)  # Orbax reads some files at once, and prints what it finds amiss.
    self._manager = ocp.CheckpointManager(
      self._folder,
      item_handlers=ocp.StandardCheckpointHandler(),  # Without it an old one's arrays are not told.
      options=ocp.CheckpointManagerOptions(
        max_to_keep=1, enable_async_checkpointing=False, cleanup_tmp_directories=True
      ),
    )

  def save(self, step: int, state: TrainState, seconds: float) -> None:
    """Writes `state` after `step` steps and `seconds` of training.

    Raises:
      OSError: if the disk has no room for it; the last checkpoint stays.
    """
    if step != self._manager.latest_step():
      tree = _as_tree(state, seconds)
      with _written(self._folder, tree):
        self._manager.save(step, args=ocp.args.StandardSave(tree))
        _write_digests(self._folder / str(step))
    self.unsaved = False

  def restore(self, like: TrainState) -> tuple[TrainState, float] | None:
    """Reads the newest checkpoint.

    Args:
      like: a state of the same structure, shapes and dtypes, abstract or not.

    Returns:
      The state and its seconds; None where there is no checkpoint.

    Raises:
      CheckpointError: if it is damaged, or of another structure, shapes or dtypes.
    """
    step = self._manager.latest_step()
    if step is None:
      return None
    target = _as_tree(like, 0)
    try:
      _check_arrays(self._manager.item_metadata(step).tree, target)
      tree = self._manager.restore(step, args=ocp.args.StandardRestore(target))
    except CheckpointError as error:
      raise CheckpointError(f'{self._folder}: {error}') from None
    # Whatever orbax meets in files that it did not write so.
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
      raise CheckpointError(f'{self._folder}: damaged: {_first_line(error)}') from error
    return TrainState(**tree['state']), float(tree['seconds'])

  def close(self) -> None:
    self._manager.close()

  def remove(self) -> None:
    """Deletes the folder: its members are finished and recorded."""
    self.close()
    shutil.rmtree(self._folder, ignore_errors=True)


def save_variables(folder: pathlib.Path, variables: Any) -> None:
  """Writes a member's variables, a pytree of dicts, to `folder`, replacing what is there.

  Raises:
    OSError: if the disk has no room for them.
  """
  folder = pathlib.Path(folder).resolve()
  folder.parent.mkdir(parents=True, exist_ok=True)
  with _written(folder.parent, variables), ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(folder, variables, force=True)


def load_variables(folder: pathlib.Path, like: Any) -> Any:
  """Reads what `save_variables` wrote.

  Args:
    folder: of the member.
    like: a pytree of the same structure, shapes and dtypes (`jax.eval_shape` of `model.init`).

  Returns:
    The variables.

  Raises:
    FileNotFoundError: if there is nothing there.
    ValueError: if what is there has another structure, or other shapes or dtypes.
  """
  folder = pathlib.Path(folder).resolve()
  if not folder.is_dir():
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
  with ocp.StandardCheckpointer() as checkpointer:
    found = checkpointer.metadata(folder).item_metadata
    if found is None:
      raise CheckpointError(f'{folder}: damaged: its _METADATA is missing')
    _check_arrays(found.tree, like)
    return checkpointer.restore(folder, like)


def _as_tree(state: TrainState, seconds: float) -> dict[str, Any]:
  """What a checkpoint holds; without the learned steps where there are none, as formerly."""
  fields = {k: v for k, v in state._asdict().items() if k != 'quantizer_steps' or v}
  return {'state': fields, 'seconds': np.float64(seconds)}


@contextlib.contextmanager
def _written(folder: pathlib.Path, tree: Any):
  """Around what orbax writes: it has the room, and what goes wrong all the same is an OSError."""
  leaves = jax.tree.leaves(tree)
  size = _BYTES + sum(leaf.nbytes + _BYTES_OF_AN_ARRAY for leaf in leaves)
  with _writing:
    try:
      _take_room(folder / '.room', size)
      yield
    except OSError as error:
      raise OSError(error.errno, error.strerror, str(folder)) from error
    except ValueError as error:  # What tensorstore makes of a disk's faults.
      raise OSError(errno.EIO, _first_line(error), str(folder)) from error


def _take_room(path: pathlib.Path, size: int) -> None:
  """Raises OSError unless a file of `size` bytes finds its room, quotas and limits included."""
  if not hasattr(os, 'posix_fallocate'):
    return
  try:
    with open(path, 'wb') as file:
      os.posix_fallocate(file.fileno(), 0, size)
  except OSError as error:
    if error.errno not in (
      errno.EINVAL,
      errno.EOPNOTSUPP,
      errno.ENOSYS,
    ):  # Not on this file system.
      raise
  finally:
    path.unlink(missing_ok=True)


def _write_digests(folder: pathlib.Path) -> None:
  report.write_atomically(folder / DIGESTS, json.dumps(_digests(folder), indent=1) + '\n')


def _digests(folder: pathlib.Path) -> dict[str, str]:
  """SHA-256 of all files of a checkpoint, by their path in it."""
  found = {}
  for path in sorted(folder.rglob('*')):
    if path.is_file() and path.name != DIGESTS:
      with open(path, 'rb') as file:
        found[str(path.relative_to(folder))] = hashlib.file_digest(file, 'sha256').hexdigest()
  return found


def _check_digests(folder: pathlib.Path) -> None:
  """Raises CheckpointError if a file of a checkpoint in `folder` is not as it was written.

  A kill may have left a checkpoint without digests.
  """
  for path in folder.glob(f'*/{DIGESTS}'):
    try:
      written = json.loads(path.read_text())
      wrong = {name for name, digest in written.items() - _digests(path.parent).items()}
    except (ValueError, AttributeError, TypeError):
      wrong = {DIGESTS}
    if wrong:
      name = path.parent.relative_to(folder) / min(wrong)
      raise CheckpointError(f'{folder}: damaged: {name} is not as it was written')


def _check_arrays(saved: Any, target: Any) -> None:
  """Raises CheckpointError unless both trees have the same arrays by name, shape and dtype."""
  theirs, ours = _arrays(saved), _arrays(target)
  for name in sorted({*theirs, *ours}):
    there, here = theirs.get(name, 'nothing'), ours.get(name, 'nothing')
    if there != here:
      hint = ' (JAX_ENABLE_X64?)' if 'float64' in there + here else ''
      raise CheckpointError(f'{name} was saved as {there} and is {here} now{hint}')


def _arrays(tree: Any) -> dict[str, str]:
  """Dtype and shape of each array, as text, by its path."""

  def is_array(x):
    return hasattr(x, 'dtype')

  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): f'{x.dtype} {list(x.shape)}'
    for path, x in jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_array)
  }


def _first_line(error: BaseException) -> str:
  return (str(error).splitlines() or [type(error).__name__])[0][:200]
