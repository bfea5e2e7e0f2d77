"""Reading `.cell` and `.cfg` files, and refusing what they cannot mean.

The files here are our own, in the formats of NVSim, DESTINY, NVMExplorer and MemSysExplorer.
"""

import numpy as np
import pytest

from cnnopt_jax import nvm
from cnnopt_jax.nvm import specs, structures

STT = """// A cell in the format of NVSim's samples.
-MemCellType: MRAM
-ProcessNode: 22
-CellArea (F^2): 54
-CellAspectRatio: 0.54
-ResistanceOn (ohm): 3000
-ResistanceOff (ohm): 6000
-ReadMode: current
-ReadVoltage (V): 0.25
-MinSenseVoltage (mV): 25
-ReadPower (uW): 30
-ResetMode: current
-ResetCurrent (uA): 80
-ResetPulse (ns): 10
-ResetEnergy (pJ): 1
-SetMode: current
-SetCurrent (uA): 80
-SetPulse (ns): 10
-SetEnergy (pJ): 1
-AccessType: CMOS
-VoltageDropAccessDevice (V): 0.15
-AccessCMOSWidth (F): 8
"""
RRAM = """-MemCellType: memristor
-CellArea (F^2): 4
-CellAspectRatio: 1
-ResistanceOnAtSetVoltage (ohm): 100000
-ResistanceOffAtSetVoltage (ohm): 10000000
-ResistanceOnAtResetVoltage (ohm): 100000
-ResistanceOnAtReadVoltage (ohm): 1000000
-ResistanceOffAtReadVoltage (ohm): 10000000
-ResistanceOnAtHalfResetVoltage (ohm): 500000
-CapacitanceOn (F): 1e-16
-CapacitanceOff (F): 1e-16
-ReadMode: current
-ReadVoltage (V): 0.4
-ReadPower (uW): 0.16
-ResetMode: voltage
-ResetVoltage (V): 2.0
-ResetPulse (ns): 10
-ResetEnergy (pJ): 0.6
-SetMode: voltage
-SetVoltage (V): 2.0
-SetPulse (ns): 10
-SetEnergy (pJ): 0.6
-AccessType: None
-ReadFloating: false
"""


def _write(tmp_path, text, name='mine.cell'):
  path = tmp_path / name
  path.write_text(text)
  return path


@pytest.mark.parametrize('text, name', [(STT, 'stt'), (RRAM, 'rram')])
def test_a_sample_is_the_library_cell(tmp_path, text, name):
  cell = nvm.read_cell(_write(tmp_path, text))
  for field in cell.__dataclass_fields__:
    np.testing.assert_allclose(getattr(cell, field), getattr(nvm.CELLS[name], field), err_msg=field)


def _line(text, start):
  return next(i for i, line in enumerate(text.splitlines(), 1) if line.startswith(start))


@pytest.mark.parametrize(
  'old, new, field, problem',
  [
    ('-CellArea (F^2): 54', '-CellArea (F^2): 0', 'CellArea', 'above 0'),
    ('-CellArea (F^2): 54', '-CellArea (F^2): many', 'CellArea', 'above 0'),
    ('-CellArea (F^2): 54', '-CellArea (um^2): 54', 'CellArea', r'\(F\^2\)'),
    (
      '-ResistanceOff (ohm): 6000',
      '-ResistanceOff (ohm): 2000',
      'ResistanceOff',
      'above ResistanceOn',
    ),
    ('-ReadMode: current', '-ReadMode: optical', 'ReadMode', 'voltage, current'),
    ('-ReadVoltage (V): 0.25', '-ReadVoltage (V): 0', 'ReadVoltage', 'above 0'),
    ('-ResetPulse (ns): 10', '-ResetPulse (ns): -1', 'ResetPulse', 'above 0'),
    ('-SetCurrent (uA): 80', '-SetCurrent (uA): 0', 'SetCurrent', 'above 0'),
    ('-SetCurrent (uA): 80', '-SetCurrant (uA): 80', 'SetCurrant', 'unknown'),
    ('-SetCurrent (uA): 80', '-SetPulse (ns): 9', 'SetPulse', 'given before'),
    ('-MemCellType: MRAM', '-MemCellType: SLCNAND', 'MemCellType', 'not modelled'),
    ('-AccessType: CMOS', '-AccessType: BJT', 'AccessType', 'not modelled'),
  ],
)
def test_an_impossible_field_is_named_with_file_and_line(tmp_path, old, new, field, problem):
  text = STT.replace(old, new)
  path = _write(tmp_path, text)
  numbers = [i for i, line in enumerate(text.splitlines(), 1) if line.startswith(f'-{field}')]
  with pytest.raises(nvm.OptionFileError, match=problem) as error:
    nvm.read_cell(path)
  assert str(error.value).startswith(f'{path}:{numbers[-1]}: {field}: ') or (
    str(error.value).startswith(f'{path}:{numbers[0]}: {field}: ')
  )


