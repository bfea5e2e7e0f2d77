"""What a trained network gets right."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from cnnopt_jax import compilation, data, models
from cnnopt_jax.kernels import platforms
from cnnopt_jax.quant import GAUSSIAN, Quantizer, quantize_params
from cnnopt_jax.training.placement import Placement, over_members

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
    predict: maps images uint8 [batch_size, H, W, C] to their classes, int [..., batch_size]; each
      image on its own, for the last batch is padded with zeros.
    split: the images.
    count: of the first images; None for all.
    batch_size: images at once.

  Returns:
    bool [..., count].
  """
  count = len(split) if count is None else count
  correct = []
  for start in range(0, count, batch_size):
    indices = np.arange(start, min(start + batch_size, count))
    images, labels = split.get(indices)
    # One shape, one compilation.
    images = np.pad(images, ((0, batch_size - len(indices)),) + ((0, 0),) * 3)
    correct.append(np.asarray(predict(images))[..., : len(indices)] == labels)
  return np.concatenate(correct, -1)


@functools.cache
def _predictor(model, quantizer, mean, std, devices) -> Callable[..., jax.Array]:
  """The jitted classes int [S, B] that members predict for one batch of images."""

  def one(own, images):
    variables, bits, steps = own
    plan = models.weight_plan(model, images.shape[1:], quantizer)
    params = quantize_params(variables['params'], bits, plan, steps=steps)
    logits = model.apply({**variables, 'params': params}, data.normalize(images, mean, std))
    return jnp.argmax(logits, -1).astype(jnp.int32)

  def nothing(own, images):
    return jnp.zeros(len(images), jnp.int32)

  on_cpu = platforms.is_cpu(devices[0].platform)
  every = over_members(one, devices, one_by_one=on_cpu, otherwise=nothing)

  def predict(own, images, batch_of):
    return every(own, images[None], batch_of)

  return jax.jit(predict, compiler_options=compilation.ON_CPU if on_cpu else None)


def correctness(
  model: nn.Module,
  variables: Mapping[str, Any],
  bits: Any,
  dataset: data.Dataset,
  quantizer: Quantizer = GAUSSIAN,
  *,
  steps: Mapping[str, Any] | None = None,
  devices: Sequence[jax.Device] | None = None,
  batch_size: int = _BATCH_SIZE,
) -> np.ndarray:
  """Whether each of M networks of one shape classifies each test image correctly.

  Args:
    model: the network.
    variables: of all members, every leaf [M, ...]; 'params' in float.
    bits: weight bitwidths, int [M], or a dict of such by path; None, or 32, to take the weights as
      they are.
    dataset: as in `accuracy`.
    quantizer: as in `accuracy`.
    steps: learned ones by path, [M, ...], as in `accuracy`.
    devices: that share the members, as in `Placement`.
    batch_size: as in `accuracy`.

  Returns:
    bool [M, images]; of each member what it is alone, on a CPU exactly.
  """
  devices = tuple(jax.devices()[:1] if devices is None else devices)
  placement = Placement(len(jax.tree.leaves(variables)[0]), devices)
  own = placement.place((dict(variables), bits, dict(steps or {})))
  batch_of = placement.batch_of(np.zeros(placement.count))
  classes = _predictor(model, quantizer, dataset.mean, dataset.std, devices)

  def predict(images):
    return placement.gather(classes(own, images, batch_of))

  return correct_predictions(predict, dataset.test, batch_size=batch_size)


def accuracies(
  model: nn.Module,
  variables: Mapping[str, Any],
  bits: Any,
  dataset: data.Dataset,
  quantizer: Quantizer = GAUSSIAN,
  *,
  steps: Mapping[str, Any] | None = None,
  devices: Sequence[jax.Device] | None = None,
  batch_size: int = _BATCH_SIZE,
) -> np.ndarray:
  """`accuracy` of M networks of one shape, with the arguments of `correctness`.

  Returns:
    Accuracies in 0..1, [M]; of each member what `accuracy` gives, on a CPU exactly.
  """
  correct = correctness(
    model,
    variables,
    bits,
    dataset,
    quantizer,
    steps=steps,
    devices=devices,
    batch_size=batch_size,
  )
  return correct.sum(-1) / correct.shape[-1]


def accuracy(
  model: nn.Module,
  variables: Mapping[str, Any],
  bits: chex.Numeric | None,
  dataset: data.Dataset,
  quantizer: Quantizer = GAUSSIAN,
  *,
  steps: Mapping[str, Any] | None = None,
  batch_size: int = _BATCH_SIZE,
) -> float:
  """Share of the test images that a network with quantized weights classifies correctly.

  Compiled once a network shape, whatever the bitwidth.

  Args:
    model: the network.
    variables: its variables, 'params' in float.
    bits: weight bitwidth, a scalar; None to take the weights as they are.
    dataset: its test split is read.
    quantizer: how weights are quantized.
    steps: learned ones by path, where the quantizer has such.
    batch_size: images at once; the last batch is padded.

  Returns:
    Accuracy in 0..1.
  """
  one, steps = jax.tree.map(lambda x: np.asarray(x)[None], (variables, dict(steps or {})))
  bits = None if bits is None else np.asarray(bits, np.int32)[None]
  found = accuracies(model, one, bits, dataset, quantizer, steps=steps, batch_size=batch_size)
  return float(found[0])
