"""Technologies: table values, interpolation, and refusals."""

import jax
import numpy as np
import pytest

from cnnopt_jax import nvm


def test_the_row_of_45_nm():
  tech = nvm.technology_node(45, 'HP', 350)
  assert (tech.vdd_v, tech.vth_v, tech.gate_length_nm) == (1.0, 0.12679, 18)
  np.testing.assert_allclose(tech.on_n_ua_per_um, 1745.8, rtol=1e-4)
  np.testing.assert_allclose(tech.off_n_na_per_um, 569, rtol=1e-2)


def test_temperatures_between_columns_are_linear():
  at = [nvm.technology_node(32, 'LSTP', t).off_n_na_per_um for t in (350, 355, 360)]
  np.testing.assert_allclose(at[1], (at[0] + at[2]) / 2, rtol=1e-12)
  assert at[0] < at[2]


def test_nodes_between_rows():
  fine, between, coarse = (nvm.technology_node(node) for node in (32, 40, 45))
  weight = 8 / 13
  np.testing.assert_allclose(between.vdd_v, (1 - weight) * fine.vdd_v + weight * coarse.vdd_v)
  np.testing.assert_allclose(
    between.off_n_na_per_um, fine.off_n_na_per_um ** (1 - weight) * coarse.off_n_na_per_um**weight
  )
  # NVSim keeps the finer node's gate overlap.
  compatible = nvm.technology_node(40, nvsim_compatible=True)
  np.testing.assert_allclose(compatible.overlap_cap_ff_per_um, fine.overlap_cap_ff_per_um)
  assert between.overlap_cap_ff_per_um != compatible.overlap_cap_ff_per_um
  # Its wires are those of the coarser row.
  assert between.local == coarse.local


@pytest.mark.parametrize('roadmap', ['HP', 'LSTP', 'LOP'])
def test_our_16_nm_table_follows_its_rule(roadmap):
  ours, base = nvm.technology_node(16, roadmap), nvm.technology_node(22, roadmap)
  np.testing.assert_allclose(ours.gate_length_nm, base.gate_length_nm * 16 / 22)
  np.testing.assert_allclose(ours.off_n_na_per_um, base.off_n_na_per_um / 3)
  assert ours.on_n_ua_per_um == base.on_n_ua_per_um
  assert ours.local.resistance_ohm_per_um > base.local.resistance_ohm_per_um


@pytest.mark.parametrize(
  'arguments, named',
  [
    ({'node_nm': 21}, 'node_nm=21'),
    ({'node_nm': 201}, 'node_nm=201'),
    ({'node_nm': 22, 'roadmap': 'ULP'}, 'roadmap'),
    ({'node_nm': 22, 'temperature_k': 299}, 'temperature_k=299'),
  ],
)
def test_what_has_no_table_is_refused(arguments, named):
  with pytest.raises(ValueError, match=named):
    nvm.technology_node(**arguments)


def test_a_technology_is_a_pytree_of_numbers():
  leaves = jax.tree.leaves(nvm.technology_node(22))
  assert len(leaves) == 29 and all(isinstance(leaf, (float, int)) for leaf in leaves)


def test_roadmaps_trade_leakage_for_speed():
  high, low = nvm.technology_node(22, 'HP'), nvm.technology_node(22, 'LSTP')
  assert high.on_n_ua_per_um > 2 * low.on_n_ua_per_um
  assert high.off_n_na_per_um > 1000 * low.off_n_na_per_um
