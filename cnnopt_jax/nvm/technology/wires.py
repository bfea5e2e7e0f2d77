"""Wire layers of each node: resistance and capacitance per length.

    R' = rho(T) / ((t - b)(w - 2 b)),  rho(T) = rho (1 + 0.0039 (T - 293)),
    C' = 2 e0 3.9 w / h + 2 e0 1.5 k t / s + 0.115 fF/um,

with width w = spacing s = pitch / 2, thickness t = aspect w, barrier b, dielectric height h and
constant k between neighbours (Miller factor 1.5). Geometry: NVSim's Wire.cpp (CACTI 6.5 and the
ITRS interconnect chapters); a node between two rows uses the wires of the coarser one.
"""

import enum
from typing import NamedTuple

from cnnopt_jax.nvm import structures

VACUUM_PERMITTIVITY_FF_PER_UM = 8.85e-3
VERTICAL_DIELECTRIC = 3.9
MILLER_FACTOR = 1.5
FRINGE_FF_PER_UM = 0.115
REFERENCE_K, RESISTIVITY_PER_K = 293.0, 0.0039


class WireLayer(enum.Enum):
  """Metal layer and how optimistic its dielectric and barrier are."""

  LOCAL_AGGRESSIVE = 'LocalAggressive'
  LOCAL_CONSERVATIVE = 'LocalConservative'
  SEMI_AGGRESSIVE = 'SemiAggressive'
  SEMI_CONSERVATIVE = 'SemiConservative'
  GLOBAL_AGGRESSIVE = 'GlobalAggressive'
  GLOBAL_CONSERVATIVE = 'GlobalConservative'


class WireRow(NamedTuple):
  """Cross-section of one layer.

  Attributes:
    pitch_um: width plus spacing.
    aspect_ratio: thickness over width.
    dielectric_um: height over the layer below.
    dielectric_constant: between neighbours.
    barrier_um: liner on each side and below.
    resistivity_ohm_nm: copper at 293 K, grown by scattering in narrow wires.
  """

  pitch_um: float
  aspect_ratio: float
  dielectric_um: float
  dielectric_constant: float
  barrier_um: float
  resistivity_ohm_nm: float


def _rows(constants, **layers):
  """Six rows: layer -> (pitch, aspect ratios, heights, barriers, resistivity), pairs as below."""
  return {
    WireLayer[f'{name}_{kind}']: WireRow(
      pitch, aspects[i], heights[i], constants[i], barriers[i], resistivity
    )
    for name, (pitch, aspects, heights, barriers, resistivity) in layers.items()
    for i, kind in enumerate(('AGGRESSIVE', 'CONSERVATIVE'))
  }


