"""A small library of named cells, each with its source.

`stt`, `stt_aggressive`, `sram`, `rram` and `pcram` carry the figures of NVSim's sample `.cell`
files (github SEAL-UCSB/NVSim, commit 6334d00; `pcram` there after Lee et al., ISCA 2009). `sot` is
our sample of a spin-orbit-torque cell in the same format. `paper_stt` and `paper_sot` are
DeepNVM++'s bit cells (arXiv 2012.04559) AS RECALLED AND UNVERIFIED: pulses, energies and area
ratios to a 146 F^2 SRAM cell; what the recollection lacks is taken from `stt` and `sot`.

`edram` is a trench cell of 0.067 um^2 at 45 nm with 18 fF and 40 us (Barth et al., JSSC 46.1, 2011)
and `gain_cell` a three-transistor one of 0.16 um^2 at 28 nm with 3 fF and 28 us (Narinx et al.,
A-SSCC 2019), both as MemSysExplorer (github TuftsECS/MemSysExplorer) quotes them. `fefet` carries
the figures of a sample of github lpentecost/nvsim-merged. `ctt` is of logic transistors: its area
is that sample's, resistances and pulses are our own round figures (programming takes tens of
milliseconds at about 2 V: Khan et al., EDL 38, 2017, recalled).
"""

from cnnopt_jax.nvm import structures

_Kind, _Access = structures.Kind, structures.Access


def _mtj(
  area_f2,
  aspect_ratio,
  current_ua,
  set_ns,
  reset_ns,
  set_pj,
  reset_pj,
  *,
  on_ohm=3e3,
  read_power_uw=30.0,
  access_width_f=8.0,
):
  """A magnetic tunnel junction behind a transistor, read by current at 0.25 V."""
  return structures.Cell(
    kind=_Kind.MRAM,
    access=_Access.CMOS,
    area_f2=area_f2,
    aspect_ratio=aspect_ratio,
    resistance_on_ohm=on_ohm,
    resistance_off_ohm=2 * on_ohm,
    senses_voltage=0,
    read_voltage_v=0.25,
    read_power_uw=read_power_uw,
    min_sense_voltage_mv=25.0,
    resets_by_voltage=0,
    reset_current_ua=current_ua,
    reset_pulse_ns=reset_ns,
    reset_energy_pj=reset_pj,
    sets_by_voltage=0,
    set_current_ua=current_ua,
    set_pulse_ns=set_ns,
    set_energy_pj=set_pj,
    access_width_f=access_width_f,
    access_drop_v=0.15,
  )


# Writes that cells of a kind survive, 0 for no limit; all recalled, as orders of magnitude: phase
# change 1e8 (Lee et al., ISCA 2009), metal oxides 1e6 to 1e12 (Wong et al., Proc. IEEE 100, 2012),
# ferroelectric HfO2 gates 1e5 (Trentzsch et al., IEDM 2016), charge trapping 1e4 (Khan et al., EDL
# 38, 2017). Magnetic junctions outlive a machine (above 1e15).
ENDURANCE_WRITES = {
  _Kind.SRAM: 0.0,
  _Kind.MRAM: 0.0,
  _Kind.PCRAM: 1e8,
  _Kind.MEMRISTOR: 1e8,
  _Kind.EDRAM: 0.0,
  _Kind.GAIN_CELL: 0.0,
  _Kind.FEFET: 1e5,
  _Kind.CTT: 1e4,
}

