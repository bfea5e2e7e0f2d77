"""Charge-storing, ferroelectric, charge-trap and multi-level cells: closed forms by hand."""

import math

import numpy as np
import pytest

from cnnopt_jax import nvm
from cnnopt_jax.nvm.search import organizations

TECH = nvm.technology_node(22)
SPEC = nvm.CacheSpec(1 << 20)
STT = nvm.CELLS['stt']


def _organization(columns=None, mux_senseamp=None):
  """One of 1 MiB, sequential: any will do whose subarrays are 128 x 512."""
  org = nvm.data_organizations(SPEC, nvm.Mode.SEQUENTIAL)
  wanted = (org.rows == 128) & (org.columns == (columns or 512)) & (org.mat_columns == 4)
  if mux_senseamp is not None:
    wanted &= org.mux_senseamp == mux_senseamp
  return organizations.select(org, np.flatnonzero(wanted)[0])


def test_refresh_power_is_every_row_once_in_the_retention_time():
  org, cell = _organization(), nvm.CELLS['edram']
  ppa = nvm.array_ppa(cell, TECH, org)
  part = ppa.breakdown
  mats = org.mat_rows * org.mat_columns
  rows = org.rows * org.subarray_rows * org.subarray_columns  # Of one mat.
  bitline = part.subarray_read_energy_pj - part.mux_energy_pj - part.mux_decoder_energy_pj
  # pJ per us are 1e-3 mW. A row is opened as for a read, without multiplexers or H-tree.
  power = 1e-3 * mats * rows * (bitline + part.predecoder_energy_pj) / 40
  np.testing.assert_allclose(part.refresh_mw, power, rtol=1e-12)
  halved = nvm.array_ppa(cell.replace(retention_us=20.0), TECH, org)
  np.testing.assert_allclose(halved.breakdown.refresh_mw, 2 * power, rtol=1e-12)
  np.testing.assert_allclose(halved.leakage_mw - ppa.leakage_mw, power, rtol=1e-9)


def test_cells_that_hold_their_bit_are_not_refreshed():
  for name in ('sram', 'stt', 'fefet'):
    cell = nvm.CELLS[name].replace(retention_us=40.0)
    assert nvm.array_ppa(cell, TECH, _organization()).breakdown.refresh_mw == 0


def test_a_refresh_that_takes_all_the_time_is_no_memory():
  org, cell = _organization(), nvm.CELLS['gain_cell']
  ppa = nvm.array_ppa(cell, TECH, org)
  # 128 rows of a write each, which is a read and a store.
  assert ppa.valid
  busy_us = 128e-3 * float(ppa.breakdown.subarray_read_latency_ns)
  assert not nvm.array_ppa(cell.replace(retention_us=busy_us), TECH, org).valid


def test_a_bit_line_of_edram_moves_by_the_shared_charge():
  """Vdd / 2 C / (C + C_line) of 10 mV or more, so a weak cell on a long line is refused."""
  cell, org = nvm.CELLS['edram'], _organization()
  assert nvm.array_ppa(cell, TECH, org).valid
  weak = cell.replace(storage_cap_ff=0.05)
  assert not nvm.array_ppa(weak, TECH, org).valid
  # All its amplifiers are there, whatever is multiplexed behind them.
  few, many = (
    nvm.array_ppa(cell, TECH, _organization(mux_senseamp=degree)).breakdown.sense_energy_pj
    for degree in (1, 4)
  )
  np.testing.assert_allclose(few, many, rtol=1e-12)


def test_a_wider_write_transistor_writes_a_gain_cell_sooner():
  """The store takes ln(10) R C, R of the write transistor and C of the storage node."""
  org, cell = _organization(), nvm.CELLS['gain_cell'].replace(read_width_f=4.0)
  narrow, wide = (
    nvm.array_ppa(cell.replace(access_width_f=width), TECH, org).breakdown for width in (1.0, 2.0)
  )
  r_n = TECH.resistance_multiplier * TECH.vdd_v / (1e-3 * TECH.on_n_ua_per_um)  # kohm um
  saved_ps = math.log(10) * r_n / 0.022 * (1 - 1 / 2) * cell.storage_cap_ff
  saved = narrow.subarray_write_latency_ns - wide.subarray_write_latency_ns
  np.testing.assert_allclose(saved, 1e-3 * saved_ps, rtol=1e-6)


