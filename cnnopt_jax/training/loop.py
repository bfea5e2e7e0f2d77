"""Trains the members of one program from their last checkpoint to the end."""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from cnnopt_jax import compilation, data
from cnnopt_jax.training.checkpoints import Checkpoints
from cnnopt_jax.training.placement import Placement
from cnnopt_jax.training.step import (
  Members,
  Recipe,
  TrainState,
  abstract_state,
  init_state,
  make_train_step,
)


class Stopped(Exception):
  """Training was asked to stop; its state is in the last checkpoint."""


class Trained(NamedTuple):
  """Outcome of `train`.

  Attributes:
    state: final state of all members, NumPy arrays.
    seconds: spent on training, over all the processes that took part.
  """

  state: TrainState
  seconds: float


def train(
  model: nn.Module,
  recipe: Recipe,
  members: Members,
  dataset: data.Dataset,
  *,
  batch_size: int,
  checkpoints: Checkpoints,
  checkpoint_steps: int = 0,
  devices: Sequence[jax.Device] | None = None,
  initial: TrainState | None = None,
  on_step: Callable[[int], Any] = lambda step: None,
  on_epoch: Callable[[int, TrainState], Any] = lambda epoch, state: None,
  stop: Callable[[], bool] = lambda: False,
) -> Trained:
  """Trains until `recipe.steps`, from the last checkpoint where there is one.

  Batch order and augmentation are functions of (seed, epoch, step), so the state needs no data
  iterator, and an interrupted run ends in the same bits as an uninterrupted one.

  Args:
    model: the network.
    recipe: how it trains.
    members: M of them, sharing the network's shape.
    dataset: what it trains on.
    batch_size: images a step and member.
    checkpoints: where state is kept.
    checkpoint_steps: steps between two checkpoints; 0 for one an epoch. The last step has one.
    devices: that share the members, as in `Placement`; a run may be gone on with on others.
    initial: state to start from where there is no checkpoint, such as a trained network's to be
      fine-tuned; its memory is given up. None for random weights.
    on_step: called after each step with the number of steps taken.
    on_epoch: called after each epoch with the number of epochs done and the state.
    stop: asked after each step; True saves the state and raises `Stopped`.

  Returns:
    Final state and seconds.

  Raises:
    Stopped: if `stop()` became true.
    CheckpointError: if the last checkpoint is damaged or of another network.
    OSError: if the disk has no room for a checkpoint.
  """
  setting = model, recipe, members, dataset.image_shape
  state, seconds = checkpoints.restore(abstract_state(*setting)) or (
    initial or init_state(*setting),
    0.0,
  )
  start = time.perf_counter() - seconds
  taken = int(state.step[0])
  on_step(taken)
  placement = Placement(len(members.seed), devices)
  state, members = placement.place((state, members))
  seeds, seed_of = np.unique(placement.gather(members.seed), return_inverse=True)
  batch_of = placement.batch_of(seed_of)
  indices = batch_indices_from(taken, recipe, seeds, len(dataset.train), batch_size)
  train_step = None
  for images, labels in data.batches(dataset.train, indices):
    arguments = state, members, images, labels, batch_of
    if train_step is None:
      train_step = compilation.compiled(make_train_step(model, recipe, devices=devices), *arguments)
    checkpoints.unsaved = True
    state = train_step(*arguments)
    taken += 1
    on_step(taken)
    stopping = stop()
    epoch_ends = taken % recipe.steps_per_epoch == 0
    due = taken % (checkpoint_steps or recipe.steps_per_epoch) == 0
    if stopping or due or taken == recipe.steps:
      checkpoints.save(taken, placement.gather(state), time.perf_counter() - start)
    if epoch_ends:
      on_epoch(taken // recipe.steps_per_epoch, placement.gather(state))
    if stopping:
      raise Stopped
  return Trained(placement.gather(state), time.perf_counter() - start)


def batch_indices_from(
  step: int, recipe: Recipe, seeds: np.ndarray, num_examples: int, batch_size: int
):
  """Yields the training images of each step from `step` on, int32 [U, B] for U seeds."""
  order = None
  for taken in range(step, recipe.steps):
    epoch, position = divmod(taken, recipe.steps_per_epoch)
    if order is None or position == 0:
      order = np.asarray(_orders(seeds.astype(np.int32), epoch, num_examples))
    yield order[:, position * batch_size : (position + 1) * batch_size]


@functools.partial(jax.jit, static_argnames='num_examples', compiler_options=compilation.QUICKLY)
def _orders(seeds, epoch, num_examples):
  """`data.epoch_order` of several seeds, int32 [U, N]: once an epoch."""
  return jax.vmap(lambda seed: data.epoch_order(seed, epoch, num_examples))(seeds)
