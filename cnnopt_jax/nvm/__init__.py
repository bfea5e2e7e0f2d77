"""Caches from the cell up: latency, energy, leakage and area of a memory array and of a cache.

    cache = nvm.tuned('stt', mib=7)
    demand = nvm.Demand(l2_reads=2e7, l2_writes=5e6, dram_accesses=1e7)
    nvm.system_totals(demand, cache.figures, nvm.GDDR5X).edp_js

    tech = nvm.technology_node(22)
    rows = nvm.explore({'stt': nvm.CELLS['stt']}, tech, [3 << 20, 7 << 20])
    fits = nvm.largest_within_area(nvm.CELLS['stt'], tech, area_mm2=2.3)
    years = nvm.lifetime(nvm.CELLS['pcram'], 7 << 20, writes_per_s=1e7, hottest_share=1e-4)

`Cell`, `Technology`, `Wire` and `Organization` are pytrees; `array_ppa` and `cache_ppa` are pure
functions of them; `explore` evaluates all organisations in one program, and `system_totals` says
what a workload's accesses cost. No network is known here: `cnnopt_jax.traffic` counts accesses, and
`cnnopt_jax.codesign` joins the two.

Rooms, each of which knows those before it: `technology`, `circuit`, `search`, `files`,
`validation`. What only some need is exported there: the steps of a search by `nvm.search`,
reference and published figures by `nvm.validation`.
"""

from cnnopt_jax.nvm.circuit import ArrayPPA, CachePPA, CacheTotals, array_ppa, cache_ppa
from cnnopt_jax.nvm.endurance import lifetime
from cnnopt_jax.nvm.files import (
  CellFile,
  Config,
  ConfigDesigns,
  OptionFileError,
  config_cell,
  explore_config,
  read_cell,
  read_cell_file,
  read_config,
)
from cnnopt_jax.nvm.last_level import LastLevelCache, find_cell, tuned
from cnnopt_jax.nvm.search import (
  CACTI_SPACE,
  TAG_SPACE,
  WIDE_SPACE,
  Forced,
  Sensitivity,
  Space,
  Winner,
  data_organizations,
  edap,
  edap_tuned,
  edp,
  explore,
  explore_forced,
  largest_within_area,
  obstacles,
  pareto_set,
  sensitivity,
  tag_organizations,
)
from cnnopt_jax.nvm.specs import CacheSpec, Mode, Target, fitting_ways
from cnnopt_jax.nvm.structures import Access, Cell, Kind, Organization, Technology
from cnnopt_jax.nvm.system import (
  DRAMS,
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
from cnnopt_jax.nvm.technology import (
  ALIASES,
  CELLS,
  WireLayer,
  named_cell,
  technology_node,
  wire,
)
from cnnopt_jax.precision import float64

__all__ = [
  'ALIASES',
  'Access',
  'ArrayPPA',
  'CACTI_SPACE',
  'CELLS',
  'CacheFigures',
  'CachePPA',
  'CacheSpec',
  'CacheTotals',
  'Cell',
  'CellFile',
  'Config',
  'ConfigDesigns',
  'DRAMS',
  'Demand',
  'Dram',
  'Forced',
  'GDDR5X',
  'HBM',
  'Kind',
  'LastLevelCache',
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
  'WireLayer',
  'array_ppa',
  'cache_ppa',
  'config_cell',
  'data_organizations',
  'edap',
  'edap_tuned',
  'edp',
  'explore',
  'explore_config',
  'explore_forced',
  'find_cell',
  'fitting_ways',
  'float64',
  'largest_within_area',
  'lifetime',
  'named_cell',
  'obstacles',
  'pareto_set',
  'read_cell',
  'read_cell_file',
  'read_config',
  'sensitivity',
  'system_totals',
  'system_totals_grid',
  'tag_organizations',
  'technology_node',
  'tuned',
  'wire',
]
