"""The spacing of repeaters against a search for the one of least delay."""

import numpy as np
import pytest
from scipy import optimize

from cnnopt_jax import nvm
from cnnopt_jax.nvm.circuit import links
from cnnopt_jax.nvm.technology import devices


@pytest.mark.parametrize('node_nm', [16, 22, 45])
def test_repeaters_stand_where_a_wire_is_fastest(node_nm):
  """An inverter R, C_in, C_out drives l of wire and the next one: RC of both, over l, is least."""
  with nvm.float64():
    p = devices.process(nvm.technology_node(node_nm))
    found = links.repeater(p)
    n, no_fold = devices.LEAST_WIDTH_F * p.f, 1e9 * p.f
    gate = p.gate_cap * n * (1 + p.pn)
    drain = devices.drain_cap(p, n, no_fold) + devices.drain_cap(p, p.pn * n, no_fold)
    size = np.sqrt((p.r_n + p.r_p / p.pn) / n * p.route_c / (gate * p.route_r))
    driver = (p.r_n + p.r_p / p.pn) / (size * n)

    def delay_per_um(spacing):
      wire_r, wire_c = p.route_r * spacing, p.route_c * spacing
      load = size * (gate + drain) + wire_c
      return float((driver * load + wire_r * (size * gate + wire_c / 2)) / spacing)

    best = optimize.minimize_scalar(delay_per_um, bounds=(1.0, 1e4), method='bounded').x
    # Each spacing pays for its wire once, and for one inverter: their shares give it away.
    wide = [devices.drain_cap(p, ratio * size * n, no_fold) for ratio in (1, p.pn)]
    inverter = float(size * gate + sum(wide))
    spacing = inverter / (float(found.energy) / p.vdd**2 - p.route_c)
  # A drain's edge does not grow with its width, so the caps are not quite in proportion.
  assert spacing == pytest.approx(best, rel=0.05)