# A pair is (aggressive, conservative). First the dielectric constants, then for each layer pitch,
# aspect ratios, dielectric heights and barriers in um, and resistivity in ohm nm.
WIRES = {
  200: _rows(
    (3.75, 3.75 * 3.038 / 2.709),
    LOCAL=(0.450, (2.4, 1.2), (1.0, 1.0), (0.016, 0.0128), 22),
    SEMI=(0.575, (2.1, 1.75), (1.0, 1.0), (0.016, 0.0128), 22),
    GLOBAL=(0.945, (2.1, 2.1 * 2.2 / 2.7), (2.0, 2.2), (0.016, 0.0128), 22),
  ),
  120: _rows(
    (3.3, 3.6),
    LOCAL=(0.240, (1.6, 1.4), (0.48, 0.48), (0.012, 0.010), 22),
    SEMI=(0.320, (1.7, 1.5), (0.48, 0.48), (0.012, 0.010), 22),
    GLOBAL=(0.475, (2.1, 1.9), (0.96, 1.1), (0.012, 0.010), 22),
  ),
  90: _rows(
    (2.709, 3.038),
    LOCAL=(0.225, (2.4, 2.0), (0.48, 0.48), (0.010, 0.008), 22),
    SEMI=(0.360, (2.4, 2.0), (0.48, 0.48), (0.010, 0.008), 22),
    GLOBAL=(0.720, (2.7, 2.2), (0.96, 1.1), (0.010, 0.008), 22),
  ),
  65: _rows(
    (2.303, 2.734),
    LOCAL=(0.1625, (2.7, 2.0), (0.405, 0.405), (0.0, 0.006), 22),
    SEMI=(0.260, (2.7, 2.0), (0.405, 0.405), (0.0, 0.006), 22),
    GLOBAL=(0.520, (2.8, 2.2), (0.81, 0.77), (0.0, 0.006), 22),
  ),
  45: _rows(
    (2.6, 2.9),
    LOCAL=(0.102, (1.8, 1.8), (0.0918, 0.0918), (0.0, 0.0033), 40.8),
    SEMI=(0.180, (1.8, 1.8), (0.162, 0.162), (0.0, 0.0033), 40.8),
    GLOBAL=(0.360, (2.34, 2.34), (0.63, 0.55), (0.0, 0.01), 20.6),
  ),
  32: _rows(
    (2.82, 3.16),
    LOCAL=(0.064, (1.8, 1.8), (0.0576, 0.0576), (0.0, 0.0026), 50),
    SEMI=(0.128, (1.9, 1.9), (0.1216, 0.1216), (0.0, 0.0026), 50),
    GLOBAL=(0.256, (2.34, 2.34), (0.42, 0.385), (0.0, 0.0078), 25),
  ),
  22: _rows(
    (2.55, 3.0),
    LOCAL=(0.044, (1.9, 1.9), (0.0418, 0.0418), (0.0, 0.0021), 60),
    SEMI=(0.088, (1.9, 1.9), (0.0836, 0.0836), (0.0, 0.0021), 60),
    GLOBAL=(0.176, (2.34, 2.34), (0.28875, 0.2646875), (0.0, 0.0063), 30),
  ),
  # Ours: the 22 nm cross-section shrunk by 16/22. Scattering adds to bulk copper (17 ohm nm) in
  # inverse proportion to the width, so 60 becomes 17 + 43 * 22/16 and 30 becomes 17 + 13 * 22/16.
  16: _rows(
    (2.55, 3.0),
    LOCAL=(0.032, (1.9, 1.9), (0.0304, 0.0304), (0.0, 0.0015), 76.1),
    SEMI=(0.064, (1.9, 1.9), (0.0608, 0.0608), (0.0, 0.0015), 76.1),
    GLOBAL=(0.128, (2.34, 2.34), (0.21, 0.1925), (0.0, 0.0046), 34.9),
  ),
}


def wire(node_nm: int, layer: WireLayer, temperature_k: float = 350.0) -> structures.Wire:
  """Builds one layer's wire.

  Args:
    node_nm: 16 to 200; between two rows the coarser one counts.
    layer: which metal.
    temperature_k: of the copper.

  Returns:
    A `Wire` of Python floats.

  Raises:
    ValueError: if the node is outside the tables.
  """
  if not min(WIRES) <= node_nm <= max(WIRES):
    raise ValueError(f'node_nm={node_nm}; allowed: {min(WIRES)} to {max(WIRES)}')
  row = WIRES[min(node for node in WIRES if node >= node_nm)][layer]
  width = spacing = row.pitch_um / 2
  thickness = row.aspect_ratio * width
  resistivity = (
    1e-3 * row.resistivity_ohm_nm * (1 + RESISTIVITY_PER_K * (temperature_k - REFERENCE_K))
  )  # ohm um
  resistance = resistivity / ((thickness - row.barrier_um) * (width - 2 * row.barrier_um))
  plates = VERTICAL_DIELECTRIC * width / row.dielectric_um
  sidewalls = MILLER_FACTOR * row.dielectric_constant * thickness / spacing
  capacitance = 2 * VACUUM_PERMITTIVITY_FF_PER_UM * (plates + sidewalls) + FRINGE_FF_PER_UM
  return structures.Wire(row.pitch_um, resistance, capacitance)
