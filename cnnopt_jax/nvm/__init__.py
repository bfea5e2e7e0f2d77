"""Caches from the cell up: latency, energy, leakage and area of a memory array and of a cache.

    tech = nvm.technology(22)
    best = nvm.edap_tuned({'stt': nvm.CELLS['stt']}, tech, [4 << 20])
    rows = nvm.explore({'stt': nvm.CELLS['stt']}, tech, [3 << 20, 7 << 20])

`Cell`, `Technology`, `Wire` and `Organization` are pytrees; `array_ppa` and `cache_ppa` are pure
functions of them; `explore` evaluates all organisations in one program.
"""

from cnnopt_jax.nvm.array import ArrayPPA, Breakdown, array_ppa
from cnnopt_jax.nvm.cache import CachePPA, CacheTotals, cache_ppa
from cnnopt_jax.nvm.cell_files import read_cell
from cnnopt_jax.nvm.cells import ALIASES, CELLS, named_cell
from cnnopt_jax.nvm.config_files import Config, read_config
from cnnopt_jax.nvm.exploration import Winner, edap, explore
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
from cnnopt_jax.nvm.technologies import technology
from cnnopt_jax.nvm.tuning import edap_tuned, pareto_set
from cnnopt_jax.nvm.wires import Layer, wire

__all__ = [
    'ALIASES', 'Access', 'ArrayPPA', 'Breakdown', 'Buffering', 'CACTI_SPACE', 'CELLS', 'CachePPA',
    'CacheSpec', 'CacheTotals', 'Cell', 'Config', 'FULL_TAG_SPACE', 'Kind', 'Layer', 'Mode',
    'OptionFileError', 'Organization', 'ReuseHistogram', 'Sensitivity', 'Space', 'TAG_SPACE',
    'Target', 'Technology', 'WIDE_SPACE', 'Winner', 'Wire', 'array_ppa', 'cache_ppa',
    'data_organizations', 'edap', 'edap_tuned', 'edp', 'explore', 'float64', 'named_cell',
    'pareto_set', 'read_cell', 'read_config', 'reuse_histogram', 'sensitivity', 'split_capacity',
    'stack_distances', 'tag_organizations', 'technology', 'wire',
]
