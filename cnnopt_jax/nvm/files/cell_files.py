"""Reads `.cell` files into a `Cell`, and refuses what they cannot mean.

Fields are those of NVSim, DESTINY, NVMExplorer and MemSysExplorer, and of our own `BitsPerCell`,
`SenseSteps`, `WritePulses` and `Endurance`. Kinds modelled: SRAM, MRAM, PCRAM and memristor behind
a CMOS transistor, a diode or nothing; eDRAM of one and of three transistors, FeFET, charge-trap
transistors, and multi-level cells of them. NAND flash is written in pages and is no cache.

What a file leaves out has NVSim's defaults, or, with a note, ours: an SRAM's transistor widths, a
retention of eDRAM, all electric figures of a charge-trap cell, the endurance of a kind.
"""

import math
import pathlib
from typing import NamedTuple

from cnnopt_jax.nvm import structures
from cnnopt_jax.nvm.files.option_files import (
  Option,
  Options,
  anything,
  choice,
  fail,
  note,
  number,
  or_word,
  read_options,
  whole,
)
from cnnopt_jax.nvm.technology import cells

_Kind, _Access = structures.Kind, structures.Access
_positive = number(above=True)
_mode = choice({'voltage': 1, 'current': 0})
# A write at the supply, as eDRAM has it: no figure of its own.
_write_voltage = or_word(number(float('-inf')), {'vdd': 0.0})

# Field of the file -> (field of `Cell`, option).
_FIELDS = {
  'CellArea': ('area_f2', Option(_positive, 'F^2')),
  'CellAspectRatio': ('aspect_ratio', Option(_positive)),
  'ResistanceOn': ('resistance_on_ohm', Option(_positive, 'ohm')),
  'ResistanceOff': ('resistance_off_ohm', Option(_positive, 'ohm')),
  'ResistanceOnAtReadVoltage': ('resistance_on_ohm', Option(_positive, 'ohm')),
  'ResistanceOffAtReadVoltage': ('resistance_off_ohm', Option(_positive, 'ohm')),
  'ResistanceOnAtSetVoltage': ('resistance_on_at_set_ohm', Option(_positive, 'ohm')),
  'ResistanceOnAtResetVoltage': ('resistance_on_at_reset_ohm', Option(_positive, 'ohm')),
  'ResistanceOnAtHalfResetVoltage': ('resistance_half_reset_ohm', Option(_positive, 'ohm')),
  'ReadMode': ('senses_voltage', Option(_mode)),
  'ReadVoltage': ('read_voltage_v', Option(number(), 'V')),
  'ReadCurrent': ('read_current_ua', Option(number(), 'uA')),
  'ReadPower': ('read_power_uw', Option(number(), 'uW')),
  'MinSenseVoltage': ('min_sense_voltage_mv', Option(_positive, 'mV')),
  'ResetMode': ('resets_by_voltage', Option(_mode)),
  'ResetVoltage': ('reset_voltage_v', Option(_write_voltage, 'V')),
  'ResetCurrent': ('reset_current_ua', Option(number(), 'uA')),
  'ResetPulse': ('reset_pulse_ns', Option(_positive, 'ns')),
  'ResetEnergy': ('reset_energy_pj', Option(number(), 'pJ')),
  'SetMode': ('sets_by_voltage', Option(_mode)),
  'SetVoltage': ('set_voltage_v', Option(_write_voltage, 'V')),
  'SetCurrent': ('set_current_ua', Option(number(), 'uA')),
  'SetPulse': ('set_pulse_ns', Option(_positive, 'ns')),
  'SetEnergy': ('set_energy_pj', Option(number(), 'pJ')),
  'AccessCMOSWidth': ('access_width_f', Option(_positive, 'F')),
  'AccessCMOSWidthR': ('read_width_f', Option(_positive, 'F')),
  'VoltageDropAccessDevice': ('access_drop_v', Option(number(), 'V')),
  'LeakageCurrentAccessDevice': ('access_leakage_ua', Option(number(), 'uA')),
  'SRAMCellNMOSWidth': ('sram_nmos_width_f', Option(_positive, 'F')),
  'SRAMCellPMOSWidth': ('sram_pmos_width_f', Option(_positive, 'F')),
  'Stitching': ('stitching', Option(number())),
  'SenseSteps': ('sense_steps', Option(whole(1))),
  'WritePulses': ('write_pulses', Option(whole(1))),
}
_KINDS = {
  'SRAM': _Kind.SRAM,
  'MRAM': _Kind.MRAM,
  'STTRAM': _Kind.MRAM,
  'SOTRAM': _Kind.MRAM,
  'PCRAM': _Kind.PCRAM,
  'PCM': _Kind.PCRAM,
  'memristor': _Kind.MEMRISTOR,
  'RRAM': _Kind.MEMRISTOR,
  'ReRAM': _Kind.MEMRISTOR,
  'MLCRRAM': _Kind.MEMRISTOR,
  'FeDiode': _Kind.MEMRISTOR,
  'DRAM': _Kind.EDRAM,
  'eDRAM': _Kind.EDRAM,
  'eDRAM3T': _Kind.GAIN_CELL,
  'eDRAM3T333': _Kind.GAIN_CELL,
  'FeFET': _Kind.FEFET,
  'MLCFeFET': _Kind.FEFET,
  'CTT': _Kind.CTT,
  'MLCCTT': _Kind.CTT,
  'FBRAM': None,
  'SLCNAND': None,
  'MLCNAND': None,
}
_ACCESSES = {
  'CMOS': _Access.CMOS,
  'diode': _Access.DIODE,
  'None': _Access.NONE,
  'BJT': None,
}
_CAPACITANCES = ('CapacitanceOn', 'CapacitanceOff')
# Fields of the formats that say nothing this model asks for; NVSim ignores most of them too.
_SILENT = (
  'ProcessNode',
  'ReadEnergy',
  'ReadFloating',
  'WordlineBoostRatio',
  'ResistanceOffAtSetVoltage',
  'ResistanceOffAtResetVoltage',
  'ResistanceOnAtHalfReadVoltage',
  'ResistanceOffAtHalfReadVoltage',
  'MaxStorageNodeDrop',
)
_IGNORED = {
  'InputFingers': 'amplifiers of multi-level cells sense in steps (SenseSteps)',
  'GateOxThicknessFactor': 'of floating-body cells',
  'SOIDeviceWidth': 'of floating-body cells',
  'GateCouplingRatio': 'of flash',
  'FlashEraseVoltage': 'of flash',
  'FlashProgramVoltage': 'of flash',
  'FlashPassVoltage': 'of flash',
  'FlashEraseTime': 'of flash',
  'FlashProgramTime': 'of flash',
  'Temperature': 'a cell takes the temperature of the technology that it is built in',
}
DEFAULT_RETENTION_US = 40.0  # Of 45 nm trench eDRAM: `cells.CELLS['edram']`.
DEFAULT_LEVELS = 4  # Of a multi-level kind.

