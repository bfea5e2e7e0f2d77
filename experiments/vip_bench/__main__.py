"""`python -m experiments.vip_bench`."""

import os

import jax

from experiments import vip_bench
from experiments.common import huge_pages, launch

if __name__ == '__main__':
  huge_pages.use_huge_pages()
  jax.config.update('jax_num_cpu_devices', len(os.sched_getaffinity(0)))
  launch.main(vip_bench.run, vip_bench.SPEC, 'configs/vip_bench.py', 'runs/vip_bench')