def test_senses_of_a_multi_level_cell_follow_each_other():
  """s amplifier delays instead of one, and s times their energy and that of the cell being read."""
  org = _organization()
  one, three = (
    nvm.array_ppa(STT.replace(sense_steps=float(steps)), TECH, org).breakdown for steps in (1, 3)
  )
  assert three.sense_latency_ns == 3 * one.sense_latency_ns
  np.testing.assert_allclose(
    three.subarray_read_latency_ns - one.subarray_read_latency_ns,
    2 * one.sense_latency_ns,
    rtol=1e-9,
  )
  np.testing.assert_allclose(three.sense_energy_pj, 3 * one.sense_energy_pj, rtol=1e-12)
  np.testing.assert_allclose(three.cell_read_energy_pj, 3 * one.cell_read_energy_pj, rtol=1e-12)


def test_two_bits_a_cell_are_half_the_columns_sensed_twice():
  """512 bits in 256 cells: what an array of 256 columns is, with two senses and the same H-tree."""
  wide = _organization(512)
  half = wide.replace(columns=wide.columns / 2)
  two = nvm.array_ppa(STT.replace(bits_per_cell=2.0), TECH, wide)
  same = nvm.array_ppa(STT.replace(sense_steps=2.0), TECH, half)
  for name in ('area_mm2', 'read_latency_ns', 'read_energy_pj', 'write_energy_pj', 'leakage_mw'):
    np.testing.assert_allclose(getattr(two, name), getattr(same, name), rtol=1e-12, err_msg=name)
  assert two.area_mm2 < nvm.array_ppa(STT, TECH, wide).area_mm2


@pytest.mark.parametrize('pulses', [2, 5])
def test_program_and_verify(pulses):
  """Each of n pulses of 10 ns and 1 pJ is followed by a read of the cells."""
  org = _organization()
  once, often = (
    nvm.array_ppa(STT.replace(write_pulses=float(n)), TECH, org).breakdown for n in (1, pulses)
  )
  read = once.bitline_latency_ns + once.sense_latency_ns
  np.testing.assert_allclose(
    often.subarray_write_latency_ns - once.subarray_write_latency_ns,
    (pulses - 1) * 10 + pulses * read,
    rtol=1e-9,
  )
  opened = once.subarray_read_energy_pj - once.row_decoder_energy_pj - once.mux_energy_pj
  opened -= once.mux_decoder_energy_pj + once.precharge_energy_pj
  np.testing.assert_allclose(
    often.cell_set_energy_pj, pulses * (once.cell_set_energy_pj + opened), rtol=1e-9
  )


def test_a_transistor_that_is_the_cell_has_none_in_series():
  """An FeFET's reads do not depend on a width below 1 F, which files give where there is none."""
  org = _organization()
  a, b = (
    nvm.array_ppa(nvm.CELLS['fefet'].replace(access_width_f=width), TECH, org)
    for width in (0.01, 1.0)
  )
  assert a.read_latency_ns == b.read_latency_ns and a.write_energy_pj == b.write_energy_pj


def test_why_a_cell_cannot_be_built():
  strong = STT.replace(set_current_ua=8e4, reset_current_ua=8e4)
  (reason,) = nvm.obstacles(strong, TECH)
  # 1,930.7 uA / um of 22 nm HP at 350 K: 100 F carry 4.25 mA.
  widest = 100 * 0.022 * 1e-3 * TECH.on_n_ua_per_um
  assert reason.startswith('write current=80 mA') and f'carries {widest:.3g} mA' in reason
  assert f'{80 / (1e-3 * TECH.on_n_ua_per_um * 0.022):.4g} F' in reason
  (reason,) = nvm.obstacles(nvm.CELLS['edram'].replace(storage_cap_ff=1e-3), TECH)
  assert reason.startswith('DRAMCellCapacitance=0.001 fF')
  (reason,) = nvm.obstacles(nvm.CELLS['pcram'].replace(read_current_ua=1e-3), TECH)
  assert reason.startswith('read levels=')
  assert nvm.obstacles(STT, TECH) == []


def test_every_cell_of_the_library_makes_a_cache_at_22_nm():
  found = nvm.edap_tuned(nvm.CELLS, TECH, [1 << 20], tag_cell=nvm.CELLS['sram'])
  assert {name for name, _ in found} == set(nvm.CELLS)
  area = {name: winner.totals.area_mm2 for (name, _), winner in found.items()}
  assert area['ctt'] < area['edram'] < area['sram'] < area['gain_cell']
