"""`python -m experiments.codesign`."""

from experiments import codesign
from experiments.common import launch

if __name__ == '__main__':
  launch.main(codesign.run, codesign.SPEC, 'configs/codesign.py', 'runs/codesign')
