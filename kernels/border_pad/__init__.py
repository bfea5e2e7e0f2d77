"""Border-exact padding of virtual maps for folded convolutions."""

from cnnopt_jax.kernels.border_pad.api import border_pad

__all__ = ['border_pad']
