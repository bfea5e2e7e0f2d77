"""The nouns of the model: a cell, a technology, a wire, an organisation. All are pytrees.

Every leaf is a number or an array of one common batch shape, so a sweep over cells, technologies
or organisations is `jax.vmap` and never a recompilation; kinds and switches are integers, not
Python types. Fields carry the units of the data sheets they come from; `devices.py` computes in
one consistent system (um, ps, fF, kohm, mA, V, fJ, mW), in which no product underflows.
"""

import enum
from typing import Any

from flax import struct

Array = Any  # A float, a NumPy array or a JAX array.


class Kind(enum.IntEnum):
  """What stores the bit."""

  SRAM = 0
  MRAM = 1  # STT and SOT magnetic tunnel junctions.
  PCRAM = 2
  MEMRISTOR = 3  # RRAM, and other two-terminal cells such as ferroelectric diodes.
  EDRAM = 4  # One transistor and a capacitor; a read destroys and restores.
  GAIN_CELL = 5  # Three transistors: the bit stands on a gate, and reads leave it.
  FEFET = 6  # A ferroelectric gate shifts the threshold of the transistor that is read.
  CTT = 7  # Charge trapped in a logic transistor's oxide does.


class Access(enum.IntEnum):
  """What selects the bit."""

  CMOS = 0
  DIODE = 1
  NONE = 2  # Crosspoint.


class Buffering(enum.IntEnum):
  """How word-line and multiplexer drivers are sized."""

  LATENCY = 0  # By logical effort into the load.
  BALANCED = 1  # Up to the least width that gives the current, in as many stages as it takes.
  AREA = 2  # One inverter.


class Drive(enum.IntEnum):
  """How wires between mats are driven."""

  UNREPEATED = 0
  REPEATED = 1  # Inverters of the size and spacing that make it fastest.
  LOW_SWING = 2  # A sized driver and 0.1 V.


@struct.dataclass
class Cell:
  """One bit cell, in the vocabulary of NVSim's `.cell` files.

  A zero energy or power means "not given" and is derived from voltages, currents and pulses.

  Attributes:
    kind: a `Kind`.
    access: an `Access`.
    area_f2: area, F^2.
    aspect_ratio: height over width.
    resistance_on_ohm: low state.
    resistance_off_ohm: high state.
    resistance_on_at_set_ohm: low state at the set voltage (crosspoints).
    resistance_on_at_reset_ohm: low state at the reset voltage (crosspoints).
    resistance_half_reset_ohm: low state at half the reset voltage (crosspoints).
    capacitance_ff: the larger of the two states (cells without a transistor), fF.
    senses_voltage: 1 if a read senses voltage, 0 if it senses current.
    read_voltage_v: 0 if a current is forced instead.
    read_current_ua: forced read current.
    read_power_uw: power of a cell being read, 0 to derive it.
    min_sense_voltage_mv: what the sense amplifier can tell apart.
    resets_by_voltage: 1 if a reset applies `reset_voltage_v`, 0 if `reset_current_ua`.
    reset_voltage_v: voltage over cell and access device.
    reset_current_ua: current.
    reset_pulse_ns: duration.
    reset_energy_pj: per bit, 0 to derive it.
    sets_by_voltage: as for reset.
    set_voltage_v: as for reset.
    set_current_ua: as for reset.
    set_pulse_ns: as for reset.
    set_energy_pj: as for reset.
    access_width_f: gate width of the access transistor, F.
    access_drop_v: voltage over the access device.
    access_leakage_ua: leakage of an unselected access device.
    sram_nmos_width_f: pull-down, F.
    sram_pmos_width_f: pull-up, F.
    stitching: cells between two word-line stitches, 0 for none.
    storage_cap_ff: of the node that holds the charge (eDRAM and gain cells), fF.
    read_width_f: of a gain cell's read transistors, F; 0 for `access_width_f`.
    retention_us: how long a written bit lasts, us, at the temperature of the technology that the
      cell is built in; eDRAM and gain cells are refreshed once in that time. 0 for no limit.
    endurance_writes: writes that a cell survives, 0 for no limit.
    bits_per_cell: log2 of the levels of a multi-level cell.
    sense_steps: senses in turn of one read, 0 for one per bit (successive approximation).
    write_pulses: pulses of one write; more than one are each verified by a read.
  """

  kind: Array
  access: Array
  area_f2: Array
  aspect_ratio: Array
  resistance_on_ohm: Array = 0.0
  resistance_off_ohm: Array = 0.0
  resistance_on_at_set_ohm: Array = 0.0
  resistance_on_at_reset_ohm: Array = 0.0
  resistance_half_reset_ohm: Array = 0.0
  capacitance_ff: Array = 0.0
  senses_voltage: Array = 1
  read_voltage_v: Array = 0.0
  read_current_ua: Array = 0.0
  read_power_uw: Array = 0.0
  min_sense_voltage_mv: Array = 80.0
  resets_by_voltage: Array = 1
  reset_voltage_v: Array = 0.0
  reset_current_ua: Array = 0.0
  reset_pulse_ns: Array = 0.0
  reset_energy_pj: Array = 0.0
  sets_by_voltage: Array = 1
  set_voltage_v: Array = 0.0
  set_current_ua: Array = 0.0
  set_pulse_ns: Array = 0.0
  set_energy_pj: Array = 0.0
  access_width_f: Array = 0.0
  access_drop_v: Array = 0.0
  access_leakage_ua: Array = 0.0
  sram_nmos_width_f: Array = 2.08
  sram_pmos_width_f: Array = 1.23
  stitching: Array = 0.0
  storage_cap_ff: Array = 0.0
  read_width_f: Array = 0.0
  retention_us: Array = 0.0
  endurance_writes: Array = 0.0
  bits_per_cell: Array = 1.0
  sense_steps: Array = 0.0
  write_pulses: Array = 1.0


