"""The residual block's tail with virtual operands, in terms of XLA.

A sum of two virtual maps is virtual, so it is taken on the samples: a quarter of the additions.
"""

import jax
import jax.numpy as jnp

from cnnopt_jax.kernels import taps
from cnnopt_jax.kernels.interp2x import reference as interp2x
from cnnopt_jax.kernels.linear import Linear


def _full(x: jax.Array, size: tuple[int, int]) -> jax.Array:
  """Widened samples to the widened map."""
  return interp2x.interp2x(x, size=size)[0]


def add_relu(
  virtual: jax.Array, other: jax.Array, *, size: tuple[int, int], other_virtual: bool
) -> tuple[jax.Array]:
  """relu of the sum: samples `[N, h, w, C]` and samples or a map `[N, H, W, C]` to a map."""
  return (jax.nn.relu(_sum(virtual, other, size, other_virtual)).astype(virtual.dtype),)


def _sum(virtual, other, size, other_virtual):
  virtual, other = taps.widen(virtual), taps.widen(other)
  return _full(virtual + other, size) if other_virtual else _full(virtual, size) + other


def tangent(
  virtual: jax.Array,
  other: jax.Array,
  positive: jax.Array,
  *,
  size: tuple[int, int],
  other_virtual: bool,
) -> tuple[jax.Array]:
  """Tangents of the operands to that of the map; `positive` says where the sum was."""
  total = _sum(virtual, other, size, other_virtual)
  return (jnp.where(positive, total, 0).astype(virtual.dtype),)


def transposed(
  cotangent: jax.Array, positive: jax.Array, *, size: tuple[int, int], other_virtual: bool
) -> tuple[jax.Array, jax.Array]:
  """Cotangent of the map to those of both operands."""
  masked = jnp.where(positive, cotangent, 0)
  (virtual,) = interp2x.interp2x_transposed(masked, size=size)
  return virtual, virtual if other_virtual else masked


OP = Linear(tangent, transposed)
