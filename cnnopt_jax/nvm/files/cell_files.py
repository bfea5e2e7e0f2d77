"""Reads NVSim's `.cell` files into a `Cell`, and refuses what it cannot mean.

Kinds modelled: SRAM, MRAM, PCRAM and memristor, behind a CMOS transistor, a diode or nothing.
Fields that NVSim reads without using them (or, like `ReadEnergy`, does not read at all although
its samples have them) are accepted and ignored.
"""

import pathlib

from cnnopt_jax.nvm import structures
from cnnopt_jax.nvm.files.option_files import (
  Entry,
  Option,
  anything,
  choice,
  fail,
  number,
  read_options,
)

_Kind, _Access = structures.Kind, structures.Access
_positive = number(above=True)
_mode = choice({'voltage': 1, 'current': 0})

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
  'ResetVoltage': ('reset_voltage_v', Option(number(float('-inf')), 'V')),
  'ResetCurrent': ('reset_current_ua', Option(number(), 'uA')),
  'ResetPulse': ('reset_pulse_ns', Option(_positive, 'ns')),
  'ResetEnergy': ('reset_energy_pj', Option(number(), 'pJ')),
  'SetMode': ('sets_by_voltage', Option(_mode)),
  'SetVoltage': ('set_voltage_v', Option(number(float('-inf')), 'V')),
  'SetCurrent': ('set_current_ua', Option(number(), 'uA')),
  'SetPulse': ('set_pulse_ns', Option(_positive, 'ns')),
  'SetEnergy': ('set_energy_pj', Option(number(), 'pJ')),
  'AccessCMOSWidth': ('access_width_f', Option(_positive, 'F')),
  'VoltageDropAccessDevice': ('access_drop_v', Option(number(), 'V')),
  'LeakageCurrentAccessDevice': ('access_leakage_ua', Option(number(), 'uA')),
  'SRAMCellNMOSWidth': ('sram_nmos_width_f', Option(_positive, 'F')),
  'SRAMCellPMOSWidth': ('sram_pmos_width_f', Option(_positive, 'F')),
  'Stitching': ('stitching', Option(number())),
}
_KINDS = {
  'SRAM': _Kind.SRAM,
  'MRAM': _Kind.MRAM,
  'PCRAM': _Kind.PCRAM,
  'memristor': _Kind.MEMRISTOR,
  'DRAM': None,
  'eDRAM': None,
  'FBRAM': None,
  'SLCNAND': None,
  'MLCNAND': None,
}
_ACCESSES = {
  'CMOS': _Access.CMOS,
  'diode': _Access.DIODE,
  'None': _Access.NONE,
  'none': _Access.NONE,
  'BJT': None,
}
_CAPACITANCES = ('CapacitanceOn', 'CapacitanceOff')
_IGNORED = (
  'ProcessNode',
  'ReadEnergy',
  'ReadFloating',
  'WordlineBoostRatio',
  'ResistanceOffAtSetVoltage',
  'ResistanceOffAtResetVoltage',
  'ResistanceOnAtHalfReadVoltage',
  'ResistanceOffAtHalfReadVoltage',
)

_OPTIONS = {
  'MemCellType': Option(choice(_KINDS)),
  'AccessType': Option(choice(_ACCESSES)),
  **{name: option for name, (_, option) in _FIELDS.items()},
  **{name: Option(_positive, 'F') for name in _CAPACITANCES},
  **{name: Option(anything) for name in _IGNORED},
}


def read_cell(path: str | pathlib.Path) -> structures.Cell:
  """Reads a `.cell` file.

  Args:
    path: the file.

  Returns:
    The cell; what the file leaves out has NVSim's defaults.

  Raises:
    OptionFileError: `file:line: field: problem` for a missing (line 0), unknown or impossible
      field.
    OSError: if the file cannot be read.
  """
  path = pathlib.Path(path)
  entries = read_options(path, _OPTIONS)
  for name in _needed(entries):
    if not any(alternative in entries for alternative in name.split('|')):
      raise fail(path, 0, name.replace('|', ' or '), 'missing')
  values = {
    'kind': entries['MemCellType'].value,
    'access': entries['AccessType'].value if 'AccessType' in entries else _Access.CMOS,
  }
  for name, entry in entries.items():
    if name in _FIELDS:
      field, _ = _FIELDS[name]
      values[field] = entry.value
  if any(name in entries for name in _CAPACITANCES):
    values['capacitance_ff'] = 1e15 * max(
      entries[name].value for name in _CAPACITANCES if name in entries
    )
  cell = structures.Cell(**values)
  _check(path, entries, cell)
  return cell


