"""A small data set and network that every test here trains."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax import data, training
from cnnopt_jax.models import PlainNet


@pytest.fixture(scope='session')
def dataset():
  """256 training and 70 test images of 8x8, in classes of thin, broader and broad stripes."""
  rng = np.random.default_rng(0)

  def split(count):
    labels = rng.integers(0, 3, count).astype(np.int32)
    images = rng.integers(0, 80, (count, 8, 8, 1))
    for i, label in enumerate(labels):
      images[i, 1 : 2 + 2 * label] += 150
    return data.ArraySplit(images.astype(np.uint8), labels)

  return data.Dataset('stripes', split(256), split(70), (8, 8, 1), 3, (60.0,), (70.0,))


@pytest.fixture(scope='session')
def setting(dataset):
  """Model, recipe and a maker of members."""
  recipe = training.Recipe(
    steps=24,
    steps_per_epoch=8,
    shift=1,
    flip=True,
    label_smoothing=0.1,
    mean=dataset.mean,
    std=dataset.std,
  )

  def members(seeds, bits, rates=0.05):
    rates = jnp.broadcast_to(jnp.asarray(rates, jnp.float32), (len(seeds),))
    return training.Members(jnp.asarray(seeds, jnp.int32), jnp.asarray(bits, jnp.int32), rates)

  model = PlainNet(3, channels=(5, 6), strides=(2, 1))
  return types.SimpleNamespace(model=model, recipe=recipe, members=members, batch_size=32)
