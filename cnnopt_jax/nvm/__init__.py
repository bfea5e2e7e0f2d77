"""Caches from the cell up: latency, energy, leakage and area of a memory array and of a cache.

    tech = nvm.technology(22)
    best = nvm.edap_tuned({'stt': nvm.CELLS['stt']}, tech, [4 << 20])
    rows = nvm.explore({'stt': nvm.CELLS['stt']}, tech, [3 << 20, 7 << 20])
    found = nvm.traffic(models.layer_table(model, (224, 224, 3)), nvm.GTX_1080_TI, 4, False)
    demand = nvm.Demand(found.l2_reads, found.l2_writes, sum(found.dram(4 << 20)))
    nvm.evaluate(demand, nvm.CacheFigures.of(best['stt', 4 << 20].totals), nvm.GDDR5X).edp_js

`Cell`, `Technology`, `Wire` and `Organization` are pytrees; `array_ppa` and `cache_ppa` are pure
functions of them; `explore` evaluates all organisations in one program. `traffic` says what a
network reads and writes, `stack_distances` what of it a cache holds, `evaluate` what that costs.
"""

from cnnopt_jax.nvm.array import ArrayPPA, Breakdown, array_ppa
from cnnopt_jax.nvm.cache import CachePPA, CacheTotals, cache_ppa
from cnnopt_jax.nvm.cell_files import read_cell
from cnnopt_jax.nvm.cells import ALIASES, CELLS, named_cell
from cnnopt_jax.nvm.config_files import Config, read_config
from cnnopt_jax.nvm.exploration import Winner, edap, explore
from cnnopt_jax.nvm.gpus import GPUS, GTX_1080_TI, H200, Gpu
from cnnopt_jax.nvm.option_files import OptionFileError
from cnnopt_jax.nvm.organizations import (
  CACTI_SPACE,
  FULL_TAG_SPACE,
  TAG_SPACE,
  WIDE_SPACE,
  CacheSpec,
  Mode,
  Space,
  data_organizations,
  split_capacity,
  tag_organizations,
)
from cnnopt_jax.nvm.precision import float64
from cnnopt_jax.nvm.profiles import KernelProfile, ProfileError, read_profile
from cnnopt_jax.nvm.reuse import ReuseHistogram, reuse_histogram
from cnnopt_jax.nvm.search import Target
from cnnopt_jax.nvm.sensitivities import Sensitivity, edp, sensitivity
from cnnopt_jax.nvm.stack import stack_distances
from cnnopt_jax.nvm.structures import (
  Access,
  Buffering,
  Cell,
  Kind,
  Organization,
  Technology,
  Wire,
)
from cnnopt_jax.nvm.system import (
  GDDR5X,
  HBM,
  NO_DRAM,
  CacheFigures,
  Demand,
  Dram,
  SystemTotals,
  evaluate,
  evaluate_grid,
)
from cnnopt_jax.nvm.technologies import technology
from cnnopt_jax.nvm.traffic import Traffic, traffic
from cnnopt_jax.nvm.tuning import edap_tuned, pareto_set
from cnnopt_jax.nvm.wires import Layer, wire

__all__ = [
  'ALIASES',
  'Access',
  'ArrayPPA',
  'Breakdown',
  'Buffering',
  'CACTI_SPACE',
  'CELLS',
  'CacheFigures',
  'CachePPA',
  'CacheSpec',
  'CacheTotals',
  'Cell',
  'Config',
  'Demand',
  'Dram',
  'FULL_TAG_SPACE',
  'GDDR5X',
  'GPUS',
  'GTX_1080_TI',
  'Gpu',
  'H200',
  'HBM',
  'KernelProfile',
  'Kind',
  'Layer',
  'Mode',
  'NO_DRAM',
  'OptionFileError',
  'Organization',
  'ProfileError',
  'ReuseHistogram',
  'Sensitivity',
  'Space',
  'SystemTotals',
  'TAG_SPACE',
  'Target',
  'Technology',
  'Traffic',
  'WIDE_SPACE',
  'Winner',
  'Wire',
  'array_ppa',
  'cache_ppa',
  'data_organizations',
  'edap',
  'edap_tuned',
  'edp',
  'evaluate',
  'evaluate_grid',
  'explore',
  'float64',
  'named_cell',
  'pareto_set',
  'read_cell',
  'read_config',
  'read_profile',
  'reuse_histogram',
  'sensitivity',
  'split_capacity',
  'stack_distances',
  'tag_organizations',
  'technology',
  'traffic',
  'wire',
]
