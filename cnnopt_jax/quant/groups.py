"""A quantization step for each group of inputs of an output channel.

Groups of 32, 64 or 128 inputs are what the weight-only quantizers of language models use: Frantar
et al., "GPTQ", ICLR 2023 (arXiv:2210.17323); Lin et al., "AWQ", MLSys 2024 (arXiv:2306.00978).
"""

import math
from typing import Any, NamedTuple

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
  parts = _parts(w, group_size, channel_axis)
  quantized = [
    quantizers.fake_quantize(
      part, bits, channel_axis=(0, 1), levels=levels, step=step, clip_gradient=clip_gradient
    ).reshape(len(part), -1)
    for part in parts
  ]
  order = _channels_first(w.ndim, channel_axis)
  joined = jnp.concatenate(quantized, axis=1).reshape([w.shape[axis] for axis in order])
  return jnp.transpose(joined, _inverse(order))


def grouped_quantization_step(
  w: jax.Array,
  bits: chex.Numeric,
  *,
  group_size: int,
  channel_axis: quantizers.ChannelAxis = -1,
  levels: quantizers.Levels = 'auto',
  step: quantizers.Step = 'mse',
) -> jax.Array:
  """Distance between neighbouring levels of `grouped_fake_quantize` with the same arguments.

  Args:
    w: weights, floating point, any shape.
    bits: 1 to 8; a Python int or a scalar array, traced or not.
    group_size: as in `grouped_fake_quantize`.
    channel_axis: as in `grouped_fake_quantize`.
    levels: as in `fake_quantize`.
    step: as in `fake_quantize`.

  Returns:
    Steps in float32 (float64 for float64 weights), [channels, groups], channels in row-major order
    of their axes; `spread_group_steps` says which weight has which.

  Raises:
    ValueError: as `grouped_fake_quantize`.
  """
  parts = _parts(jnp.asarray(w), group_size, channel_axis)
  steps = [
    quantizers.quantization_step(part, bits, channel_axis=(0, 1), levels=levels, step=step)
    for part in parts
  ]
  return jnp.concatenate(steps, axis=1)[..., 0]


def spread_group_steps(
  steps: Any,
  shape: tuple[int, ...],
  *,
  group_size: int,
  channel_axis: quantizers.ChannelAxis = -1,
) -> Any:
  """The step of each weight.

  Args:
    steps: [channels, groups] of `grouped_quantization_step`, or these flattened; of JAX or NumPy.
    shape: of the weights.
    group_size: as in `grouped_fake_quantize`.
    channel_axis: as in `grouped_fake_quantize`.

  Returns:
    An array of that shape, of JAX or NumPy as `steps` is.

  Raises:
    ValueError: as `grouped_fake_quantize`.
  """
  groups = _groups(shape, group_size, channel_axis)
  order = _channels_first(len(shape), channel_axis)
  each = steps.reshape(groups.channels, groups.each).repeat(min(group_size, groups.fan_in), axis=1)
  by_channel = each[:, : groups.fan_in].reshape([shape[axis] for axis in order])
  return by_channel.transpose(_inverse(order))


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
  groups = _groups(shape, group_size, channel_axis)
  return groups.channels * groups.each


class _Groups(NamedTuple):
  """How weights are grouped: their channels, the inputs and the groups of each."""

  channels: int
  fan_in: int
  each: int


def _groups(shape, group_size, channel_axis) -> _Groups:
  _check_group_size(group_size)
  inputs = quantizers.reduced_axes(len(shape), channel_axis)
  fan_in = math.prod(shape[axis] for axis in inputs)
  channels = math.prod(n for axis, n in enumerate(shape) if axis not in inputs)
  return _Groups(channels, fan_in, -(-fan_in // group_size))


def _parts(w: jax.Array, group_size: int, channel_axis) -> list[jax.Array]:
  """Weights as [channels, groups, inputs of a group], whole groups and the remainder apart."""
  groups = _groups(w.shape, group_size, channel_axis)
  order = _channels_first(w.ndim, channel_axis)
  rows = jnp.transpose(w, order).reshape(groups.channels, groups.fan_in)
  whole = groups.fan_in - groups.fan_in % group_size
  # Apart: padding would enter the remainder's statistics.
  parts = []
  if whole:
    parts.append(rows[:, :whole].reshape(groups.channels, -1, group_size))
  if whole < groups.fan_in:
    parts.append(rows[:, whole:].reshape(groups.channels, 1, -1))
  return parts


def _channels_first(ndim: int, channel_axis: quantizers.ChannelAxis) -> tuple[int, ...]:
  inputs = quantizers.reduced_axes(ndim, channel_axis)
  return (*(axis for axis in range(ndim) if axis not in inputs), *inputs)


def _inverse(order: tuple[int, ...]) -> tuple[int, ...]:
  return tuple(order.index(axis) for axis in range(len(order)))


def _check_group_size(group_size: int) -> None:
  whole = isinstance(group_size, (int, np.integer)) and not isinstance(group_size, bool)
  if not whole or group_size < 1:
    raise ValueError(f'group_size={group_size!r}; allowed: an int of 1 or more')
