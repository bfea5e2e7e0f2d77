"""Batch norm whose gradient reads a map as few times as it can."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax


class BatchNorm(nn.Module):
  """`flax.linen.BatchNorm` over all axes but the last, with its variables and its results.

  In training the derivative is `batch_norm`'s.

  Attributes:
    use_running_average: normalize by the running statistics, as in inference.
    momentum: of the running statistics.
    epsilon: added to the variance.
  """

  use_running_average: bool
  momentum: float = 0.9
  epsilon: float = 1e-5

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [..., C] to the same shape; float32 at least."""
    shape = x.shape[-1:]
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, shape, jnp.float32)
    running_var = self.variable('batch_stats', 'var', jnp.ones, shape, jnp.float32)
    scale = self.param('scale', nn.initializers.ones, shape, jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, shape, jnp.float32)
    if self.use_running_average:
      factor = lax.rsqrt(running_var.value + self.epsilon) * scale
      return (x - running_mean.value) * factor + bias
    y, mean, var = batch_norm(x, scale, bias, self.epsilon)
    if not self.is_initializing():
      for running, value in ((running_mean, mean), (running_var, var)):
        running.value = self.momentum * running.value + (1 - self.momentum) * value
    return y


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def batch_norm(
  x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Normalizes each channel by its own mean and variance, then scales and shifts it.

  Its derivative is written out, so that its transpose sums over the map once for `bias` and once
  for `scale`, and the gradient of `x` shares both sums.

  Args:
    x: [..., C].
    scale: [C].
    bias: [C].
    epsilon: added to the variance.

  Returns:
    The result, [..., C], and the mean and the variance of each channel, [C].
  """
  x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  axes = tuple(range(x.ndim - 1))
  mean = x.mean(axes)
  var = jnp.maximum(0.0, jnp.square(x).mean(axes) - jnp.square(mean))
  return (x - mean) * (lax.rsqrt(var + epsilon) * scale) + bias, mean, var


@batch_norm.defjvp
def _batch_norm_jvp(epsilon, primals, tangents):
  x, scale, bias = primals
  dx, dscale, dbias = tangents
  y, mean, var = batch_norm(x, scale, bias, epsilon)
  average = functools.partial(jnp.mean, axis=tuple(range(x.ndim - 1)))
  dx = dx.astype(y.dtype)
  centered, root = x - mean, lax.rsqrt(var + epsilon)
  unit, dunit = centered * root, dx * (root * scale)
  # Each sum over the map stands once, for its use in dx and in dscale or dbias alike.
  dy = dunit + (dbias - average(dunit)) + unit * (dscale - average(unit * dunit))
  return (y, mean, var), (dy, average(dx), 2 * average(centered * dx))
