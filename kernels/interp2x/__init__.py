"""The interpolation of virtual maps."""

from cnnopt_jax.kernels.interp2x.api import interp2x

__all__ = ['interp2x']
