"""Reading `.cell` and `.cfg` files, and refusing what they cannot mean."""

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
    ('-Routing: H-tree', '-Routing: non-H-tree', 'Routing'),
    (
      '-GlobalWireRepeaterType: RepeatedNone',
      '-GlobalWireRepeaterType: RepeatedOpt',
      'GlobalWireRepeaterType',
    ),
    ('-ProcessNode: 32', '-ProcessNode: 14', 'ProcessNode'),
    ('-Capacity (MB): 8', '-Capacity (GB): 8', 'Capacity'),
    ('-WordWidth (bit): 512', '-WordWidth (bit): 500', 'WordWidth'),
    ('1x4', '1x3', 'ForceBank'),
    ('-Temperature (K): 360', '-Temperature (K): 500', 'Temperature'),
    ('-DesignTarget: cache', '-DesignGoal: cache', 'DesignGoal'),
  ],
)
def test_a_cfg_field_is_refused_by_line(tmp_path, old, new, field):
  text = CONFIG.replace(old, new)
  path = _write(tmp_path, text, 'a.cfg')
  with pytest.raises(nvm.OptionFileError) as error:
    nvm.read_config(path)
  assert str(error.value).startswith(f'{path}:{_line(text, f"-{field}")}: {field}: ')
