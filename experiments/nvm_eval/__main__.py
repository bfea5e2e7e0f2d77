"""`python -m experiments.nvm_eval`."""

from experiments import nvm_eval
from experiments.common import launch

if __name__ == '__main__':
  launch.main(nvm_eval.run, nvm_eval.SPEC, 'configs/nvm_iso_capacity.py', 'runs/nvm_eval')