@pytest.mark.parametrize(
  'text, field',
  [
    (STT, 'CellArea'),
    (STT, 'MemCellType'),
    (STT, 'ResistanceOn'),
    (STT, 'ReadVoltage'),
    (STT, 'SetPulse'),
    (STT, 'SetCurrent'),
    (STT, 'AccessCMOSWidth'),
    (RRAM, 'ResistanceOnAtHalfResetVoltage'),
    (RRAM, 'ResetVoltage'),
  ],
)
def test_a_missing_field_is_named(tmp_path, text, field):
  kept = [line for line in text.splitlines() if not line.startswith((f'-{field}:', f'-{field} '))]
  path = _write(tmp_path, '\n'.join(kept))
  with pytest.raises(nvm.OptionFileError, match=f'{path}:0: .*{field}.*: missing'):
    nvm.read_cell(path)


@pytest.mark.parametrize(
  'old, new',
  [
    ('-ResistanceOn (ohm): 3000', '- RESISTANCEON ( kOhm ) :3'),
    ('-ResetPulse (ns): 10', '-resetpulse (us) : 0.01   // ten nanoseconds'),
    ('-SetCurrent (uA): 80', '-SetCurrent (mA): 8e-2 # less than it was'),
    ('-MinSenseVoltage (mV): 25', '-minSenseVoltage (V): 0.025'),
    ('-ReadPower (uW): 30', '-ReadPower: 30'),
    ('-SetEnergy (pJ): 1', '-SetEnergy (fJ): 1000'),
    ('-MemCellType: MRAM', '-memcelltype: STTRAM'),
    ('-AccessType: CMOS', '-AccessType: cmos'),
  ],
)
def test_spelling_spacing_units_and_comments(tmp_path, old, new):
  assert old in STT
  cell = nvm.read_cell(_write(tmp_path, STT.replace(old, new)))
  plain = nvm.read_cell(_write(tmp_path, STT, 'plain.cell'))
  for field in cell.__dataclass_fields__:
    np.testing.assert_allclose(getattr(cell, field), getattr(plain, field), rtol=1e-15)


def test_an_unknown_field_is_a_note_and_a_misspelt_one_an_error(tmp_path):
  """Whose name resembles that of a field that is lacking would leave a default in its place."""
  path = _write(tmp_path, STT + '-Colour: blue\n')
  assert nvm.read_cell_file(path).notes == (
    f'{path}:23: Colour: ignored: unknown, and like no other field',
  )
  path = _write(tmp_path, STT.replace('VoltageDropAccessDevice', 'VoltageDropAccesDevice'))
  with pytest.raises(nvm.OptionFileError, match=':21: VoltageDropAccesDevice: unknown; allowed: V'):
    nvm.read_cell(path)


@pytest.mark.parametrize(
  'data, problem',
  [
    (b'', 'empty'),
    (b'  \n\t\n', 'empty'),
    (bytes(range(256)), 'binary'),
    (b'\xff\xfe-\x00M\x00', 'binary'),
    (b'only words\n', 'no field'),
  ],
)
def test_what_is_no_text_of_fields(tmp_path, data, problem):
  path = tmp_path / 'odd.cell'
  path.write_bytes(data)
  with pytest.raises(nvm.OptionFileError, match=f'{path}:0: file: {problem}'):
    nvm.read_cell(path)


