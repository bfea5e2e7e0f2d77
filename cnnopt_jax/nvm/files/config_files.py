"""Reads `.cfg` files of NVSim, DESTINY and MemSysExplorer: what to build, and of what.

A form that the model lacks but whose content it has (a bus instead of an H-tree, amplifiers
outside the mats, a write scheme, a constraint on the search) is replaced by the model's own, with a
note. What would be another device is refused: stacked dies, flash, transistors of a second process.
"""

import pathlib
import re
from typing import NamedTuple

from cnnopt_jax.nvm import specs, structures
from cnnopt_jax.nvm.files.option_files import (
  Entry,
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
from cnnopt_jax.nvm.specs import Mode, Target
from cnnopt_jax.nvm.technology import nodes, wires


class Config(NamedTuple):
  """A `.cfg` file.

  Attributes:
    path: of the file itself.
    cell_path: its cell file, found from the `.cfg` file's folder if it is not absolute.
    cell_line: of the field that names it.
    node_nm, roadmap, temperature_k, max_width_f, local, routing: arguments of `technology`.
    spec: the cache or array.
    mode: `Mode.RAM` if no cache is asked for.
    target: what to optimise; None means all of them.
    cacti: whether CACTI's assumption restricts the search.
    buffering: buffer style.
    bank, mat: forced `(rows, columns, active rows, active columns)` of mats and subarrays, or
      None.
    mux: forced degrees, None where free.
    drive: of the wires between mats.
    retention_us: of cells that are refreshed, None for the cell's own.
    notes: `file:line: field: what was ignored or assumed`.
  """

  path: pathlib.Path
  cell_path: pathlib.Path
  cell_line: int
  node_nm: int
  roadmap: str
  temperature_k: int
  max_width_f: float
  local: wires.WireLayer
  routing: wires.WireLayer
  spec: specs.CacheSpec
  mode: Mode
  target: Target | None
  cacti: bool
  buffering: structures.Buffering
  bank: tuple[int, int, int, int] | None
  mat: tuple[int, int, int, int] | None
  mux: tuple[int | None, int | None, int | None]
  drive: structures.Drive = structures.Drive.UNREPEATED
  retention_us: float | None = None
  notes: tuple[str, ...] = ()

  def technology(self, *, nvsim_compatible: bool = False) -> structures.Technology:
    """Builds the file's technology."""
    return nodes.technology_node(
      self.node_nm,
      self.roadmap,
      self.temperature_k,
      local=self.local,
      routing=self.routing,
      drive=self.drive,
      max_width_f=self.max_width_f,
      nvsim_compatible=nvsim_compatible,
    )


def _partition(text: str) -> tuple[int, int, int, int]:
  match = re.match(r'(\d+)\s*x\s*(\d+)\s*,\s*(\d+)\s*x\s*(\d+)', text)
  counts = [int(count) for count in match.groups()] if match else []
  if not match or any(count < 1 or count & (count - 1) for count in counts):
    raise ValueError('allowed: "AxB, CxD" of powers of two')
  rows, columns, active_rows, active_columns = counts
  if active_rows > rows or active_columns > columns:
    raise ValueError('allowed: no more active ones than there are')
  return rows, columns, active_rows, active_columns


def _power_of_two(text: str) -> int:
  value = whole(1)(text)
  if value & (value - 1):
    raise ValueError('allowed: a power of two')
  return value


_LAYERS = choice({layer.value: layer for layer in wires.WireLayer})
_YES = choice({'Yes': True, 'No': False, 'true': True, 'false': False})
_REPEATERS = {
  'RepeatedNone': False,
  'RepeatedOpt': True,
  **{f'Repeated{share}%Penalty': True for share in (5, 10, 20, 30, 40, 50)},
}
_CONSTRAINTS = (
  *('ReadLatency', 'WriteLatency', 'ReadDynamicEnergy', 'WriteDynamicEnergy', 'Leakage', 'Area'),
  *('ReadEdp', 'WriteEdp'),
)
_OPTIONS = {
  'DesignTarget': Option(choice({'cache': 'cache', 'RAM': 'RAM', 'CAM': None})),
  'CacheAccessMode': Option(choice({mode.value: mode for mode in Mode if mode != Mode.RAM})),
  'OptimizationTarget': Option(
    choice(
      {
        'ReadLatency': Target.READ_LATENCY,
        'WriteLatency': Target.WRITE_LATENCY,
        'ReadDynamicEnergy': Target.READ_ENERGY,
        'WriteDynamicEnergy': Target.WRITE_ENERGY,
        'ReadEDP': Target.READ_EDP,
        'WriteEDP': Target.WRITE_EDP,
        'LeakagePower': Target.LEAKAGE,
        'Area': Target.AREA,
        'Exploration': 'all',
        'Full': 'all',
      }
    )
  ),
  'ProcessNode': Option(whole(1)),
  'ProcessNodeR': Option(whole(1)),
  'ProcessNodeW': Option(whole(1)),
  'Capacity': Option(whole(1)),
  'WordWidth': Option(_power_of_two, 'bit'),
  'Associativity': Option(_power_of_two),
  'DeviceRoadmap': Option(choice({name: name for name in nodes.ROADMAPS})),
  'DeviceRoadmapR': Option(anything),
  'DeviceRoadmapW': Option(anything),
  'LocalWireType': Option(_LAYERS),
  'GlobalWireType': Option(_LAYERS),
  'LocalWireRepeaterType': Option(choice(_REPEATERS)),
  'GlobalWireRepeaterType': Option(choice(_REPEATERS)),
  'LocalWireUseLowSwing': Option(_YES),
  'GlobalWireUseLowSwing': Option(_YES),
  'Routing': Option(choice({'H-tree': True, 'non-H-tree': False})),
  'InternalSensing': Option(_YES),
  'WriteScheme': Option(
    choice(
      {
        'normal': True,
        'SetBeforeReset': True,
        'ResetBeforeSet': True,
        'EraseBeforeSet': False,
        'EraseBeforeReset': False,
        'WriteAndVerify': False,
      }
    )
  ),
  'MemoryCellInputFile': Option(anything),
  'Temperature': Option(whole(1), 'K'),
  'MaxNmosSize': Option(number(above=True), 'F'),
  'BufferDesignOptimization': Option(
    choice(
      {
        'latency': structures.Buffering.LATENCY,
        'balance': structures.Buffering.BALANCED,
        'balanced': structures.Buffering.BALANCED,
        'area': structures.Buffering.AREA,
      }
    )
  ),
  'ForceBank': Option(_partition),
  'ForceMat': Option(_partition),
  'ForceMuxSenseAmp': Option(_power_of_two),
  'ForceMuxOutputLev1': Option(_power_of_two),
  'ForceMuxOutputLev2': Option(_power_of_two),
  'UseCactiAssumption': Option(_YES),
  'EnablePruning': Option(_YES),
  'OutputFilePrefix': Option(anything),
  'RetentionTime': Option(or_word(number(above=True), {'unknown': None}), 'us'),
  'StackedDieCount': Option(whole(1)),
  'MonolithicStackCount': Option(whole(1)),
  'FlashPageSize': Option(whole(1)),
  'FlashBlockSize': Option(whole(1)),
  # Ways of printing, and of searching that the targets here do not need.
  'PrintAllOptimals': Option(anything),
  'PrintLevel': Option(anything),
  'AllowDifferentTagTech': Option(anything),
  'MaxDriverCurrent': Option(anything, None, 'drivers are sized by their load (MaxNmosSize)'),
  **{
    f'Apply{name}Constraint': Option(anything, None, 'the search has no constraints')
    for name in _CONSTRAINTS
  },
  **{
    name: Option(anything, None, 'of stacked dies, and there is one')
    for name in (
      *('PartitionGranularity', 'LocalTSVProjection', 'GlobalTSVProjection', 'TSVRedundancy'),
      *('ForceBank3D', 'ForceBank3DA', 'ForceBankA', 'ForceMatA'),
    )
  },
}
# What a field asks for that the model does in another way, and how.
_REPLACED = {
  'Routing': (False, 'a bus is not modelled; an H-tree is built'),
  'InternalSensing': (False, 'amplifiers outside the mats are not modelled; each mat has its own'),
  'LocalWireRepeaterType': (True, 'wires inside a mat are not repeated'),
  'LocalWireUseLowSwing': (True, 'wires inside a mat swing fully'),
  'WriteScheme': (False, 'not modelled; a normal write is (WritePulses in a .cell file verifies)'),
}
_CAPACITY_SHIFTS = {'B': 0, 'KB': 10, 'MB': 20}


def read_config(path: str | pathlib.Path) -> Config:
  """Reads a `.cfg` file.

  Raises:
    OptionFileError: `file:line: field: problem` for a missing (line 0), misspelt, impossible or
      unmodelled field (stacked dies, flash, a second process).
    OSError: if the file cannot be read.
  """
  path = pathlib.Path(path)
  entries = read_options(path, _OPTIONS)
  _refuse_other_devices(path, entries)
  for name in ('ProcessNode', 'Capacity', 'WordWidth', 'MemoryCellInputFile'):
    if name not in entries:
      raise fail(path, 0, name, 'missing')

  value = entries.get_value
  own = value('DeviceRoadmap', 'HP')
  notes = [
    *entries.notes,
    *(
      note(path, entries[name].line, name, f'{entries[name].text}: {words}')
      for name, (asked, words) in _REPLACED.items()
      if value(name) is asked
    ),
    *(
      note(path, entries[name].line, name, f'{value(name)}: {own} is taken, as DeviceRoadmap')
      for name in ('DeviceRoadmapR', 'DeviceRoadmapW')
      if value(name, own).upper() != own
    ),
  ]
  capacity = entries['Capacity']
  shift = _CAPACITY_SHIFTS.get(capacity.unit.upper())
  if shift is None:
    raise fail(path, capacity.line, 'Capacity', 'unit; allowed: (B), (KB), (MB)')
  is_cache = value('DesignTarget', 'cache') == 'cache'
  word_bytes = entries['WordWidth'].value // 8
  if word_bytes < 1:
    raise fail(path, entries['WordWidth'].line, 'WordWidth', 'allowed: at least 8')
  spec = specs.CacheSpec(
    capacity.value << shift,
    word_bytes,
    value('Associativity', 1) if is_cache else 1,
  )
  target = value('OptimizationTarget', Target.READ_LATENCY)
  config = Config(
    path=path,
    cell_path=_cell_path(path, entries['MemoryCellInputFile'], notes),
    cell_line=entries['MemoryCellInputFile'].line,
    node_nm=entries['ProcessNode'].value,
    roadmap=value('DeviceRoadmap', 'HP'),
    temperature_k=value('Temperature', 350),
    max_width_f=value('MaxNmosSize', nodes.MAX_WIDTH_F),
    local=value('LocalWireType', wires.WireLayer.LOCAL_AGGRESSIVE),
    routing=value('GlobalWireType', wires.WireLayer.GLOBAL_AGGRESSIVE),
    spec=spec,
    mode=value('CacheAccessMode', Mode.NORMAL) if is_cache else Mode.RAM,
    target=None if target == 'all' else target,
    cacti=value('UseCactiAssumption', False),
    buffering=value('BufferDesignOptimization', structures.Buffering.LATENCY),
    bank=value('ForceBank', None),
    mat=value('ForceMat', None),
    mux=tuple(
      value(f'ForceMux{level}', None) for level in ('SenseAmp', 'OutputLev1', 'OutputLev2')
    ),
    drive=_drive(path, entries, notes),
    retention_us=value('RetentionTime', None),
    notes=(),
  )._replace(notes=tuple(notes))
  try:
    if is_cache:
      specs.validate_spec(spec)
  except ValueError as error:
    raise fail(path, capacity.line, 'Capacity', str(error)) from None
  try:
    config.technology()
  except ValueError as error:
    blamed = {'node_nm': 'ProcessNode', 'temperature_k': 'Temperature'}[str(error).split('=')[0]]
    raise fail(path, entries[blamed].line, blamed, str(error)) from None
  return config


def _refuse_other_devices(path: pathlib.Path, entries: Options) -> None:
  """Raises for what no field of the model stands for."""
  for name in ('StackedDieCount', 'MonolithicStackCount'):
    if entries.get_value(name, 1) > 1:
      raise fail(
        path,
        entries[name].line,
        name,
        f'{entries[name].value}: stacked memories are not modelled; allowed: 1',
      )
  for name in ('FlashPageSize', 'FlashBlockSize'):
    if name in entries:
      raise fail(path, entries[name].line, name, 'flash is not modelled; allowed: no such field')
  for side in ('R', 'W'):
    node, roadmap = entries.get(f'ProcessNode{side}'), entries.get(f'DeviceRoadmap{side}')
    own = entries.get_value('ProcessNode')
    if node is not None and node.value != own:
      problem = f'{node.value}: all transistors are of one process; allowed: {own}, as ProcessNode'
      raise fail(path, node.line, f'ProcessNode{side}', problem)
    if roadmap is not None and roadmap.value.upper() not in nodes.ROADMAPS:
      problem = f'{roadmap.value}: not modelled; allowed: {", ".join(nodes.ROADMAPS)}'
      raise fail(path, roadmap.line, f'DeviceRoadmap{side}', problem)


def _drive(path: pathlib.Path, entries: Options, notes: list[str]) -> structures.Drive:
  """How wires between mats are driven; the model has no repeaters that trade delay for energy."""
  if entries.get_value('GlobalWireUseLowSwing', False):
    return structures.Drive.LOW_SWING
  if not entries.get_value('GlobalWireRepeaterType', False):
    return structures.Drive.UNREPEATED
  repeaters = entries['GlobalWireRepeaterType']
  if repeaters.text.lower() != 'repeatedopt':
    words = f'{repeaters.text}: not modelled; RepeatedOpt is taken'
    notes.append(note(path, repeaters.line, 'GlobalWireRepeaterType', words))
  return structures.Drive.REPEATED


def _cell_path(path: pathlib.Path, entry: Entry, notes: list[str]) -> pathlib.Path:
  """Where a `.cfg` file's cell is: relative to its folder, to one of three above it, or beside it.

  The tools themselves look in the folder that they run in, which is one above those of the samples.
  """
  wanted = pathlib.Path(entry.value.strip('"\''))
  folders = (path.parent, *path.absolute().parent.parents[:3])
  above = [folder / wanted for folder in folders]
  found = next((p for p in (*above, path.parent / wanted.name) if p.is_file()), None)
  if found is not None:
    return found
  # Copies of several folders in one carry the folders in their names.
  flat = '_'.join(wanted.parts)
  alike = [other for other in path.parent.glob('*.cell') if f'_{other.name}'.endswith(f'_{flat}')]
  if len(alike) != 1:
    return above[0]
  notes.append(note(path, entry.line, 'MemoryCellInputFile', f'{alike[0].name} is read for it'))
  return alike[0]
