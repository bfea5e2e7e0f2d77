"""Training of sweeps: one jitted step over members, atomic checkpoints, evaluation."""

from cnnopt_jax.training.checkpoints import Checkpoints, load_variables, save_variables
from cnnopt_jax.training.loop import Stopped, Trained, train
from cnnopt_jax.training.step import (
  Members,
  Recipe,
  TrainState,
  init_state,
  make_optimizer,
  make_train_step,
  train_step,
)
from cnnopt_jax.training.testing import accuracy

__all__ = [
  'Checkpoints',
  'Members',
  'Recipe',
  'Stopped',
  'TrainState',
  'Trained',
  'accuracy',
  'init_state',
  'load_variables',
  'make_optimizer',
  'make_train_step',
  'save_variables',
  'train',
  'train_step',
]
