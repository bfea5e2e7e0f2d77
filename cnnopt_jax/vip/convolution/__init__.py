"""Convolution of maps and virtual maps: the op, its forms, and the choice of form."""

from cnnopt_jax.vip.convolution.choice import FORMS, conv_form, conv_forms
from cnnopt_jax.vip.convolution.op import conv

__all__ = ['FORMS', 'conv', 'conv_form', 'conv_forms']
