"""The platform that a choice is made for: the one that is named, or the one that JAX computes on.

Choices that depend on it (which form of a convolution, whether a kernel gets a transform, whether
members unroll) take `platform` as an argument, so that a program for one machine can be made on
another, and ask here what None stands for.
"""

import jax

PLATFORMS = ('cpu', 'gpu', 'cuda', 'rocm', 'tpu')


def is_cpu(platform: str | None = None) -> bool:
  """Whether a platform is a CPU.

  Args:
    platform: one of `PLATFORMS`; None for `jax.default_backend()`.

  Raises:
    ValueError: if the name is unknown.
  """
  if platform is None:
    return jax.default_backend() == 'cpu'
  if platform not in PLATFORMS:
    raise ValueError(f'{platform=}; allowed: {", ".join(PLATFORMS)}, or None for the default')
  return platform == 'cpu'
