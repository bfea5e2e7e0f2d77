"""A quantization step for each group of inputs of an output channel.

Groups of 32, 64 or 128 inputs are what the weight-only quantizers of language models use: Frantar
et al., "GPTQ", ICLR 2023 (arXiv:2210.17323); Lin et al., "AWQ", MLSys 2024 (arXiv:2306.00978).
"""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np

from cnnopt_jax.quant import quantizers


def grouped_fake_quantize(
  w: jax.Array,
  bits: chex.Numeric,
  *,
  group_size: int,
  channel_axis: quantizers.ChannelAxis = -1,
  levels: quantizers.Levels = 'auto',
  step: quantizers.Step = 'mse',
  clip_gradient: bool = False,
) -> jax.Array:
  """`fake_quantize` with a step for every `group_size` consecutive inputs of a channel.

  The inputs of a channel are its weights with their axes flattened, the last one fastest: of a
  kernel [H, W, I, O] a group is neighbouring input channels at one tap, then at the next. The last
  group of a channel is what is left over, with statistics of its own; a `group_size` of all the
  inputs or more gives `fake_quantize`.

  Args:
    w: weights, floating point, any shape.
    bits: as in `fake_quantize`.
    group_size: inputs that share a step, at least 1.
    channel_axis: axis or axes of the output channels, which share no step; None for groups over
      the whole flattened tensor.
    levels: as in `fake_quantize`.
    step: as in `fake_quantize`.
    clip_gradient: as in `fake_quantize`.

  Returns:
    Quantized weights, shape and dtype of `w`; all NaN as in `fake_quantize`.

  Raises:
    ValueError: if `group_size` is not allowed, or as `fake_quantize`.
  """
  w = jnp.asarray(w)
  _check_group_size(group_size)
  inputs = quantizers.reduced_axes(w.ndim, channel_axis)
  order = (*(axis for axis in range(w.ndim) if axis not in inputs), *inputs)
  by_channel = jnp.transpose(w, order)
  fan_in = math.prod(w.shape[axis] for axis in inputs)
  rows = by_channel.reshape(-1, fan_in)
  whole = fan_in - fan_in % group_size
  # Whole groups and the remainder apart: padding would enter the remainder's statistics.
  parts = []
  if whole:
    parts.append(rows[:, :whole].reshape(len(rows), -1, group_size))
  if whole < fan_in:
    parts.append(rows[:, whole:].reshape(len(rows), 1, -1))
  quantized = [
    quantizers.fake_quantize(
      part, bits, channel_axis=(0, 1), levels=levels, step=step, clip_gradient=clip_gradient
    ).reshape(len(rows), -1)
    for part in parts
  ]
  joined = jnp.concatenate(quantized, axis=1).reshape(by_channel.shape)
  return jnp.transpose(joined, [order.index(axis) for axis in range(w.ndim)])


def group_steps(
  shape: tuple[int, ...], *, group_size: int, channel_axis: quantizers.ChannelAxis = -1
) -> int:
  """How many steps `grouped_fake_quantize` uses for weights of a shape: channels times groups.

  Args:
    shape: of the weights.
    group_size: as in `grouped_fake_quantize`.
    channel_axis: as in `grouped_fake_quantize`.

  Raises:
    ValueError: as `grouped_fake_quantize`.
  """
  _check_group_size(group_size)
  inputs = quantizers.reduced_axes(len(shape), channel_axis)
  fan_in = math.prod(shape[axis] for axis in inputs)
  return math.prod(shape) // fan_in * -(-fan_in // group_size)


def _check_group_size(group_size: int) -> None:
  whole = isinstance(group_size, (int, np.integer)) and not isinstance(group_size, bool)
  if not whole or group_size < 1:
    raise ValueError(f'group_size={group_size!r}; allowed: an int of 1 or more')
