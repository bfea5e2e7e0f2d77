"""Caches from the cell up: latency, energy, leakage and area of a memory array and of a cache.

    tech = nvm.technology_node(22)
    best = nvm.edap_tuned({'stt': nvm.CELLS['stt']}, tech, [4 << 20])
    rows = nvm.explore({'stt': nvm.CELLS['stt']}, tech, [3 << 20, 7 << 20])
    demand = nvm.Demand(l2_reads=2e7, l2_writes=5e6, dram_accesses=1e7)
    nvm.system_totals(demand, nvm.CacheFigures.of(best['stt', 4 << 20].totals), nvm.GDDR5X).edp_js

`Cell`, `Technology`, `Wire` and `Organization` are pytrees; `array_ppa` and `cache_ppa` are pure
functions of them; `explore` evaluates all organisations in one program, and `system_totals` says
what a workload's accesses cost. No network is known here: `cnnopt_jax.traffic` counts accesses, and
`cnnopt_jax.codesign` joins the two.
"""

from cnnopt_jax.nvm.circuit.array import ArrayPPA, Breakdown, array_ppa
from cnnopt_jax.nvm.circuit.cache import CachePPA, CacheTotals, cache_ppa
from cnnopt_jax.nvm.files.cell_files import read_cell
from cnnopt_jax.nvm.files.config_files import Config, read_config
from cnnopt_jax.nvm.files.option_files import OptionFileError
from cnnopt_jax.nvm.search.exploration import Winner, edap, explore
from cnnopt_jax.nvm.search.organizations import (
  CACTI_SPACE,
  FULL_TAG_SPACE,
  TAG_SPACE,
  WIDE_SPACE,
  Space,
  data_organizations,
  tag_organizations,
)
from cnnopt_jax.nvm.search.sensitivities import Sensitivity, edp, sensitivity
from cnnopt_jax.nvm.search.tuning import edap_tuned, pareto_set
from cnnopt_jax.nvm.specs import CacheSpec, Mode, Target, split_capacity
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
  system_totals,
  system_totals_grid,
)
from cnnopt_jax.nvm.technology.cells import ALIASES, CELLS, named_cell
from cnnopt_jax.nvm.technology.nodes import technology_node
from cnnopt_jax.nvm.technology.wires import WireLayer, wire
from cnnopt_jax.precision import float64

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
  'HBM',
  'Kind',
  'Mode',
  'NO_DRAM',
  'OptionFileError',
  'Organization',
  'Sensitivity',
  'Space',
  'SystemTotals',
  'TAG_SPACE',
  'Target',
  'Technology',
  'WIDE_SPACE',
  'Winner',
  'Wire',
  'WireLayer',
  'array_ppa',
  'cache_ppa',
  'data_organizations',
  'edap',
  'edap_tuned',
  'edp',
  'explore',
  'float64',
  'named_cell',
  'pareto_set',
  'read_cell',
  'read_config',
  'sensitivity',
  'split_capacity',
  'system_totals',
  'system_totals_grid',
  'tag_organizations',
  'technology_node',
  'wire',
]
