"""Derivatives of a cache's figures with respect to its cell and its technology.

The organisation is held fixed. At an optimum that is exact: by the envelope theorem
d min_o f(o, x) / dx = df(o*, x) / dx wherever the winner o* is unique, and the number of stages
and folds, which are steps, do not change almost everywhere.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cnnopt_jax import compilation, precision
from cnnopt_jax.nvm import specs, structures
from cnnopt_jax.nvm.circuit import array, cache
from cnnopt_jax.nvm.specs import Mode

# What is not a quantity but a choice.
_CHOICES = (
  'kind',
  'access',
  'senses_voltage',
  'resets_by_voltage',
  'sets_by_voltage',
  'stitching',
  'bits_per_cell',
  'sense_steps',
  'write_pulses',
  'drive',
  'temperature_k',
)


class Sensitivity(NamedTuple):
  """A figure and its derivatives.

  Attributes:
    value: of the figure.
    cell: `{field of Cell: derivative}`, in the figure's unit over the field's.
    technology: `{field of Technology: derivative}`; wires as 'local.resistance_ohm_per_um'.
    cell_elasticity, technology_elasticity: relative change of the figure over relative change of
      the field (derivative times field over value).
  """

  value: float
  cell: dict[str, float]
  technology: dict[str, float]
  cell_elasticity: dict[str, float]
  technology_elasticity: dict[str, float]


def sensitivity(
  figure: Callable[[cache.CacheTotals], jax.Array],
  cell: structures.Cell,
  technology: structures.Technology,
  data_organization: structures.Organization,
  tag_organization: structures.Organization,
  spec: specs.CacheSpec,
  mode: Mode,
  *,
  tag_cell: structures.Cell | None = None,
  tag_technology: structures.Technology | None = None,
  nvsim_compatible: bool = False,
) -> Sensitivity:
  """Differentiates a figure of a cache at given organisations.

  Args:
    figure: from totals to a scalar.
    cell, technology, data_organization, tag_organization, spec, mode, tag_cell, tag_technology,
      nvsim_compatible: as in `cache_ppa`. Tags without a cell or technology of their own move
      with the data's.

  Returns:
    A `Sensitivity` in both of cell and technology.
  """
  cell_values = {
    name: float(getattr(cell, name)) for name in cell.__dataclass_fields__ if name not in _CHOICES
  }
  tech_values = _flatten(technology)
  with precision.float64():
    arguments = jax.tree.map(
      array.as_array,
      (
        cell_values,
        tech_values,
        (cell, technology),
        (
          cell if tag_cell is None else tag_cell,
          technology if tag_technology is None else tag_technology,
        ),
        (tag_cell is None, tag_technology is None),
        (data_organization, tag_organization),
        cache.bus_width(spec),
        specs.CACHE_MODES.index(mode),
      ),
    )
    value, gradients = _gradients(*arguments, figure, nvsim_compatible)
    value = float(value)
    cell_gradient, tech_gradient = jax.tree.map(float, gradients)

  def relative(gradient, values):
    return {name: slope * values[name] / value for name, slope in gradient.items()}

  return Sensitivity(
    value,
    cell_gradient,
    tech_gradient,
    relative(cell_gradient, cell_values),
    relative(tech_gradient, tech_values),
  )


@functools.partial(jax.jit, static_argnums=(8, 9), compiler_options=compilation.QUICKLY)
def _gradients(
  cell_values,
  tech_values,
  data,
  tags,
  tags_follow,
  organizations_,
  width,
  mode,
  figure,
  nvsim_compatible,
):
  """The figure and its gradients in both dicts."""
  data_organization, tag_organization = organizations_

  def evaluate(cell_values, tech_values):
    moved = data[0].replace(**cell_values), _unflatten(data[1], tech_values)
    tag_cell, tag_tech = (
      jax.tree.map(lambda own, other, follows=follows: jnp.where(follows, own, other), *both)
      for both, follows in zip(zip(moved, tags), tags_follow)
    )
    ppa = cache.cache_model(
      moved[0],
      tag_cell,
      moved[1],
      tag_tech,
      data_organization,
      tag_organization,
      cache.bus_of_wires(width, moved[1]),
      mode,
      nvsim_compatible,
    )
    return figure(ppa.totals)

  return jax.value_and_grad(evaluate, argnums=(0, 1))(cell_values, tech_values)


def _flatten(technology: structures.Technology) -> dict[str, float]:
  """All quantities of a technology by name, those of its wires with a prefix."""
  values: dict[str, float] = {}
  for name in technology.__dataclass_fields__:
    field = getattr(technology, name)
    if isinstance(field, structures.Wire):
      values |= {
        f'{name}.{part}': float(getattr(field, part)) for part in field.__dataclass_fields__
      }
    elif name not in _CHOICES:
      values[name] = float(field)
  return values


def _unflatten(
  technology: structures.Technology, values: dict[str, jax.Array]
) -> structures.Technology:
  """The technology with those quantities."""
  wires: dict[str, Any] = {
    name: structures.Wire(
      **{part: values[f'{name}.{part}'] for part in structures.Wire.__dataclass_fields__}
    )
    for name in ('local', 'routing')
  }
  plain: dict[str, Any] = {name: value for name, value in values.items() if '.' not in name}
  return dataclasses.replace(technology, **plain, **wires)
