"""Activations in few bits: LSQ with unsigned levels, and PACT.

For comparison with the literature, most of which rounds weights and activations alike. LSQ: Esser
et al., "Learned step size quantization", ICLR 2020 (arXiv:1902.08153). PACT: Choi et al., "PACT:
Parameterized clipping activation for quantized neural networks", 2018 (arXiv:1805.06085).
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnnopt_jax.quant import gaussian, learned


def learned_quantize_activations(
  x: jax.Array,
  step: jax.Array,
  bits: chex.Numeric,
  *,
  batch_axes: int | tuple[int, ...] = 0,
  levels: learned.LearnedLevels = 'unsigned',
  gradient_scale: chex.Numeric | None = None,
) -> jax.Array:
  """Rounds activations to `bits` bits with a step that is trained (LSQ).

  `learned_quantize` on the levels 0, s, ..., (2**bits - 1) s, where negative activations become
  zero, and with the paper's g = 1 / sqrt(N Q_P) for activations: N counts the features that share
  the step, in one example.

  Args:
    x: activations, floating point, any shape.
    step: as in `learned_quantize`, and equal along the batch; `initial_step(x, bits,
      levels='unsigned')` of a first batch.
    bits: as in `learned_quantize`.
    batch_axes: axis or axes that count examples, not features; () where `x` is one example.
    levels: 'unsigned' after a ReLU; 'twos_complement' for activations of either sign.
    gradient_scale: as in `learned_quantize`.

  Returns:
    Quantized activations, shape and dtype of `x`.

  Raises:
    ValueError: as `learned_quantize`, or if a step differs along the batch.
  """
  x, step = jnp.asarray(x), jnp.asarray(step)
  batch_axes = (batch_axes,) if isinstance(batch_axes, int) else tuple(batch_axes)
  if any(not -x.ndim <= axis < x.ndim for axis in batch_axes):
    raise ValueError(f'batch_axes={batch_axes}; allowed: axes of an array of rank {x.ndim}')
  batch = {axis % x.ndim for axis in batch_axes}
  if any(step.shape[axis - x.ndim] != 1 for axis in batch if x.ndim - axis <= step.ndim):
    raise ValueError(f'step.shape={step.shape}; allowed: length 1 along batch_axes={batch_axes}')
  if gradient_scale is None:
    features = [size for axis, size in enumerate(x.shape) if axis not in batch]
    count = int(np.prod(features, dtype=np.int64)) // max(step.size, 1)
    gradient_scale = learned.step_gradient_scale(count, bits, levels)
  return learned.learned_quantize(x, step, bits, levels=levels, gradient_scale=gradient_scale)


def pact(x: jax.Array, alpha: jax.Array, bits: chex.Numeric) -> jax.Array:
  """Clips activations at a level that is trained, and rounds them to `bits` bits (PACT).

      y = clip(x, 0, alpha)
      q = round(y (2**bits - 1) / alpha) alpha / (2**bits - 1)

      dq/dx = 1 where 0 <= x < alpha, and 0 elsewhere
      dq/dalpha = 1 where x >= alpha, and 0 elsewhere

  It takes the place of a ReLU. The paper adds a penalty on alpha**2 to the loss, which is left to
  the optimizer.

  Args:
    x: activations before any nonlinearity, floating point, any shape.
    alpha: clipping level, positive, floating point, of a shape that broadcasts to that of `x`: one
      for a layer in the paper. At zero the output is zero.
    bits: 1 to 8, or 32 to clip without rounding; a Python int or a scalar array, traced or not.

  Returns:
    Quantized activations, shape and dtype of `x`. All NaN where an array `bits` is none of these.

  Raises:
    ValueError: if shapes, dtypes or a Python int `bits` are not allowed.
  """
  x, alpha = jnp.asarray(x), jnp.asarray(alpha)
  learned.check_floats(x=x, alpha=alpha)
  learned.check_broadcast('alpha', alpha.shape, x.shape)
  dtype = jnp.promote_types(x.dtype, jnp.float32)
  highest = learned.level_range(bits, 'unsigned').high.astype(dtype)
  inputs, clip = (lax.stop_gradient(array).astype(dtype) for array in (x, alpha))
  clipped = jnp.clip(inputs, 0, clip)
  share = jnp.where(clipped == 0, 0, clipped / clip)
  # NaN for bits that are not allowed.
  rounded = jnp.round(share * highest) / highest * clip
  quantized = jnp.where(jnp.equal(bits, gaussian.IDENTITY_BITS), clipped, rounded).astype(x.dtype)
  # Exact zeros that carry the gradients.
  above = inputs >= clip
  through = jnp.where((inputs >= 0) & ~above, x - lax.stop_gradient(x), jnp.zeros_like(x))
  clip_through = jnp.where(above, alpha.astype(dtype) - clip, 0)
  return quantized + through + clip_through.astype(x.dtype)
