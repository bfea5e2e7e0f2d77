"""Ternary weights: Li and Liu, "Ternary weight networks", 2016 (arXiv:1605.04711)."""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from cnnopt_jax.quant import learned, quantizers

Threshold = Literal['mean', 'exact']

THRESHOLDS = ('mean', 'exact')

# Information in one of three levels; a weight stored on its own takes 2 bits, five take 8.
TERNARY_BITS = math.log2(3)

# The paper's between 2/3, best for uniform weights, and 3/4, for Gaussian ones.
_SHARE_OF_MEAN = 0.7


def ternary_quantize(
  w: jax.Array,
  *,
  channel_axis: quantizers.ChannelAxis = None,
  threshold: Threshold = 'mean',
) -> jax.Array:
  """Rounds weights to three levels and lets the gradient through (straight-through estimator).

      q = a sign(w) where |w| > t, and 0 elsewhere;  a = mean of |w| over |w| > t

  with the threshold t of `ternary_threshold`. The scale a is the one of least squared error for
  its threshold; it carries no gradient, and dq/dw = 1. Zeros stay zero.

  Args:
    w: weights, floating point, any shape.
    channel_axis: axis or axes that keep a scale of their own; None for one, as in the paper.
    threshold: as in `ternary_threshold`.

  Returns:
    Quantized weights, shape and dtype of `w`.

  Raises:
    ValueError: if the dtype or an option is not allowed.
  """
  w = jnp.asarray(w)
  limit = ternary_threshold(w, channel_axis=channel_axis, threshold=threshold)
  axes = quantizers.reduced_axes(w.ndim, channel_axis)
  x = lax.stop_gradient(w).astype(limit.dtype)
  kept = jnp.abs(x) > limit
  count = jnp.sum(kept, axis=axes, keepdims=True)
  total = jnp.sum(jnp.where(kept, jnp.abs(x), 0), axis=axes, keepdims=True)
  scale = total / jnp.maximum(count, 1).astype(x.dtype)
  quantized = jnp.where(kept, jnp.sign(x) * scale, 0).astype(w.dtype)
  return quantized + (w - lax.stop_gradient(w))


def ternary_threshold(
  w: jax.Array,
  *,
  channel_axis: quantizers.ChannelAxis = None,
  threshold: Threshold = 'mean',
) -> jax.Array:
  """The magnitude up to which weights become zero.

  With the best scale, the squared error of a threshold t is sum w^2 - gain, where

      gain(t) = (sum of |w| over |w| > t)**2 / (number of |w| > t)

  Args:
    w: weights, floating point, any shape.
    channel_axis: as in `ternary_quantize`.
    threshold: 'mean' for the paper's approximation 0.7 mean|w|; 'exact' for the largest gain of
      all, found by sorting: the largest magnitude that becomes zero, or 0 if none does.

  Returns:
    Thresholds in float32 (float64 for float64 weights), shape of `w` with every axis but
    `channel_axis` of length 1.

  Raises:
    ValueError: as `ternary_quantize`.
  """
  w = jnp.asarray(w)
  learned.check_floats(w=w)
  if threshold not in THRESHOLDS:
    raise ValueError(f'threshold={threshold!r}; allowed: {", ".join(THRESHOLDS)}')
  axes = quantizers.reduced_axes(w.ndim, channel_axis)
  x = jnp.abs(lax.stop_gradient(w)).astype(jnp.promote_types(w.dtype, jnp.float32))
  if threshold == 'mean':
    return _SHARE_OF_MEAN * jnp.mean(x, axis=axes, keepdims=True)
  kept = [axis for axis in range(w.ndim) if axis not in axes]
  rows = jnp.transpose(x, (*kept, *axes)).reshape([w.shape[axis] for axis in kept] + [-1])
  limit = _least_squares_threshold(rows)
  return limit.reshape([1 if axis in axes else w.shape[axis] for axis in range(w.ndim)])


def _least_squares_threshold(x: jax.Array) -> jax.Array:
  """The threshold of greatest gain for each row of magnitudes, [..., n] to [...]."""
  magnitudes = jnp.sort(x, axis=-1, descending=True)
  largest = magnitudes[..., :1]
  # In shares of the largest, so that squares neither overflow nor vanish.
  shares = magnitudes / jnp.where(largest == 0, 1, largest)
  count = jnp.arange(1, x.shape[-1] + 1, dtype=x.dtype)
  gain = jnp.square(jnp.cumsum(shares, axis=-1)) / count
  # Within a run of equal magnitudes the gain is greatest at an end, so no run is split.
  last_kept = jnp.argmax(gain, axis=-1, keepdims=True)
  next_smaller = jnp.concatenate([magnitudes[..., 1:], jnp.zeros_like(largest)], axis=-1)
  return jnp.take_along_axis(next_smaller, last_kept, axis=-1)[..., 0]