@struct.dataclass
class Wire:
  """One metal layer.

  Attributes:
    pitch_um: width plus spacing.
    resistance_ohm_per_um: at temperature.
    capacitance_ff_per_um: plates, sidewalls and fringe.
  """

  pitch_um: Array
  resistance_ohm_per_um: Array
  capacitance_ff_per_um: Array


@struct.dataclass
class Technology:
  """Transistors and wires of one node, roadmap and temperature.

  Attributes:
    feature_nm: F.
    vdd_v: supply.
    vth_v: threshold.
    gate_length_nm: physical gate length.
    gate_cap_ff_per_um: ideal gate capacitance per width.
    overlap_cap_ff_per_um: gate overlap per width.
    fringe_cap_ff_per_um: gate fringe per width.
    oxide_cap_ff_per_um2: gate oxide.
    electron_mobility_cm2_per_vs: effective.
    hole_mobility_cm2_per_vs: effective.
    pn_ratio: PMOS over NMOS width in a gate.
    resistance_multiplier: effective over Vdd / Ion.
    on_n_ua_per_um: NMOS on-current at temperature.
    on_p_ua_per_um: PMOS on-current.
    off_n_na_per_um: NMOS off-current at temperature.
    off_p_na_per_um: PMOS off-current.
    converter_latency_ns: current-to-voltage converter of a current sense amplifier.
    converter_energy_fj: per sense.
    converter_leakage_nw: standing power.
    converter_area_f2: area.
    max_width_f: widest transistor allowed, F.
    local: wires inside a mat.
    routing: wires between mats.
    drive: of those, a `Drive`.
    temperature_k: that all of the above holds at; a label, changing it changes nothing.
  """

  feature_nm: Array
  vdd_v: Array
  vth_v: Array
  gate_length_nm: Array
  gate_cap_ff_per_um: Array
  overlap_cap_ff_per_um: Array
  fringe_cap_ff_per_um: Array
  oxide_cap_ff_per_um2: Array
  electron_mobility_cm2_per_vs: Array
  hole_mobility_cm2_per_vs: Array
  pn_ratio: Array
  resistance_multiplier: Array
  on_n_ua_per_um: Array
  on_p_ua_per_um: Array
  off_n_na_per_um: Array
  off_p_na_per_um: Array
  converter_latency_ns: Array
  converter_energy_fj: Array
  converter_leakage_nw: Array
  converter_area_f2: Array
  max_width_f: Array
  local: Wire
  routing: Wire
  drive: Array
  temperature_k: Array


@struct.dataclass
class Organization:
  """How one array is partitioned; integers, made by `organizations.py`.

  A bank is `mat_rows x mat_columns` mats on an H-tree, a mat is up to 2 x 2 subarrays around its
  predecoders, a subarray is `rows x columns` cells. Multiplexer degrees include what an array
  needs to hold several ways in one row.

  Attributes:
    mat_rows: mats in a column.
    mat_columns: mats in a row.
    active_mat_rows: of them, working in one access.
    active_mat_columns: of them, working in one access.
    subarray_rows: subarrays in a column of a mat, 1 or 2.
    subarray_columns: subarrays in a row of a mat, 1 or 2.
    active_subarray_rows: of them, working in one access.
    active_subarray_columns: of them, working in one access.
    mux_senseamp: bit lines that share a sense amplifier.
    mux_output1: sense amplifiers that share a first-level output.
    mux_output2: first-level outputs that share an output.
    rows: word lines of a subarray.
    columns: bit lines of a subarray.
    row_address_bits: address bits that the row predecoders see.
    address_bits: address bits that enter the H-tree.
    distributed_bits: data bits that enter the H-tree and are split between mats.
    broadcast_bits: bits that every branch carries (way select, or the tag to compare).
    ways: ways in one mat of a tag array.
    tag_bits: width of its comparators.
    is_tag: 1 for a tag array.
    set_ways: ways of the set that one access opens together, of which a write changes one.
    write_share: what NVSim divides cell and bit-line write energy by.
    wire_share: what NVSim divides H-tree write energy by.
    buffering: a `Buffering`.
  """

  mat_rows: Array
  mat_columns: Array
  active_mat_rows: Array
  active_mat_columns: Array
  subarray_rows: Array
  subarray_columns: Array
  active_subarray_rows: Array
  active_subarray_columns: Array
  mux_senseamp: Array
  mux_output1: Array
  mux_output2: Array
  rows: Array
  columns: Array
  row_address_bits: Array
  address_bits: Array
  distributed_bits: Array
  broadcast_bits: Array
  ways: Array
  tag_bits: Array
  is_tag: Array
  set_ways: Array
  write_share: Array
  wire_share: Array
  buffering: Array