def test_latin_letters_in_comments(tmp_path):
  path = tmp_path / 'latin.cell'
  path.write_bytes('// Zelle für 22 nm\n'.encode('latin-1') + STT.encode())
  assert nvm.read_cell(path) == nvm.read_cell(_write(tmp_path, STT))


EDRAM = """-MemCellType: eDRAM
-CellArea (F^2): 40
-CellAspectRatio: 1.5
-AccessType: CMOS
-AccessCMOSWidth (F): 1.2
-DRAMCellCapacitance (F): 16e-15
-SetVoltage (V): vdd
-ResetVoltage (V): vdd
-MinSenseVoltage (mV): 12
"""


@pytest.mark.parametrize(
  'more, retention, noted',
  [
    ('-RetentionTime (us): 64\n', 64.0, False),
    ('-RetentionTime (ms): 0.064\n', 64.0, False),
    ('-RetentionTime (us): unknown\n', 40.0, True),
    ('', 40.0, True),
  ],
)
def test_edram_and_its_retention(tmp_path, more, retention, noted):
  cell, notes = nvm.read_cell_file(_write(tmp_path, EDRAM + more))
  assert cell.kind == nvm.Kind.EDRAM
  np.testing.assert_allclose(cell.storage_cap_ff, 16.0, rtol=1e-15)
  np.testing.assert_allclose(cell.retention_us, retention, rtol=1e-12)
  assert [note.split(': ')[1] for note in notes] == ['RetentionTime'] * noted


def test_a_gain_cell(tmp_path):
  text = EDRAM.replace('eDRAM', 'eDRAM3T') + '-AccessCMOSWidthR (F): 2.5\n'
  cell = nvm.read_cell(_write(tmp_path, text))
  assert (cell.kind, cell.read_width_f) == (nvm.Kind.GAIN_CELL, 2.5)


@pytest.mark.parametrize(
  'more, bits, notes',
  [
    ('-CellLevels: 8\n', 3.0, 0),
    ('-BitsPerCell: 2\n', 2.0, 0),
    ('', 2.0, 1),  # Four levels are assumed, and said.
  ],
)
def test_levels_of_a_multi_level_cell(tmp_path, more, bits, notes):
  text = RRAM.replace('memristor', 'MLCRRAM') + '-Endurance: 1e6\n-SenseSteps: 3\n' + more
  cell, found = nvm.read_cell_file(_write(tmp_path, text + '-WritePulses: 4\n'))
  assert (cell.bits_per_cell, cell.sense_steps, cell.write_pulses) == (bits, 3.0, 4.0)
  assert cell.endurance_writes == 1e6 and len(found) == notes


@pytest.mark.parametrize(
  'text, field',
  [
    (STT + '-CellLevels: 6\n', 'CellLevels'),
    (EDRAM + '-CellLevels: 4\n', 'BitsPerCell'),
    (EDRAM.replace('CMOS\n', 'diode\n'), 'AccessType'),
  ],
)
def test_levels_and_access_that_cannot_be(tmp_path, text, field):
  with pytest.raises(nvm.OptionFileError, match=rf':\d+: {field}: '):
    nvm.read_cell(_write(tmp_path, text))


def test_a_charge_trap_cell_without_figures_has_ours_by_notes(tmp_path):
  text = '-MemCellType: CTT\n-CellArea (F^2): 8\n-CellAspectRatio: 2\n-AccessType: None\n'
  cell, notes = nvm.read_cell_file(_write(tmp_path, text))
  library = nvm.CELLS['ctt']
  assert all(getattr(cell, f) == getattr(library, f) for f in cell.__dataclass_fields__)
  assert len(notes) == 10 and all('not given' in note for note in notes)


def test_an_sram_without_widths_and_a_ferroelectric_diode(tmp_path):
  text = '-MemCellType: SRAM\n-CellArea (F^2): 146\n-CellAspectRatio: 1.46\n'
  cell, notes = nvm.read_cell_file(_write(tmp_path, text))
  assert cell == nvm.CELLS['sram'] and len(notes) == 1
  diode = nvm.read_cell(_write(tmp_path, RRAM.replace('memristor', 'FeDiode')))
  assert diode == nvm.read_cell(_write(tmp_path, RRAM))


