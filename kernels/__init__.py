"""Compute kernels, one folder an op; imported as `cnnopt_jax.kernels` only."""
