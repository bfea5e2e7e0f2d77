"""Devices, wires and trees against numbers worked out by hand."""

import jax
import numpy as np
import pytest

from cnnopt_jax import nvm
from cnnopt_jax.nvm.circuit import array, cell_model, drivers, htree, predecoders
from cnnopt_jax.nvm.technology import devices


@pytest.fixture(scope='module', autouse=True)
def _float64():
  with nvm.float64():
    yield


@pytest.fixture(scope='module')
def process():
  return devices.process(nvm.technology_node(22))


@pytest.mark.parametrize(
  'layer, ohm_per_m, farad_per_m',
  [
    (nvm.WireLayer.LOCAL_AGGRESSIVE, 7.975e7, 2.800e-10),
    (nvm.WireLayer.GLOBAL_AGGRESSIVE, 2.0236e6, 2.9446e-10),
  ],
)
def test_wires_of_22_nm(layer, ohm_per_m, farad_per_m):
  wire = nvm.wire(22, layer, 350)
  np.testing.assert_allclose(wire.resistance_ohm_per_um, 1e-6 * ohm_per_m, rtol=2e-4)
  np.testing.assert_allclose(wire.capacitance_ff_per_um, 1e9 * farad_per_m, rtol=2e-4)


def test_gate_capacitance_and_resistance(process):
  # 22 nm HP, SI: (1.2 * 3.83 + 3 * 1.6) 1e-10 F/m; 1.45 * 0.9 V / 1930.7 A/m.
  np.testing.assert_allclose(process.gate_cap, 9.396e-10 * 1e9, rtol=1e-12)
  np.testing.assert_allclose(process.r_n, 1.45 * 0.9 / 1930.7 * 1e3, rtol=1e-12)
  # mu Cox / (2 L) * min(L v / mu, Vdd - Vth): velocity saturation wins.
  saturation = 10e-9 * 1e5 / 397.26e-4
  assert saturation < 0.9 - 0.12872
  expected = 397.26e-4 * 3.83e-2 / 2 / 10e-9 * saturation
  np.testing.assert_allclose(process.gm_n, expected * 1e3 * 1e-6, rtol=1e-12)


def test_horowitz_of_a_step_is_rc_ln_2():
  np.testing.assert_allclose(devices.horowitz(3.0, 0.7, 0.0), 3.0 * np.log(2), rtol=1e-12)
  # 2 ps constant, beta 0.5, rise 4 ps: sqrt((2 ln 2)^2 + 0.5 * 2 * 4).
  np.testing.assert_allclose(
    devices.horowitz(2.0, 0.5, 4.0), np.sqrt(4 * np.log(2) ** 2 + 4), rtol=1e-12
  )


def test_drain_of_an_unfolded_and_a_folded_transistor(process):
  f = 0.022
  junction = 1 / (1 + 0.9 / 0.9) ** 0.5
  sidewall, channel = (x / 2**0.33 for x in (0.25, 0.05))
  width, length = 8 * f, 2.5 * f
  flat = length * width * junction + (2 * length + width) * sidewall + width * channel
  np.testing.assert_allclose(devices.drain_cap(process, width, 10 * f), flat, rtol=1e-12)
  # 8 F wide in a region 6 F high: ceil(8 / (6 - 3)) = 3 fingers, drain 2.5 F + 2 * 1.5 F long.
  length, height = 5.5 * f, 6 * f
  folded = length * height * junction + (2 * length + height) * sidewall + 3 * height * channel
  np.testing.assert_allclose(devices.drain_cap(process, width, height), folded, rtol=1e-12)


def test_inverter_layout(process):
  # 1.5 F and 3 F: no folding; 2 * 2.5 F contacts + 1 F gate, 4.5 F + 2 F gap + 4 F rails.
  height, width = devices.gate_size(process, 1.0, 1.5 * 0.022, 3.0 * 0.022)
  np.testing.assert_allclose([height, width], [10.5 * 0.022, 6 * 0.022], rtol=1e-12)


def test_sram_cell_leakage_per_bit():
  # 0.9 V * 1.0572 A/m * 22 nm * (2 * 2.08 + 1.31) = 114.5 nW.
  tech = nvm.technology_node(22)
  process = devices.process(tech)
  model = cell_model.cell_model(process, nvm.CELLS['sram'], False)
  np.testing.assert_allclose(model.leakage, 114.5e-6, rtol=1e-3)


def test_chain_of_a_unit_load_is_one_inverter(process):
  least = drivers.nand_input_cap(process, 1)
  decoder = jax.jit(drivers.size_decoder)(process, 0, 1.0, least)
  assert decoder.stages == 1
  delay, rise = drivers.decoder_delay(process, decoder, 0.0)
  np.testing.assert_allclose(rise, 2 * delay)
  np.testing.assert_allclose(delay, np.log(2) * decoder.stage_tau[0], rtol=1e-12)


@pytest.mark.parametrize('effort, stages', [(3.0, 1), (60.0, 3), (5e3, 5), (2e5, 9)])
def test_number_of_stages(process, effort, stages):
  # floor(log4(F) + 1/2) - 1, the next odd number: log4 of 60 is 2.95, of 5000 6.14, of 2e5 8.8.
  least = drivers.nand_input_cap(process, 1)
  assert jax.jit(drivers.size_decoder)(process, 0, 1.0, effort * least).stages == stages


def test_empty_predecoder_costs_nothing(process):

  @jax.jit
  def blocks(bits, load):
    return predecoders.block(process, predecoders.tables(process, False)[0], bits, load)

  block = blocks(np.array([0, 3]), np.array([5.0, 5.0]))
  assert all(field[0] == 0 for field in block)
  assert all(field[1] > 0 for field in block)


def test_htree_of_the_forced_1_mb_design(process):
  # By hand: mats of 161.981 x 140.246 um, 4 x 4, one active row, 14 address and 512 data bits.
  # Horizontal wires 2 w and w, vertical ones h and h / 2; delay 1.15 R' C' (sum of squares);
  # 526 bits on 2 w, then a vertical split, 525 on h, ..., data halving between columns.
  org = nvm.data_organizations(nvm.CacheSpec(1 << 20, 64, 1), nvm.Mode.RAM)
  match = ((org.mat_rows == 4) & (org.mat_columns == 4)).nonzero()[0][0]
  org = array.structures.Organization(
    **{name: getattr(org, name)[match] for name in org.__dataclass_fields__}
  )
  assert (org.address_bits, org.distributed_bits, org.broadcast_bits) == (14, 512, 0)
  height, width = 161.981, 140.246
  tree = htree.htree(process, org, height, width)
  wire = nvm.wire(22, nvm.WireLayer.GLOBAL_AGGRESSIVE, 350)
  squares = 5 * width**2 + (1 + 0.25) * height**2
  rc_ps = 1e-3 * wire.resistance_ohm_per_um * wire.capacitance_ff_per_um
  np.testing.assert_allclose(tree.delay, 1.15 * rc_ps * squares, rtol=1e-12)
  np.testing.assert_allclose(tree.delay, 89.864, rtol=1e-4)
  bits = 526 * 2 * width + 525 * height + 2 * (13 + 256) * width + 2 * (12 + 256) * height / 2
  np.testing.assert_allclose(tree.energy, wire.capacitance_ff_per_um * 0.81 * bits, rtol=1e-12)
  np.testing.assert_allclose(tree.energy, 83.824e3, rtol=1e-4)
