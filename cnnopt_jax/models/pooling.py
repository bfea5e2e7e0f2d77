"""Pooling as Caffe does it."""

import jax

from cnnopt_jax import vip


def ceil_max_pool(x: jax.Array | vip.VirtualMap, window: int = 3, stride: int = 2) -> jax.Array:
  """Max-pool whose last windows may hang over the edge; [N, H, W, C]."""
  over = [max(window - size, (window - size) % stride) for size in x.shape[1:3]]
  return vip.max_pool(x, window, stride, padding=[(0, high) for high in over])
