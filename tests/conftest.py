"""Most of a test's time is XLA compiling a program that runs once: it need not be a good one."""

import os

import jax

# Read when JAX first computes. Subprocesses inherit it; convolutions and matrix products are
# library calls and stay as fast.
_QUICKLY = '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {_QUICKLY}'.strip()

# For the tests that split a batch; the others compute on the first.
jax.config.update('jax_num_cpu_devices', 2)