def _needed(entries: dict[str, Entry]) -> list[str]:
  """Fields that a cell of this kind cannot do without; `a|b` is either."""
  needed = ['MemCellType', 'CellArea', 'CellAspectRatio']

  def value(name, default):
    return entries[name].value if name in entries else default

  kind = value('MemCellType', None)
  access = value('AccessType', _Access.CMOS)
  if access == _Access.CMOS:
    needed.append('AccessCMOSWidth')
  if kind is None or kind == _Kind.SRAM:
    return needed
  needed += [
    'ResistanceOn|ResistanceOnAtReadVoltage',
    'ResistanceOff|ResistanceOffAtReadVoltage',
    'ResetPulse',
    'SetPulse',
  ]
  needed.append('ReadVoltage|ReadCurrent' if value('ReadMode', 1) else 'ReadVoltage')
  for write in ('Reset', 'Set'):
    by_voltage = value(f'{write}Mode', 1)
    needed.append(f'{write}Voltage' if by_voltage else f'{write}Current')
  if access != _Access.CMOS:
    needed.append('CapacitanceOn|CapacitanceOff')
    needed.append('ResetCurrent|ResistanceOnAtResetVoltage')
  if access == _Access.NONE:
    needed += ['ResistanceOnAtResetVoltage', 'ResistanceOnAtHalfResetVoltage']
    needed += ['SetEnergy|ResistanceOnAtSetVoltage']
  return needed


def _check(path: pathlib.Path, entries: dict[str, Entry], cell: structures.Cell) -> None:
  """Refuses values that contradict each other."""

  def line(*names):
    return next((entries[name].line for name in names if name in entries), 0)

  if cell.kind == _Kind.SRAM:
    if cell.access != _Access.CMOS:
      raise fail(
        path, line('AccessType'), 'AccessType', 'an SRAM cell has transistors; allowed: CMOS'
      )
    return
  if cell.resistance_off_ohm <= cell.resistance_on_ohm:
    raise fail(
      path,
      line('ResistanceOff', 'ResistanceOffAtReadVoltage'),
      'ResistanceOff',
      f'{cell.resistance_off_ohm:g}; allowed: above ResistanceOn ({cell.resistance_on_ohm:g})',
    )
  if cell.read_voltage_v == 0 and (not cell.senses_voltage or cell.read_current_ua == 0):
    raise fail(
      path,
      line('ReadVoltage', 'ReadCurrent'),
      'ReadVoltage',
      '0; allowed: above 0' + (' (or a ReadCurrent)' if cell.senses_voltage else ''),
    )
  derived = cell.read_power_uw == 0 and cell.read_voltage_v != 0
  if derived and cell.access_drop_v >= cell.read_voltage_v:
    raise fail(
      path,
      line('VoltageDropAccessDevice'),
      'VoltageDropAccessDevice',
      f'{cell.access_drop_v:g}; allowed: below ReadVoltage ({cell.read_voltage_v:g})',
    )
  for write, by_voltage, voltage, current in (
    ('Reset', cell.resets_by_voltage, cell.reset_voltage_v, cell.reset_current_ua),
    ('Set', cell.sets_by_voltage, cell.set_voltage_v, cell.set_current_ua),
  ):
    if by_voltage and abs(voltage) <= cell.access_drop_v:
      raise fail(
        path,
        line(f'{write}Voltage'),
        f'{write}Voltage',
        f'{voltage:g}; allowed: above VoltageDropAccessDevice ({cell.access_drop_v:g})',
      )
    if not by_voltage and current == 0:
      raise fail(path, line(f'{write}Current'), f'{write}Current', '0; allowed: above 0')