CONFIG = """-DesignTarget: cache
-CacheAccessMode: Sequential
-OptimizationTarget: ReadEDP
-ProcessNode: 32
-Capacity (MB): 8
-WordWidth (bit): 512
-Associativity (for cache only): 16
-DeviceRoadmap: LOP
-LocalWireType: LocalConservative
-GlobalWireType: GlobalAggressive
-GlobalWireRepeaterType: RepeatedNone
-Routing: H-tree
-InternalSensing: true
-MemoryCellInputFile: mine.cell
-Temperature (K): 360
-BufferDesignOptimization: balance
-ForceBank (Total AxB, Active CxD): 8x4, 1x4
-UseCactiAssumption: Yes
"""


def test_a_cfg_file(tmp_path):
  config = nvm.read_config(_write(tmp_path, CONFIG, 'a.cfg'))
  assert config.cell_path == tmp_path / 'mine.cell'
  assert config.spec == nvm.CacheSpec(8 << 20, 64, 16)
  assert config.mode is nvm.Mode.SEQUENTIAL and config.target is nvm.Target.READ_EDP
  assert config.bank == (8, 4, 1, 4) and config.mat is None and config.cacti
  assert config.buffering == structures.Buffering.BALANCED
  assert config.technology() == nvm.technology_node(
    32, 'LOP', 360, local=nvm.WireLayer.LOCAL_CONSERVATIVE
  )
  assert specs.tag_bits(config.spec) == 31


@pytest.mark.parametrize(
  'old, new, field',
  [
    ('-Routing: H-tree', '-Routing: torus', 'Routing'),
    ('-Routing: H-tree', '-StackedDieCount: 2', 'StackedDieCount'),
    ('-Routing: H-tree', '-MonolithicStackCount: 4', 'MonolithicStackCount'),
    ('-Routing: H-tree', '-FlashPageSize (Byte): 2048', 'FlashPageSize'),
    ('-Routing: H-tree', '-ProcessNodeR: 45', 'ProcessNodeR'),
    ('-Routing: H-tree', '-DeviceRoadmapW: CNT', 'DeviceRoadmapW'),
    ('-ProcessNode: 32', '-ProcessNode: 1', 'ProcessNode'),
    ('-Capacity (MB): 8', '-Capacity (KB): 3', 'Capacity'),
    ('-Capacity (MB): 8', '-Capacity (GB): 8', 'Capacity'),
    ('-WordWidth (bit): 512', '-WordWidth (bit): 500', 'WordWidth'),
    ('1x4', '1x3', 'ForceBank'),
    ('-Temperature (K): 360', '-Temperature (K): 500', 'Temperature'),
    ('-DesignTarget: cache', '-DesingTarget: RAM', 'DesingTarget'),
  ],
)
def test_a_cfg_field_is_refused_by_line(tmp_path, old, new, field):
  text = CONFIG.replace(old, new)
  path = _write(tmp_path, text, 'a.cfg')
  with pytest.raises(nvm.OptionFileError) as error:
    nvm.read_config(path)
  assert str(error.value).startswith(f'{path}:{_line(text, f"-{field}")}: {field}: ')


@pytest.mark.parametrize(
  'old, new, noted',
  [
    ('-Routing: H-tree', '-Routing: Non-H-tree', 'a bus is not modelled; an H-tree is built'),
    ('-InternalSensing: true', '-InternalSensing: false', 'each mat has its own'),
    ('-Routing: H-tree', '-WriteScheme: WriteAndVerify', 'WritePulses'),
    ('-Routing: H-tree', '-ApplyAreaConstraint: 0.5', 'no constraints'),
    ('-Routing: H-tree', '-StackedDieCount: 1', None),
    ('-Routing: H-tree', '-RetentionTime (us): unknown', None),
    ('-BufferDesignOptimization: balance', '-BufferDesignOptimization: balanced', None),
    ('-Capacity (MB): 8', '-Capacity (B): 8388608', None),
    ('-Temperature (K): 360', '-TEMPERATURE(k):360', None),
  ],
)
def test_what_is_replaced_by_the_models_own_is_noted(tmp_path, old, new, noted):
  assert old in CONFIG
  path = _write(tmp_path, CONFIG.replace(old, new), 'a.cfg')
  config = nvm.read_config(path)
  assert config.spec.capacity_bytes == 8 << 20 and config.temperature_k == 360
  if noted is None:
    assert config.notes == ()
  else:
    (note,) = config.notes
    assert note.startswith(f'{path}:') and noted in note


