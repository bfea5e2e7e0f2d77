"""Which organisations there are, and the best of them.

Beside what `cnnopt_jax.nvm` exports, this holds the steps of a search one by one: `problem`
enumerates and pads, `evaluate_arrays` computes all totals, `pick_alone` takes the winners.
"""

from cnnopt_jax.nvm.search.designs import Forced, explore_forced
from cnnopt_jax.nvm.search.exploration import Problem, Winner, explore, problem
from cnnopt_jax.nvm.search.iso_area import largest_within_area
from cnnopt_jax.nvm.search.metrics import edap, edp
from cnnopt_jax.nvm.search.obstacles import obstacles
from cnnopt_jax.nvm.search.organizations import (
  CACTI_SPACE,
  FULL_TAG_SPACE,
  TAG_SPACE,
  WIDE_SPACE,
  Space,
  data_organizations,
  tag_organizations,
)
from cnnopt_jax.nvm.search.programs import evaluate_arrays, pick_alone, picked_size
from cnnopt_jax.nvm.search.sensitivities import Sensitivity, sensitivity
from cnnopt_jax.nvm.search.tuning import edap_tuned, pareto_set

__all__ = [
  'CACTI_SPACE',
  'FULL_TAG_SPACE',
  'Forced',
  'Problem',
  'Sensitivity',
  'Space',
  'TAG_SPACE',
  'WIDE_SPACE',
  'Winner',
  'data_organizations',
  'edap',
  'edap_tuned',
  'edp',
  'evaluate_arrays',
  'explore',
  'explore_forced',
  'largest_within_area',
  'obstacles',
  'pareto_set',
  'pick_alone',
  'picked_size',
  'problem',
  'sensitivity',
  'tag_organizations',
]
