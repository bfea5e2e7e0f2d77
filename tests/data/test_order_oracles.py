"""The streams of random numbers that one seed gives are different ones."""

import jax
import numpy as np

from cnnopt_jax import data


def numbers(key):
  return tuple(np.ravel(jax.random.key_data(key)).tolist())


def test_orders_and_augmentations_share_no_key(monkeypatch):
  """Nor does a key split from one: JAX's children of a key are those that `fold_in` numbers."""
  used = []
  monkeypatch.setattr(jax.random, 'permutation', lambda key, x: used.append(key) or x)
  for epoch in range(3):
    data.epoch_order(5, epoch, 10)
  orders = {numbers(key) for key in used}
  orders |= {numbers(child) for key in used for child in jax.random.split(key, 4)}
  augmentations = {
    numbers(data.augmentation_key(5, epoch, step)) for epoch in range(3) for step in range(4)
  }
  assert len(orders) == 15 and len(augmentations) == 12
  weights = {numbers(jax.random.key(5)), *map(numbers, jax.random.split(jax.random.key(5), 4))}
  assert not orders & augmentations and not weights & (orders | augmentations)
