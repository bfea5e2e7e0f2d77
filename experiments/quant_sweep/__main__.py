"""`python -m experiments.quant_sweep`."""

from experiments import quant_sweep
from experiments.common import launch

if __name__ == '__main__':
  launch.main(quant_sweep.run, quant_sweep.SPEC, 'configs/quant_sweep.py', 'runs/quant_sweep')
