"""`python -m experiments.sweep_bench`."""

from experiments import sweep_bench
from experiments.common import launch

if __name__ == '__main__':
  launch.main(sweep_bench.run, sweep_bench.SPEC, 'configs/sweep_bench.py', 'runs/sweep_bench')
