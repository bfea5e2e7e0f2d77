"""Flags with which XLA compiles the tests' programs quickly, and how to be without them."""

import os

import jax

# Most of a test's time is XLA compiling a program that runs once: it need not be a good one.
# Convolutions and matrix products are library calls and stay as fast.
QUICK = '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
if jax.__version_info__ < (0, 11):
  # Half of the time that is left goes into MLIR; later versions know no other way. These programs
  # round otherwise beside others than alone: tests of that are marked `default_flags`.
  QUICK += ' --xla_cpu_use_fusion_emitters=false'


def compile_quickly() -> None:
  """For this process and those that it starts; before JAX first computes."""
  os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {QUICK}'.strip()


def default_environment() -> dict[str, str]:
  """The environment of a process that compiles as users' do."""
  return {**os.environ, 'XLA_FLAGS': os.environ.get('XLA_FLAGS', '').replace(QUICK, '').strip()}
