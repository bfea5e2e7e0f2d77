"""What a network with few-bit weights and virtual maps costs on a cache of any technology.

    report = codesign.evaluate('vgg16', bits=4, plan='vgg16_round3',
                               cache=nvm.tuned('stt', mib=7), batch=4)
    report.size.total, report.macs, report.l2_reads, report.edp_js, report.area_mm2

A list of bits, plans, caches, batches or DRAMs makes a grid of all combinations:

    caches = [nvm.tuned(name, mib=7) for name in ('sram', 'stt', 'sot')]
    grid = codesign.evaluate('vgg16', bits=[2, 4, 32], plan=['none', 'vgg16_round3'], cache=caches)
    grid.edp_js[0, 1, 2]                      # 2 bits, vgg16_round3, SOT
    print(codesign.table(grid, codesign.pareto(grid)))

This joins `quant`, `vip`, `traffic` and `nvm`, none of which knows another.
"""

from cnnopt_jax.codesign.evaluation import evaluate
from cnnopt_jax.codesign.grid import AXES, CodesignReport
from cnnopt_jax.codesign.presentation import pareto, plot, table

__all__ = ['AXES', 'CodesignReport', 'evaluate', 'pareto', 'plot', 'table']