_OPTIONS = {
  'MemCellType': Option(choice(_KINDS)),
  'AccessType': Option(choice(_ACCESSES)),
  **{name: option for name, (_, option) in _FIELDS.items()},
  **{name: Option(_positive, 'F', farad=True) for name in _CAPACITANCES},
  'DRAMCellCapacitance': Option(_positive, 'F', farad=True),
  'RetentionTime': Option(or_word(_positive, {'unknown': None}), 'us'),
  'CellLevels': Option(whole(2)),
  'BitsPerCell': Option(whole(1)),
  'Endurance': Option(or_word(_positive, {'unlimited': 0.0, 'infinite': 0.0})),
  **{name: Option(anything) for name in _SILENT},
  **{name: Option(anything, None, why) for name, why in _IGNORED.items()},
}


class CellFile(NamedTuple):
  """A `.cell` file as read.

  Attributes:
    cell: the cell.
    notes: `file:line: field: what was ignored or assumed`, one a line.
  """

  cell: structures.Cell
  notes: tuple[str, ...]


def read_cell(path: str | pathlib.Path) -> structures.Cell:
  """Reads a `.cell` file.

  Args:
    path: the file.

  Returns:
    The cell; what the file leaves out has NVSim's defaults.

  Raises:
    OptionFileError: `file:line: field: problem` for a missing (line 0), misspelt or impossible
      field.
    OSError: if the file cannot be read.
  """
  return read_cell_file(path).cell


