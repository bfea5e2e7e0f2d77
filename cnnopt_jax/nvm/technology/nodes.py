"""Technologies: transistor rows interpolated to a node and a temperature, with their wires.

Between two nodes every figure is linear in the node, off-currents are geometric; between two
temperatures currents are linear. All of this is host arithmetic in NumPy: a `Technology` is data,
and no model function looks up a table.

The 16 nm row is our own, for studies near DeepNVM's node, and is checked against nothing. It is a
FinFET-like step from the 22 nm rows, per micrometre of effective gate width: gate length and
capacitances shrink by 16/22, supply and threshold drop (0.8, 0.75 and 0.5 V), on-currents stay
(strain and fins make up for the supply), off-currents fall to a third (a subthreshold slope of
about 70 instead of 100 mV a decade), PMOS nearly equals NMOS (ratio 1.2).
"""

import functools
from typing import Any

import numpy as np

from cnnopt_jax.nvm import structures
from cnnopt_jax.nvm.technology import transistor_tables, wires

ROADMAPS = ('HP', 'LSTP', 'LOP')  # High performance, low standby power, low operating power.
OWN_NODE_NM = 16
_OWN_SUPPLY_V = {'HP': 0.8, 'LSTP': 0.75, 'LOP': 0.5}

# Current-to-voltage converter (NVSim's SenseAmp.cpp, from its authors' HSPICE runs):
# node in nm -> latency in ns, energy in fJ, leakage in nW. 45 nm leaks least as printed there.
_CONVERTERS = {
  119: (0.49, 85.2, 14.0),
  89: (0.53, 87.2, 18.7),
  64: (0.62, 90.0, 25.7),
  44: (0.80, 102.6, 4.41),
  31: (1.07, 125.6, 125.4),
  0: (1.45, 150.0, 150.0),
}
CONVERTER_AREA_F2 = 50_000.0
MAX_WIDTH_F = 100.0


def technology_node(
  node_nm: int,
  roadmap: str = 'HP',
  temperature_k: int = 350,
  *,
  local: wires.WireLayer = wires.WireLayer.LOCAL_AGGRESSIVE,
  routing: wires.WireLayer = wires.WireLayer.GLOBAL_AGGRESSIVE,
  drive: structures.Drive = structures.Drive.UNREPEATED,
  max_width_f: float = MAX_WIDTH_F,
  nvsim_compatible: bool = False,
) -> structures.Technology:
  """Builds the technology of a node.

  Args:
    node_nm: 22 to 200, or 16 for our own table.
    roadmap: one of `ROADMAPS`.
    temperature_k: 300 to 400, whole kelvins.
    local: layer of word lines and bit lines.
    routing: layer of the H-tree.
    drive: of the H-tree.
    max_width_f: widest transistor, F.
    nvsim_compatible: between two nodes, keep the gate overlap of the finer one, as NVSim does.

  Returns:
    A `Technology` of Python numbers.

  Raises:
    ValueError: naming the argument, its value and what is allowed.
  """
  nodes = sorted(node for node, _ in transistor_tables.TRANSISTORS)
  if node_nm != OWN_NODE_NM and not nodes[0] <= node_nm <= nodes[-1]:
    raise ValueError(f'node_nm={node_nm}; allowed: {nodes[0]} to {nodes[-1]}, or {OWN_NODE_NM}')
  if roadmap not in ROADMAPS:
    raise ValueError(f'roadmap={roadmap!r}; allowed: ' + ', '.join(ROADMAPS))
  if not 300 <= temperature_k <= 400:
    raise ValueError(f'temperature_k={temperature_k}; allowed: 300 to 400')
  if not max_width_f > 0:
    raise ValueError(f'max_width_f={max_width_f}; allowed: above 0')
  row, fine = _row(node_nm, roadmap)

  def at_temperature(currents):
    return float(np.interp(temperature_k, transistor_tables.TEMPERATURES_K, currents))

  latency, energy, leakage = next(v for least, v in _CONVERTERS.items() if node_nm >= least)
  overlap_source = fine if nvsim_compatible else row
  shared = {
    name: float(value)
    for name, value in row._asdict().items()
    if name not in ('on_n', 'on_p', 'off_n', 'off_p')
  }
  return structures.Technology(
    feature_nm=float(node_nm),
    overlap_cap_ff_per_um=0.2 * overlap_source.gate_cap_ff_per_um,
    on_n_ua_per_um=at_temperature(row.on_n),
    on_p_ua_per_um=at_temperature(row.on_p),
    off_n_na_per_um=at_temperature(row.off_n),
    off_p_na_per_um=at_temperature(row.off_p),
    converter_latency_ns=latency,
    converter_energy_fj=energy,
    converter_leakage_nw=leakage,
    converter_area_f2=CONVERTER_AREA_F2,
    max_width_f=float(max_width_f),
    local=wires.wire(node_nm, local, temperature_k),
    routing=wires.wire(node_nm, routing, temperature_k),
    drive=int(drive),
    temperature_k=float(temperature_k),
    **shared,
  )


@functools.cache
def _row(node_nm: int, roadmap: str):
  """The row of a node, and the tabulated row at or below it."""
  table = transistor_tables.TRANSISTORS
  if node_nm == OWN_NODE_NM:
    row = _own_row(table[22, roadmap], roadmap)
    return row, row
  nodes = sorted(node for node, _ in table)
  low = max(node for node in nodes if node <= node_nm)
  high = min(node for node in nodes if node >= node_nm)
  fine, coarse = table[low, roadmap], table[high, roadmap]
  if low == high:
    return fine, fine
  weight = (node_nm - low) / (high - low)
  blended: dict[str, Any] = {}
  for name in fine._fields:
    a, b = np.asarray(getattr(fine, name)), np.asarray(getattr(coarse, name))
    geometric = name.startswith('off_')
    blended[name] = a ** (1 - weight) * b**weight if geometric else (1 - weight) * a + weight * b
  return type(fine)(**blended), fine


def _own_row(
  base: transistor_tables.TransistorRow, roadmap: str
) -> transistor_tables.TransistorRow:
  """The 16 nm row, by the rule in the module's docstring."""
  shrink = OWN_NODE_NM / 22
  supply = _OWN_SUPPLY_V[roadmap]
  return base._replace(
    vdd_v=supply,
    vth_v=base.vth_v * supply / base.vdd_v,
    gate_length_nm=base.gate_length_nm * shrink,
    gate_cap_ff_per_um=base.gate_cap_ff_per_um * shrink,
    fringe_cap_ff_per_um=base.fringe_cap_ff_per_um * shrink,
    pn_ratio=1.2,
    on_p=tuple(current / 1.2 for current in base.on_n),
    off_n=tuple(current / 3 for current in base.off_n),
    off_p=tuple(current / 3 for current in base.off_p),
  )
