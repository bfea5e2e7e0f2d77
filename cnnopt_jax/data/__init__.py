"""Data sets by name, and batch order and augmentation as pure functions of seed and step."""

from cnnopt_jax.data.augmentation import augment, normalize
from cnnopt_jax.data.dataset import ArraySplit, DataError, Dataset, Split, hold_out
from cnnopt_jax.data.order import (
  augmentation_key,
  batch_indices,
  batches,
  epoch_order,
  steps_per_epoch,
)
from cnnopt_jax.data.registry import DATASETS, load

__all__ = [
  'DATASETS',
  'ArraySplit',
  'DataError',
  'Dataset',
  'Split',
  'augment',
  'augmentation_key',
  'batch_indices',
  'batches',
  'epoch_order',
  'hold_out',
  'load',
  'normalize',
  'steps_per_epoch',
]
