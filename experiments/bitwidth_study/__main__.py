"""`python -m experiments.bitwidth_study`."""

from experiments import bitwidth_study
from experiments.common import launch

if __name__ == '__main__':
  launch.main(
    bitwidth_study.run, bitwidth_study.SPEC, 'configs/bitwidth_study.py', 'runs/bitwidth_study'
  )
