"""Which platform a choice is made for, where the caller does not say."""

import jax


def resolve(platform: str | None) -> str:
  """`platform`, or the name of the backend that JAX computes on by default: 'cpu', 'gpu', 'tpu'."""
  return platform or jax.default_backend()
