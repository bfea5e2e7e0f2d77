"""`python -m experiments.vip`."""

from experiments import vip
from experiments.common import huge_pages, launch

if __name__ == '__main__':
  huge_pages.use_huge_pages()
  launch.main(vip.run, vip.SPEC, 'configs/vip_vgg.py', 'runs/vip_vgg')
