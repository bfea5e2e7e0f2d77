"""`python -m experiments.mixed_precision`."""

from experiments import mixed_precision
from experiments.common import launch

if __name__ == '__main__':
  launch.main(
    mixed_precision.run, mixed_precision.SPEC, 'configs/mixed_precision.py', 'runs/mixed_precision'
  )
