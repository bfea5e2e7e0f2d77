"""How programs are compiled: quickly where they are worth no more, and to the same text always."""

import threading
from typing import Any

import jax

# For what runs a few times: initial weights, one design at a time, a grid of figures. Random bits
# compile ten times as fast, the memory model in half the time and then runs at half the speed.
# Products and sums are not contracted either, so figures equal those of NumPy bit for bit.
QUICKLY = {'xla_backend_optimization_level': 0}

# For what runs many times on a CPU, where the time goes into convolutions and products that are
# library calls: training steps compile sooner and run as fast.
ON_CPU = {'xla_backend_optimization_level': 1}

_tracing = threading.Lock()


def compiled(function: Any, *args: Any) -> jax.stages.Compiled:
  """A jitted function compiled for arguments like these.

  Threads trace one after the other: JAX shares what it has traced between them, so that a race
  would show in a program's text, which JAX's persistent cache of programs is searched by.

  Args:
    function: what `jax.jit` returned.
    *args: its arguments, or their shapes, dtypes and shardings.

  Returns:
    The program.
  """
  with _tracing:
    lowered = function.lower(*args)
  return lowered.compile()
