"""Runs a network's steps, its planned convolutions virtual."""

from collections.abc import Callable, Sequence, Set
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cnnopt_jax.vip.virtual_map import VirtualMap, written_maps
from cnnopt_jax.vip.virtualization import pixelwise
from cnnopt_jax.vip.virtualization.pixelwise import Constant, Samples
from cnnopt_jax.vip.virtualization.program import Program, Step
from cnnopt_jax.vip.virtualization.rules import apply_rule, convolve, reads_through
from cnnopt_jax.vip.virtualization.units import Unit, constant_values, find_units
from cnnopt_jax.workload import jaxprs


class WrittenMap(NamedTuple):
  """A virtual map that an op makes be written in full.

  Attributes:
    layers: names of the convolutions that the map comes from.
    place: the modules around the op; '' where they have no names, as in nnx, and 'output' for a
      map that the network gives out.
    op: the op: a name of a primitive of JAX.
    shape: [N, H, W, C] of the map.
  """

  layers: tuple[str, ...]
  place: str
  op: str
  shape: tuple[int, ...]

  @property
  def elements(self) -> int:
    """Elements that are written."""
    n, height, width, channels = self.shape
    return n * height * width * channels


Record = Callable[[WrittenMap], None]


class _Virtual:
  """A virtual map in the program; it is written once, however many ops need all of it."""

  def __init__(self, map: VirtualMap, layers: tuple[str, ...]):
    self.map = map
    self.layers = layers
    self._written: jax.Array | None = None

  def full(self, place: str, op: str, record: Record | None) -> jax.Array:
    if self._written is None:
      self._written = self.map.materialize()
      if record is not None:
        record(WrittenMap(self.layers, place, op, self.map.shape))
    return self._written


def run(
  program: Program, planned: Set[str], arguments: Sequence[Any], record: Record | None = None
) -> list[Any]:
  """Computes a program.

  Args:
    program: the network.
    planned: names of the layers that compute virtual maps.
    arguments: its inputs.
    record: is told of every map that is written in full.

  Returns:
    Its outputs.

  Raises:
    ValueError: if a planned convolution cannot be computed, naming it.
  """
  units = find_units(program, planned)
  inside: dict[int, tuple[int, Unit]] = {}
  for index, unit in units.items():
    inside.update((step, (index, unit)) for step in unit.steps)
  constants = constant_values(program)
  values: dict[int, Any] = dict(program.constants)
  values.update(zip(program.inputs, arguments, strict=True))
  results: list[Any]
  owner: int | None
  for index, step in enumerate(program.steps):
    operands = [values[i] for i in step.inputs]
    if index in units:
      results, owner = [_planned(step, operands, record)], index
    elif index in inside and any(isinstance(x, Samples) for x in operands):
      results, owner = [_in_unit(step, operands)], inside[index][0]
    elif any(isinstance(x, _Virtual) for x in operands):
      results, owner = _settled(step, operands, record), None
    elif constants.intersection(step.outputs):
      results, owner = [_constant(step, operands, program)], None
    else:
      results, owner = pixelwise.bind(step.equation, [_full(x) for x in operands]), None
    values.update(zip(step.outputs, results, strict=True))
    if owner is not None and units[owner].end in step.outputs:
      samples, layer = results[0], program.steps[owner].layer
      values[units[owner].end] = _Virtual(VirtualMap(*samples), (layer or '',))
  return [_given_out(values[i], record) for i in program.outputs]


def _full(x: Any, step: Step | None = None, record: Record | None = None) -> Any:
  """A value as an array."""
  if isinstance(x, _Virtual):
    return x.full(step.place if step else 'output', step.name if step else 'output', record)
  return x.full() if isinstance(x, Constant) else x


def _given_out(x: Any, record: Record | None) -> Any:
  if not isinstance(x, Samples):
    return _full(x, None, record)
  # What lies inside a unit leaves it as it would at its end: interpolated.
  shape = x.array.shape
  images = x.array.reshape(*shape[:3], -1)
  full = _Virtual(VirtualMap(images, x.size), ()).full('output', 'output', record)
  return full.reshape(shape[0], *x.size, *shape[3:])


def _planned(step: Step, operands: list[Any], record: Record | None) -> Samples:
  x, kernel = operands[0], _full(operands[1], step, record)

  def compute(x):
    return convolve(step.equation, x, kernel, virtual=True)

  try:
    with _scope(step):
      made = _read(compute, x, step, record) if isinstance(x, _Virtual) else compute(_full(x))
  except ValueError as error:
    raise ValueError(f'plan: {step.layer!r} cannot be virtual: {error}') from error
  return Samples(made.samples, made.size)


def _scope(step: Step) -> Any:
  """The modules' names again, for profilers and tables of the virtual network."""
  return jax.named_scope('/'.join(step.scopes) or step.name)


def _read(compute: Callable, x: _Virtual, step: Step, record: Record | None) -> Any:
  """An op that reads a map with a window; some of its forms write the map."""
  if record is not None and written_maps(compute, x.map):
    record(WrittenMap(x.layers, step.place, step.name, x.map.shape))
  return compute(x.map)


def _in_unit(step: Step, operands: list[Any]) -> Any:
  """An op inside a unit, at the samples."""
  samples = next(x for x in operands if isinstance(x, Samples))
  grid = (samples.array.shape[1], samples.array.shape[2])
  arrays = [x.array if isinstance(x, Samples | Constant) else x for x in operands]
  if step.name == 'reduce_sum' and {1, 2} <= set(step.equation.params['axes']):
    # The program goes on to divide by the number of the map's pixels.
    pixels = samples.size[0] * samples.size[1] / (grid[0] * grid[1])
    total = step.equation.primitive.bind(arrays[0], **step.equation.params)
    return (total * pixels).astype(total.dtype)
  return Samples(pixelwise.on_samples(step.equation, arrays, grid), samples.size)


def _constant(step: Step, operands: list[Any], program: Program) -> Constant:
  """What is the same in all rows and columns, computed once."""
  shape = program.shapes[step.outputs[0]]
  small = (shape[0], 1, 1, *shape[3:])
  params = step.equation.params
  arrays = [x.array if isinstance(x, Constant) else x for x in operands]
  if step.name == 'broadcast_in_dim':
    dims = params['broadcast_dimensions']
    return Constant(jax.lax.broadcast_in_dim(arrays[0], small, dims), shape)
  arrays = [jnp.broadcast_to(x, small) for x in arrays]
  return Constant(step.equation.primitive.bind(*arrays, **params), shape)


def _settled(step: Step, operands: list[Any], record: Record | None) -> list[Any]:
  """An op on maps that are virtual: by its rule, or on what is written."""
  maps = [x for x in operands if isinstance(x, _Virtual)]
  layers = tuple(dict.fromkeys(name for x in maps for name in x.layers))

  def compute(*given):
    rest = iter(given)
    return apply_rule(
      step.equation, [next(rest) if isinstance(x, _Virtual) else x for x in operands]
    )

  with _scope(step):
    if reads_through(step.name) and len(maps) == 1:
      found = _read(compute, maps[0], step, record)
    else:
      found = compute(*(x.map for x in maps))
    if found is None:
      return pixelwise.bind(step.equation, [_full(x, step, record) for x in operands])
  results = found if isinstance(found, list) else [found]
  dtypes = [jaxprs.array_type(var).dtype for var in step.equation.outvars]
  return [
    _Virtual(x, layers) if isinstance(x, VirtualMap) else x.astype(dtype)
    for x, dtype in zip(results, dtypes, strict=True)
  ]
