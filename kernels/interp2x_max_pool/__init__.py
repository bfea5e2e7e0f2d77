"""Max-pooling read through the interpolation of virtual maps."""

from cnnopt_jax.kernels.interp2x_max_pool.api import interp2x_max_pool

__all__ = ['interp2x_max_pool']
