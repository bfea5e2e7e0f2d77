"""Where a virtual convolution's unit ends: what follows it acts on its samples until there.

ViP's order is convolution, norm, activation, and only then interpolation. In a network of plain ops
a *unit* is a planned convolution and what follows it pixel by pixel: bias, norm, activation,
whatever these are made of. It ends at the last map that everything later reads it through, before
the first op that is not of this kind: another convolution, a pool, a sum with another map. So

    conv - norm - relu -+- conv        ends behind the relu;
                        +- add
    conv -+- norm - relu - conv        ends behind the convolution: what the two branches read is
          +- add                       one map, and the relu acts on all of its pixels.

Sums over rows and columns whose results come back to the map through arithmetic alone are a norm's
statistics, and are taken over the samples, as `models.ConvUnit` does. If a matrix product lies
between (squeeze and excitation), the unit has ended before the sum, which is that of the full map.
"""

from collections.abc import Set
from typing import NamedTuple

from cnnopt_jax.vip.virtualization.pixelwise import ELEMENTWISE, acts_on_pixels
from cnnopt_jax.vip.virtualization.program import Program, Step

# What statistics may go through on their way back to the map.
_SMALL = ELEMENTWISE | {'broadcast_in_dim', 'reshape', 'squeeze', 'reduce_sum', 'custom_jvp_call'}

_MAP, _STATISTIC, _OTHER = 'map', 'statistic', 'other'


class Unit(NamedTuple):
  """A planned convolution and what acts on its samples.

  Attributes:
    end: the value that is interpolated.
    steps: indices of the steps after the convolution that belong to it.
  """

  end: int
  steps: Set[int]


def constant_values(program: Program) -> frozenset[int]:
  """Values with rows and columns that are the same in all of them, as broadcasts make them."""
  found: set[int] = set()
  for step in program.steps:
    if step.name == 'broadcast_in_dim' and _repeats(step, program):
      found.update(step.outputs)
    elif step.name in ELEMENTWISE and found.intersection(step.inputs):
      if all(is_constant(i, program, found) for i in step.inputs):
        found.update(step.outputs)
  return frozenset(found)


def _repeats(step: Step, program: Program) -> bool:
  shape = program.shapes[step.outputs[0]]
  if len(shape) < 4:
    return False
  mapped = dict(zip(step.equation.params['broadcast_dimensions'], program.shapes[step.inputs[0]]))
  return all(mapped.get(axis, 1) == 1 for axis in (1, 2)) and shape[1:3] != (1, 1)


def is_constant(value: int, program: Program, constants: Set[int]) -> bool:
  """Whether a value is one number for each image and channel, or fewer."""
  shape = program.shapes[value]
  return value in constants or not shape or (len(shape) >= 4 and shape[1:3] == (1, 1))


def find_units(program: Program, planned: Set[str]) -> dict[int, Unit]:
  """The units of a program.

  Args:
    program: the network.
    planned: names of layers.

  Returns:
    A unit for each planned convolution, by the index of its step.
  """
  constants = constant_values(program)
  last_use: dict[int, int] = {}
  for index, step in enumerate(program.steps):
    last_use.update((value, index) for value in step.inputs)
  return {
    index: _unit(program, index, constants, last_use)
    for index, step in enumerate(program.steps)
    if step.layer in planned
  }


def _unit(program: Program, start: int, constants: Set[int], last_use: dict[int, int]) -> Unit:
  first = program.steps[start].outputs[0]
  grid = program.shapes[first][:3]
  kinds = {first: _MAP}
  end, end_index, followed = first, start, []
  for index, step in enumerate(program.steps[start + 1 :], start + 1):
    if not any(value in kinds for value in step.inputs):
      continue
    kind = _kind(step, program, kinds, constants, grid)
    if kind is None:
      break
    followed.append(index)
    kinds.update((value, kind) for value in step.outputs)
    # A map that is only given out, such as one that was sown, does not count: it is a copy.
    live = [v for v, k in kinds.items() if k == _MAP and last_use.get(v, -1) > index]
    if not live and kind == _MAP and step.outputs[0] in program.outputs:
      live = list(step.outputs)
    if len(live) == 1 and len(program.shapes[live[0]]) == 4 and live[0] in program.floating:
      end, end_index = live[0], index
  return Unit(end, frozenset(index for index in followed if index <= end_index))


def _kind(
  step: Step,
  program: Program,
  kinds: dict[int, str],
  constants: Set[int],
  grid: tuple[int, ...],
) -> str | None:
  """What a step makes of a unit's values; None if it does not belong to the unit."""
  given = {kinds[value] for value in step.inputs if value in kinds}
  if _MAP not in given:
    return _STATISTIC if given == {_STATISTIC} and step.name in _SMALL else _OTHER
  if _OTHER in given:
    return None
  params, shape = step.equation.params, program.shapes[step.outputs[0]]
  if step.name == 'reduce_sum' and {1, 2} <= set(params['axes']):
    return _STATISTIC
  if shape[:3] != grid or not acts_on_pixels(step.equation):
    return None
  alike = (kinds.get(v) == _MAP or is_constant(v, program, constants) for v in step.inputs)
  return _MAP if all(alike) else None
