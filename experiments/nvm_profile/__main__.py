"""`python -m experiments.nvm_profile`."""

from experiments import nvm_profile
from experiments.common import launch

if __name__ == '__main__':
  launch.main(nvm_profile.run, nvm_profile.SPEC, 'configs/nvm_profile.py', 'runs/nvm_profile')
