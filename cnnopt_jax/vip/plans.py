"""Plans: which units of a network compute a virtual map.

A plan is a tuple of unit names. As *data* it is a collection of masks: every unit then computes
its dense map, and where its mask is 1 replaces it by what a virtual map would have been. That
costs more than the dense network, but every plan runs in one compiled program.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

Plan = tuple[str, ...]

# Collection of masks in a network's variables, and the name of each unit's mask in it.
MASK_COLLECTION = 'vip'
MASK_NAME = 'virtual'


def _vgg(*units: str) -> Plan:
  return tuple(f'conv{unit}' for unit in units)


_VGG16_1 = _vgg('1_2', '2_2', '3_3', '4_3', '5_2', '5_3')
_VGG16_2 = _VGG16_1 + _vgg('4_1', '4_2', '5_1')
_VGG16_3 = _VGG16_2 + _vgg('1_1')
_THINET_1 = _vgg('1_2', '3_3', '4_3', '5_3')
_THINET_2 = _THINET_1 + _vgg('2_2', '4_1', '4_2', '5_2')

# Places among ResNet-50's 53 convolutions as the authors number them, from 1.
_RESNET50_1 = (10, 11, *range(17, 21), 23, 24, *range(29, 35), *range(36, 41), 42, 43)
_RESNET50_2 = _RESNET50_1 + (21, *range(46, 51), 52, 53)


def _resnet50(places: Iterable[int]) -> Plan:
  units = ['stem']
  for stage, blocks in enumerate((3, 4, 6, 3)):
    for block in range(blocks):
      # Caffe's order: the convolution of a shortcut stands before its block's own three.
      inside = ('shortcut',) * (block == 0) + ('unit0', 'unit1', 'unit2')
      units += [f'stage{stage}_block{block}/{unit}' for unit in inside]
  return tuple(units[place - 1] for place in places)


# The authors' plans (github.com/cmu-enyac/VirtualPooling); each round is fine-tuned from the last.
PLANS: dict[str, Plan] = {
  'vgg16_round1': _VGG16_1,
  'vgg16_round2': _VGG16_2,
  'vgg16_round3': _VGG16_3,
  'vgg16_round4': _VGG16_3 + _vgg('3_1', '3_2'),
  'thinet_round1': _THINET_1,
  'thinet_round2': _THINET_2,
  'thinet_round3': _THINET_2 + _vgg('1_1', '3_1', '3_2', '5_1'),
  'resnet50_round1': _resnet50(_RESNET50_1),
  'resnet50_round2': _resnet50(_RESNET50_2),
}


def resolve_plan(plan: str | Iterable[str], units: Sequence[str]) -> Plan:
  """Checks a plan against the units of a network.

  Args:
    plan: 'all', 'none', a key of `PLANS`, or names of units.
    units: of the network, in its order.

  Returns:
    The plan, in the network's order.

  Raises:
    ValueError: if the network lacks a unit of the plan, naming it and all that there are.
  """
  if isinstance(plan, str):
    named = {'all': tuple(units), 'none': (), **PLANS}
    if plan not in named:
      raise ValueError(f'plan={plan!r}; allowed: {", ".join(named)}, or names of units')
    plan = named[plan]
  plan = tuple(plan)
  unknown = [name for name in plan if name not in units]
  if unknown:
    raise ValueError(f'plan: no unit {unknown[0]!r}; allowed: {", ".join(units)}')
  return tuple(name for name in units if name in plan)


def subplan(plan: Plan, name: str) -> Plan:
  """The part of a plan that lies in the submodule `name`, seen from there."""
  return tuple(unit.removeprefix(name + '/') for unit in plan if unit.startswith(name + '/'))


def mask_variables(units: Sequence[str], values: jax.Array) -> Mapping[str, Any]:
  """A plan as data: the variable collection that makes units virtual where a value is not zero.

      logits = model.apply({**variables, **vip.mask_variables(units, values)}, images)

  Args:
    units: names of the network's units.
    values: [len(units)], traced or not; under `jax.vmap`, one plan a row.

  Returns:
    One collection, to be merged into a network's variables.
  """
  values = jnp.asarray(values)
  chex.assert_shape(values, (len(units),))
  tree: dict[str, Any] = {}
  for name, value in zip(units, values):
    node = tree
    for part in name.split('/'):
      node = node.setdefault(part, {})
    node[MASK_NAME] = value
  return {MASK_COLLECTION: tree}


def random_plans(
  seed: int, units: Sequence[str], count: int, fractions: tuple[float, float] = (0.4, 0.6)
) -> tuple[Plan, ...]:
  """Plans of units drawn at random, the control for a plan that was thought about.

  Args:
    seed: of the draw.
    units: to draw from.
    count: number of plans.
    fractions: the share of units in a plan is drawn uniformly from this interval.

  Returns:
    The plans, units in the network's order.
  """
  rng = np.random.default_rng(seed)
  plans = []
  for _ in range(count):
    size = round(rng.uniform(*fractions) * len(units))
    chosen = set(rng.choice(len(units), size, replace=False))
    plans.append(tuple(name for i, name in enumerate(units) if i in chosen))
  return tuple(plans)
