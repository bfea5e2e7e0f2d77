"""Training of sweeps: one jitted step over members, atomic checkpoints, evaluation."""

from cnnopt_jax.training.checkpoints import Checkpoints, load_variables, save_variables
from cnnopt_jax.training.evaluate import accuracy
from cnnopt_jax.training.loop import Stopped, Trained, train
from cnnopt_jax.training.step import (
  Members,
  Quantizer,
  Recipe,
  TrainState,
  init_state,
  make_optimizer,
  make_train_step,
  train_step,
)

__all__ = [
  'Checkpoints',
  'Members',
  'Quantizer',
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
