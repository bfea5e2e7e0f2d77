"""Experiments, one runnable name each."""

import sys

from experiments.common import stops

# While Python looks for the module of `python -m experiments.NAME`: a command that is told to stop
# as it imports JAX ends as it does later.
if sys.argv[:1] == ['-m']:
  stops.listen()
