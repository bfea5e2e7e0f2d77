"""Training of sweeps: one jitted step over members, atomic checkpoints, testing, reading back."""

from cnnopt_jax.training.checkpoints import (
  CheckpointError,
  Checkpoints,
  load_variables,
  save_variables,
)
from cnnopt_jax.training.finished import (
  NORMALIZATION,
  FinishedMember,
  load_member,
  member_folder,
  quantizer_from_config,
  with_normalization,
)
from cnnopt_jax.training.loop import Stopped, Trained, train
from cnnopt_jax.training.placement import Placement
from cnnopt_jax.training.saved import load_saved, save_member
from cnnopt_jax.training.step import (
  Members,
  Recipe,
  TrainState,
  init_state,
  make_optimizer,
  make_train_step,
  train_step,
)
from cnnopt_jax.training.testing import accuracies, accuracy, correct_predictions, correctness

__all__ = [
  'NORMALIZATION',
  'CheckpointError',
  'Checkpoints',
  'FinishedMember',
  'Members',
  'Placement',
  'Recipe',
  'Stopped',
  'TrainState',
  'Trained',
  'accuracies',
  'accuracy',
  'correct_predictions',
  'correctness',
  'init_state',
  'load_member',
  'load_saved',
  'load_variables',
  'make_optimizer',
  'make_train_step',
  'member_folder',
  'quantizer_from_config',
  'save_member',
  'save_variables',
  'train',
  'train_step',
  'with_normalization',
]