def read_cell_file(path: str | pathlib.Path) -> CellFile:
  """Reads a `.cell` file with notes on what in it was ignored or assumed; raises as `read_cell`."""
  path = pathlib.Path(path)
  entries = read_options(path, _OPTIONS)
  notes = list(entries.notes)
  if 'MemCellType' not in entries:
    raise fail(path, 0, 'MemCellType', 'missing')
  kind, access = entries['MemCellType'].value, _access(entries)
  for name in _needed(entries, kind, access):
    if not any(alternative in entries for alternative in name.split('|')):
      raise fail(path, 0, name.replace('|', ' or '), 'missing')
  values = {'kind': kind, 'access': access}
  for name, entry in entries.items():
    if name in _FIELDS:
      field, _ = _FIELDS[name]
      values[field] = (
        float(entry.value) if type(entry.value) is int and name in _COUNTS else (entry.value)
      )
  for name, field in (('DRAMCellCapacitance', 'storage_cap_ff'),):
    if name in entries:
      values[field] = 1e15 * entries[name].value
  if any(name in entries for name in _CAPACITANCES):
    values['capacitance_ff'] = 1e15 * max(
      entries[name].value for name in _CAPACITANCES if name in entries
    )
  _assume(path, entries, kind, values, notes)
  _check(path, entries, structures.Cell(**values), notes, values)
  return CellFile(structures.Cell(**values), tuple(notes))


_COUNTS = ('SenseSteps', 'WritePulses')


def _access(entries: Options) -> structures.Access:
  """What selects the bit; a charge-trap cell is itself the transistor."""
  kind = entries['MemCellType'].value
  if kind == _Kind.CTT:
    return _Access.CMOS
  return entries.get_value('AccessType', _Access.CMOS)


def _needed(entries: Options, kind: structures.Kind, access: structures.Access) -> list[str]:
  """Fields that a cell of this kind cannot do without; `a|b` is either."""
  needed = ['MemCellType', 'CellArea', 'CellAspectRatio']
  if kind in (_Kind.SRAM, _Kind.CTT):
    return needed
  if access == _Access.CMOS and kind != _Kind.FEFET:
    needed.append('AccessCMOSWidth')
  if kind in (_Kind.EDRAM, _Kind.GAIN_CELL):
    return [*needed, 'DRAMCellCapacitance']
  needed += [
    'ResistanceOn|ResistanceOnAtReadVoltage',
    'ResistanceOff|ResistanceOffAtReadVoltage',
    'ResetPulse',
    'SetPulse',
  ]
  by_voltage = entries.get_value('ReadMode', 1)
  needed.append('ReadVoltage|ReadCurrent' if by_voltage else 'ReadVoltage')
  for write in ('Reset', 'Set'):
    by_voltage = entries.get_value(f'{write}Mode', 1)
    needed.append(f'{write}Voltage' if by_voltage else f'{write}Current')
  if access != _Access.CMOS:
    needed.append('CapacitanceOn|CapacitanceOff')
    needed.append('ResetCurrent|ResistanceOnAtResetVoltage')
  if access == _Access.NONE:
    needed += ['ResistanceOnAtResetVoltage', 'ResistanceOnAtHalfResetVoltage']
    needed += ['SetEnergy|ResistanceOnAtSetVoltage']
  return needed


def _assume(path, entries, kind, values, notes) -> None:
  """Fills in, with notes, what a kind's files may leave out."""

  def take(field, value, name, words):
    if field not in values:
      values[field] = value
      notes.append(note(path, 0, name, f'not given; {words}'))

  library = cells.CELLS
  if kind == _Kind.SRAM:
    width = library['sram'].access_width_f
    take('access_width_f', width, 'AccessCMOSWidth', f"{width:g} F, the library's SRAM, taken")
  if kind == _Kind.CTT:
    values.setdefault('senses_voltage', library['ctt'].senses_voltage)
    for field in (
      *('resistance_on_ohm', 'resistance_off_ohm', 'read_voltage_v', 'min_sense_voltage_mv'),
      *('reset_voltage_v', 'reset_pulse_ns', 'set_voltage_v', 'set_pulse_ns', 'access_width_f'),
    ):
      name = next(name for name, (other, _) in _FIELDS.items() if other == field)
      value = getattr(library['ctt'], field)
      take(field, value, name, f'{value:g}, our own charge-trap figure, taken')
  if kind == _Kind.FEFET:
    values.setdefault('access_width_f', 1.0)
  if kind in (_Kind.EDRAM, _Kind.GAIN_CELL):
    retention = entries.get_value('RetentionTime')
    if retention is not None:
      values['retention_us'] = retention
    take(
      'retention_us', DEFAULT_RETENTION_US, 'RetentionTime', f'{DEFAULT_RETENTION_US:g} us taken'
    )
  elif entries.get_value('RetentionTime') is not None:
    values['retention_us'] = entries['RetentionTime'].value
  _assume_levels(path, entries, values, notes)
  if 'Endurance' in entries:
    values['endurance_writes'] = entries['Endurance'].value
  elif cells.ENDURANCE_WRITES[kind]:
    typical = cells.ENDURANCE_WRITES[kind]
    take('endurance_writes', typical, 'Endurance', f'{typical:g} writes, of its kind, taken')


