"""Measured time."""

from cnnopt_jax.measure.timing import interleaved_seconds

__all__ = ['interleaved_seconds']