def test_repeaters_and_low_swing_between_mats(tmp_path):
  wires = '-GlobalWireRepeaterType: Repeated'
  for text, drive in (('Opt', 'REPEATED'), ('10%Penalty', 'REPEATED'), ('None', 'UNREPEATED')):
    config = nvm.read_config(
      _write(tmp_path, CONFIG.replace(f'{wires}None', wires + text), 'a.cfg')
    )
    assert config.technology().drive == structures.Drive[drive]
    assert len(config.notes) == ('%' in text)
  swing = CONFIG + '-GlobalWireUseLowSwing: Yes\n'
  assert nvm.read_config(_write(tmp_path, swing, 'a.cfg')).drive == structures.Drive.LOW_SWING


@pytest.mark.parametrize(
  'place, notes',
  [
    ('cells/x.cell', 0),  # Relative to the file's folder,
    ('../cells/x.cell', 0),  # to one above it,
    ('x.cell', 0),  # beside it,
    ('a_cells_x.cell', 1),  # or there with its folder in its name.
  ],
)
def test_a_cfg_finds_its_cell(tmp_path, place, notes):
  folder = tmp_path / 'configs'
  cell = folder / place
  cell.parent.mkdir(parents=True, exist_ok=True)
  folder.mkdir(exist_ok=True)
  cell.write_text(STT)
  text = CONFIG.replace('mine.cell', 'cells/x.cell')
  config = nvm.read_config(_write(folder, text, 'a.cfg'))
  assert config.cell_path.samefile(cell) and len(config.notes) == notes
  assert nvm.config_cell(config).cell == nvm.read_cell(cell)
  cell.unlink()
  config = nvm.read_config(folder / 'a.cfg')
  with pytest.raises(
    nvm.OptionFileError, match=r'a.cfg:14: MemoryCellInputFile: .*x.cell: No such'
  ):
    nvm.config_cell(config)


def test_a_cfg_is_what_explore_finds(tmp_path):
  """The same search by another way; and an array whose organisation is forced has that one."""
  _write(tmp_path, STT)
  text = CONFIG.replace('-ForceBank (Total AxB, Active CxD): 8x4, 1x4\n', '')
  text = text.replace('-BufferDesignOptimization: balance\n', '').replace('8\n', '1\n', 1)
  config = nvm.read_config(_write(tmp_path, text, 'a.cfg'))
  found = nvm.explore_config(config)
  (expected,) = nvm.explore(
    {'mine': nvm.read_cell(tmp_path / 'mine.cell')},
    config.technology(),
    [config.spec.capacity_bytes],
    [nvm.Mode.SEQUENTIAL],
    [nvm.Target.READ_EDP],
  )
  assert found.winners[0].totals == expected.totals and found.obstacles == []
  assert found.notes == ()
  ram = text.replace('-DesignTarget: cache', '-DesignTarget: RAM')
  ram += '-ForceBank (Total AxB, Active CxD): 4x4, 1x4\n-ForceMuxSenseAmp: 8\n'
  found = nvm.explore_config(nvm.read_config(_write(tmp_path, ram, 'ram.cfg')))
  (winner,) = found.winners
  org = winner.data_organization
  assert (org.mat_rows, org.mat_columns, org.mux_senseamp) == (4, 4, 8)
  array = nvm.array_ppa(found.cell, found.technology, org)
  assert winner.totals.hit_latency_ns == pytest.approx(float(array.read_latency_ns), rel=1e-12)
  assert winner.totals.area_mm2 == pytest.approx(float(array.area_mm2), rel=1e-12)