def _assume_levels(path, entries, values, notes) -> None:
  """Bits of a cell from its levels, or from the name of its kind."""
  line = entries['MemCellType'].line
  multilevel = entries['MemCellType'].text.upper().startswith('MLC')
  if 'BitsPerCell' in entries:
    values['bits_per_cell'] = float(entries['BitsPerCell'].value)
  elif 'CellLevels' in entries:
    bits = math.log2(entries['CellLevels'].value)
    if bits != int(bits):
      raise fail(
        path,
        entries['CellLevels'].line,
        'CellLevels',
        f'{entries["CellLevels"].value}; allowed: a power of two',
      )
    values['bits_per_cell'] = bits
  elif multilevel:
    values['bits_per_cell'] = math.log2(DEFAULT_LEVELS)
    notes.append(note(path, 0, 'CellLevels', f'not given; {DEFAULT_LEVELS} taken'))
  bits = values.get('bits_per_cell', 1.0)
  if bits > 1 and values['kind'] in (_Kind.SRAM, _Kind.EDRAM, _Kind.GAIN_CELL):
    raise fail(path, entries.line('BitsPerCell', 'CellLevels') or line, 'BitsPerCell', 'allowed: 1')


def _check(path: pathlib.Path, entries: Options, cell, notes, values) -> None:
  """Refuses values that contradict each other."""
  if cell.kind in (_Kind.SRAM, _Kind.EDRAM, _Kind.GAIN_CELL):
    if cell.access != _Access.CMOS:
      raise fail(
        path,
        entries.line('AccessType'),
        'AccessType',
        'such a cell has transistors; allowed: CMOS',
      )
    return
  if cell.resistance_off_ohm <= cell.resistance_on_ohm:
    raise fail(
      path,
      entries.line('ResistanceOff', 'ResistanceOffAtReadVoltage'),
      'ResistanceOff',
      f'{cell.resistance_off_ohm:g}; allowed: above ResistanceOn ({cell.resistance_on_ohm:g})',
    )
  if cell.read_voltage_v == 0 and (not cell.senses_voltage or cell.read_current_ua == 0):
    raise fail(
      path,
      entries.line('ReadVoltage', 'ReadCurrent'),
      'ReadVoltage',
      '0; allowed: above 0' + (' (or a ReadCurrent)' if cell.senses_voltage else ''),
    )
  _check_read_drop(path, entries, cell, notes, values)
  for write, by_voltage, voltage, current in (
    ('Reset', cell.resets_by_voltage, cell.reset_voltage_v, cell.reset_current_ua),
    ('Set', cell.sets_by_voltage, cell.set_voltage_v, cell.set_current_ua),
  ):
    if by_voltage and abs(voltage) <= cell.access_drop_v:
      raise fail(
        path,
        entries.line(f'{write}Voltage'),
        f'{write}Voltage',
        f'{voltage:g}; allowed: above VoltageDropAccessDevice ({cell.access_drop_v:g})',
      )
    if not by_voltage and current == 0:
      raise fail(path, entries.line(f'{write}Current'), f'{write}Current', '0; allowed: above 0')


def _check_read_drop(path, entries, cell, notes, values) -> None:
  """A read needs voltage over the cell.

  A selector's drop is often given at the write: a cell behind a diode is read at its own voltage.
  """
  derived = cell.read_power_uw == 0 and cell.read_voltage_v != 0
  if not derived or cell.access_drop_v < cell.read_voltage_v:
    return
  line = entries.line('VoltageDropAccessDevice')
  if cell.access != _Access.DIODE:
    raise fail(
      path,
      line,
      'VoltageDropAccessDevice',
      f'{cell.access_drop_v:g}; allowed: below ReadVoltage ({cell.read_voltage_v:g})',
    )
  power = 1e6 * cell.read_voltage_v**2 / cell.resistance_on_ohm
  values['read_power_uw'] = power
  notes.append(
    note(
      path,
      line,
      'VoltageDropAccessDevice',
      f'{cell.access_drop_v:g} is not below ReadVoltage ({cell.read_voltage_v:g}); ReadPower '
      f'{power:.3g} uW, without the drop, taken',
    )
  )
