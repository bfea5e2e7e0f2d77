"""What several tests of virtual maps need."""

import jax.numpy as jnp
import numpy as np

from cnnopt_jax import vip
from tests.vip import oracle

SIZES = ((1, 1), (2, 1), (3, 2), (5, 6), (8, 7))


def random(shape, seed=0, dtype=np.float64):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def random_map(size, channels, n=2, seed=0, dtype=np.float64):
  samples = tuple(-(-s // 2) for s in size)
  return vip.VirtualMap(random((n, *samples, channels), seed, dtype), size)


def full(x):
  """What a virtual map stands for, by the oracle."""
  return oracle.restore(np.asarray(x.samples, np.float64), x.size)
