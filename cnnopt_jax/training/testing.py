"""What a trained network gets right."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from cnnopt_jax import data
from cnnopt_jax.quant import Quantizer

_BATCH_SIZE = 500


def correct_predictions(
  predict: Callable[[np.ndarray], jax.Array],
  split: data.Split,
  *,
  count: int | None = None,
  batch_size: int = _BATCH_SIZE,
) -> np.ndarray:
  """Whether each image of a split is classified correctly.

  Args:
    predict: maps images uint8 [batch_size, H, W, C] to their classes, int [batch_size]; each image
      on its own, for the last batch is padded with zeros.
    split: the images.
    count: of the first images; None for all.
    batch_size: images at once.

  Returns:
    bool [count].
  """
  correct = np.zeros(len(split) if count is None else count, bool)
  for start in range(0, len(correct), batch_size):
    indices = np.arange(start, min(start + batch_size, len(correct)))
    images, labels = split.get(indices)
    # One shape, one compilation.
    images = np.pad(images, ((0, batch_size - len(indices)),) + ((0, 0),) * 3)
    correct[indices] = np.asarray(predict(images))[: len(indices)] == labels
  return correct


@functools.partial(jax.jit, static_argnames=('model', 'quantizer', 'mean', 'std'))
def _predict(variables, bits, images, *, model, quantizer, mean, std):
  params = quantizer(variables['params'], bits)
  logits = model.apply({**variables, 'params': params}, data.normalize(images, mean, std))
  return jnp.argmax(logits, -1)


def accuracy(
  model: nn.Module,
  variables: Mapping[str, Any],
  bits: chex.Numeric | None,
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
    bits: weight bitwidth, a scalar; None to take the weights as they are.
    dataset: its test split is read.
    quantizer: applied to the parameters.
    batch_size: images at once; the last batch is padded.

  Returns:
    Accuracy in 0..1.
  """
  predict = functools.partial(
    _predict,
    variables,
    None if bits is None else jnp.asarray(bits, jnp.int32),
    model=model,
    quantizer=quantizer,
    mean=dataset.mean,
    std=dataset.std,
  )
  correct = correct_predictions(predict, dataset.test, batch_size=batch_size)
  return int(correct.sum()) / len(correct)
