"""Accuracy of one member."""

import functools
from collections.abc import Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from cnnopt_jax import data
from cnnopt_jax.quant import Quantizer

_BATCH_SIZE = 500


@functools.partial(jax.jit, static_argnames=('model', 'quantizer', 'mean', 'std'))
def _correct(variables, bits, images, labels, *, model, quantizer, mean, std):
  params = quantizer(variables['params'], bits)
  logits = model.apply({**variables, 'params': params}, data.normalize(images, mean, std))
  return jnp.sum(jnp.argmax(logits, -1) == labels)


def accuracy(
  model: nn.Module,
  variables: Mapping[str, Any],
  bits: chex.Numeric,
  dataset: data.Dataset,
  quantizer: Quantizer = Quantizer(),
  *,
  batch_size: int = _BATCH_SIZE,
) -> float:
  """Share of the test images that a network with quantized weights classifies correctly.

  Compiled once a network shape, whatever the bitwidth.

  Args:
    model: the network.
    variables: its variables, 'params' in float.
    bits: weight bitwidth, a scalar.
    dataset: its test split is read.
    quantizer: applied to the parameters.
    batch_size: images at once; the last batch is padded.

  Returns:
    Accuracy in 0..1.
  """
  count = len(dataset.test)
  correct = 0
  for start in range(0, count, batch_size):
    indices = np.arange(start, min(start + batch_size, count))
    images, labels = dataset.test.get(indices)
    missing = batch_size - len(indices)
    if missing:  # One shape, one compilation: a label of -1 is never predicted.
      images = np.pad(images, ((0, missing),) + ((0, 0),) * 3)
      labels = np.pad(labels, (0, missing), constant_values=-1)
    correct += int(
      _correct(
        variables,
        jnp.asarray(bits, jnp.int32),
        images,
        labels,
        model=model,
        quantizer=quantizer,
        mean=dataset.mean,
        std=dataset.std,
      )
    )
  return correct / count
