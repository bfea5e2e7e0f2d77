"""Gradients against central differences at a fixed organisation."""

import numpy as np
import pytest

from cnnopt_jax import nvm
from cnnopt_jax.nvm.search import sensitivities

MB = 1 << 20


@pytest.fixture(scope='module')
def tech():
  return nvm.technology_node(22)


def _tuned(name, tech, capacity):
  return nvm.edap_tuned({name: nvm.CELLS[name]}, tech, [capacity])[name, capacity]


@pytest.mark.parametrize('name', ['stt', 'sram', 'rram', 'sot'])
def test_every_derivative_of_edp_is_a_difference_quotient(name, tech):
  cell, capacity = nvm.CELLS[name], 4 * MB
  winner = _tuned(name, tech, capacity)
  where = (winner.data_organization, winner.tag_organization, nvm.CacheSpec(capacity), winner.mode)
  found = nvm.sensitivity(nvm.edp, cell, tech, *where)
  np.testing.assert_allclose(found.value, nvm.edp(winner.totals), rtol=1e-10)
  tech_values = sensitivities._flatten(tech)
  edp_at = lambda cell, tech: nvm.edp(nvm.cache_ppa(cell, tech, *where).totals)

  checked = 0
  for field, slope in {**found.cell, **found.technology}.items():
    in_cell = field in found.cell
    value = float(getattr(cell, field)) if in_cell else tech_values[field]
    assert np.isfinite(slope), field
    if value == 0:
      continue

    def at(x, field=field, in_cell=in_cell):
      if in_cell:
        return edp_at(cell.replace(**{field: x}), tech)
      return edp_at(cell, sensitivities._unflatten(tech, {**tech_values, field: x}))

    step = 1e-7 * abs(value)
    difference = (at(value + step) - at(value - step)) / (2 * step)
    # Where set and reset are equal, their maximum has a kink: the derivative is the mean of both
    # sides, and truncation is of the order of the step. Rounding: 1e-16 / 1e-7.
    np.testing.assert_allclose(
      slope * value, difference * value, atol=1e-6 * found.value, err_msg=field
    )
    checked += slope != 0
  assert checked > 20


def test_the_envelope_theorem(tech):
  """Searching again after a small step follows the fixed organisation's slope."""
  cell, capacity = nvm.CELLS['stt'], 4 * MB
  options = dict(
    modes=[nvm.Mode.SEQUENTIAL], targets=[nvm.Target.READ_LATENCY], tag_cell=nvm.CELLS['sram']
  )
  best = lambda cell: nvm.explore({'stt': cell}, tech, [capacity], **options)[0]
  winner = best(cell)
  slope = nvm.sensitivity(
    lambda totals: totals.hit_latency_ns,
    cell,
    tech,
    winner.data_organization,
    winner.tag_organization,
    nvm.CacheSpec(capacity),
    winner.mode,
    tag_cell=nvm.CELLS['sram'],
  ).cell['area_f2']
  step = 1e-4
  moved = best(cell.replace(area_f2=cell.area_f2 + step)).totals.hit_latency_ns
  np.testing.assert_allclose(moved - winner.totals.hit_latency_ns, slope * step, rtol=1e-2)


def test_which_cell_parameter_most_reduces_edp_at_3_mb(tech):
  """The worked example: for STT it is the write, pulse before energy; for SOT the area."""
  leading = {}
  for name in ('stt', 'sot'):
    winner = _tuned(name, tech, 3 * MB)
    found = nvm.sensitivity(
      nvm.edp,
      nvm.CELLS[name],
      tech,
      winner.data_organization,
      winner.tag_organization,
      nvm.CacheSpec(3 * MB),
      winner.mode,
    )
    elasticity = dict(found.cell_elasticity)
    # Set and reset are equal and share the slope of their maximum.
    pulse = elasticity.pop('set_pulse_ns') + elasticity.pop('reset_pulse_ns')
    energy = elasticity.pop('set_energy_pj') + elasticity.pop('reset_energy_pj')
    leading[name] = {'pulse': pulse, 'energy': energy, **elasticity}
  assert max(leading['stt'], key=lambda key: leading['stt'][key]) == 'pulse'
  assert leading['stt']['pulse'] > 0.6 and leading['stt']['energy'] > 0.5
  assert max(leading['sot'], key=lambda key: leading['sot'][key]) == 'area_f2'