CELLS = {
  'sram': structures.Cell(
    kind=_Kind.SRAM,
    access=_Access.CMOS,
    area_f2=146.0,
    aspect_ratio=1.46,
    access_width_f=1.31,
    sram_nmos_width_f=2.08,
    sram_pmos_width_f=1.23,
  ),
  'stt': _mtj(54.0, 0.54, 80.0, 10.0, 10.0, 1.0, 1.0),
  'stt_aggressive': _mtj(
    34.5, 0.96, 40.82, 5.0, 5.0, 0.252, 0.252, on_ohm=6e3, read_power_uw=23.4, access_width_f=4.5
  ),
  'sot': _mtj(81.5, 0.6, 25.0, 0.4, 0.4, 0.0125, 0.0125),
  'paper_stt': _mtj(49.64, 0.54, 80.0, 8.4, 7.78, 1.1, 2.2),
  'paper_sot': _mtj(42.34, 0.6, 25.0, 0.313, 0.243, 0.08, 0.08),
  'rram': structures.Cell(
    kind=_Kind.MEMRISTOR,
    access=_Access.NONE,
    area_f2=4.0,
    aspect_ratio=1.0,
    resistance_on_ohm=1e6,
    resistance_off_ohm=1e7,
    resistance_on_at_set_ohm=1e5,
    resistance_on_at_reset_ohm=1e5,
    resistance_half_reset_ohm=5e5,
    capacitance_ff=0.1,
    senses_voltage=0,
    read_voltage_v=0.4,
    read_power_uw=0.16,
    reset_voltage_v=2.0,
    reset_pulse_ns=10.0,
    reset_energy_pj=0.6,
    set_voltage_v=2.0,
    set_pulse_ns=10.0,
    set_energy_pj=0.6,
    endurance_writes=ENDURANCE_WRITES[_Kind.MEMRISTOR],
  ),
  'pcram': structures.Cell(
    kind=_Kind.PCRAM,
    access=_Access.CMOS,
    area_f2=9.0,
    aspect_ratio=1.0,
    resistance_on_ohm=1e3,
    resistance_off_ohm=1e6,
    read_current_ua=40.0,
    resets_by_voltage=0,
    reset_current_ua=300.0,
    reset_pulse_ns=40.0,
    sets_by_voltage=0,
    set_current_ua=150.0,
    set_pulse_ns=150.0,
    access_width_f=2.0,
    access_drop_v=0.3,
    endurance_writes=ENDURANCE_WRITES[_Kind.PCRAM],
  ),
  'edram': structures.Cell(
    kind=_Kind.EDRAM,
    access=_Access.CMOS,
    area_f2=33.1,
    aspect_ratio=1.45,
    access_width_f=1.0,
    min_sense_voltage_mv=10.0,
    storage_cap_ff=18.0,
    retention_us=40.0,
  ),
  'gain_cell': structures.Cell(
    kind=_Kind.GAIN_CELL,
    access=_Access.CMOS,
    area_f2=204.0,
    aspect_ratio=1.62,
    access_width_f=1.31,
    min_sense_voltage_mv=10.0,
    storage_cap_ff=3.0,
    retention_us=28.0,
  ),
  'fefet': structures.Cell(
    kind=_Kind.FEFET,
    access=_Access.CMOS,
    area_f2=10.0,
    aspect_ratio=1.0,
    resistance_on_ohm=1e6,
    resistance_off_ohm=1e7,
    senses_voltage=0,
    read_voltage_v=0.05,
    read_power_uw=0.125,
    reset_voltage_v=3.0,
    reset_pulse_ns=1340.0,
    reset_energy_pj=3.11e-3,
    set_voltage_v=3.0,
    set_pulse_ns=1340.0,
    set_energy_pj=3.11e-3,
    access_width_f=1.0,
    endurance_writes=ENDURANCE_WRITES[_Kind.FEFET],
  ),
  'ctt': structures.Cell(
    kind=_Kind.CTT,
    access=_Access.CMOS,
    area_f2=8.0,
    aspect_ratio=2.0,
    resistance_on_ohm=1e4,
    resistance_off_ohm=1e5,
    senses_voltage=0,
    read_voltage_v=0.25,
    min_sense_voltage_mv=25.0,
    reset_voltage_v=2.0,
    reset_pulse_ns=1e7,
    set_voltage_v=2.0,
    set_pulse_ns=1e7,
    access_width_f=1.0,
    endurance_writes=ENDURANCE_WRITES[_Kind.CTT],
  ),
}

ALIASES = {'sttaggr': 'stt_aggressive', 'paperSTT': 'paper_stt', 'paperSOT': 'paper_sot'}


def named_cell(name: str) -> structures.Cell:
  """Looks a cell up by name or alias.

  Raises:
    KeyError: naming the known cells.
  """
  key = ALIASES.get(name, name)
  if key not in CELLS:
    raise KeyError(f'cell {name!r}; known: ' + ', '.join(sorted({*CELLS, *ALIASES})))
  return CELLS[key]
