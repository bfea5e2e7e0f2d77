"""Reads NVSim's `.cfg` files: what to build, and of what."""

import pathlib
import re
from typing import NamedTuple

from cnnopt_jax.nvm import specs, structures
from cnnopt_jax.nvm.files.option_files import (
  Option,
  anything,
  choice,
  fail,
  number,
  read_options,
  whole,
)
from cnnopt_jax.nvm.specs import Mode, Target
from cnnopt_jax.nvm.technology import nodes, wires


class Config(NamedTuple):
  """A `.cfg` file.

  Attributes:
    cell_path: its cell file, relative to the `.cfg` file's folder if it is not absolute.
    node_nm, roadmap, temperature_k, max_width_f, local, routing: arguments of `technology`.
    spec: the cache or array.
    mode: `Mode.RAM` if no cache is asked for.
    target: what to optimise; None means all of them.
    cacti: whether CACTI's assumption restricts the search.
    buffering: buffer style.
    bank, mat: forced `(rows, columns, active rows, active columns)` of mats and subarrays, or
      None.
    mux: forced degrees, None where free.
  """

  cell_path: pathlib.Path
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

  def technology(self, *, nvsim_compatible: bool = False) -> structures.Technology:
    """Builds the file's technology."""
    return nodes.technology_node(
      self.node_nm,
      self.roadmap,
      self.temperature_k,
      local=self.local,
      routing=self.routing,
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
_YES = choice({'Yes': True, 'No': False})
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
  'Capacity': Option(whole(1)),
  'WordWidth': Option(_power_of_two, 'bit'),
  'Associativity': Option(_power_of_two),
  'DeviceRoadmap': Option(choice({name: name for name in nodes.ROADMAPS})),
  'LocalWireType': Option(_LAYERS),
  'GlobalWireType': Option(_LAYERS),
  'LocalWireRepeaterType': Option(choice({'RepeatedNone': False, 'RepeatedOpt': None})),
  'GlobalWireRepeaterType': Option(choice({'RepeatedNone': False, 'RepeatedOpt': None})),
  'LocalWireUseLowSwing': Option(choice({'No': False, 'Yes': None})),
  'GlobalWireUseLowSwing': Option(choice({'No': False, 'Yes': None})),
  'Routing': Option(choice({'H-tree': True, 'non-H-tree': None})),
  'InternalSensing': Option(choice({'true': True, 'false': None})),
  'WriteScheme': Option(
    choice(
      {
        'normal': True,
        'SetBeforeReset': True,
        'ResetBeforeSet': True,
        'EraseBeforeSet': None,
        'EraseBeforeReset': None,
        'WriteAndVerify': None,
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
}
_CAPACITY = re.compile(r'-\s*Capacity\s*\((KB|MB)\)')


def read_config(path: str | pathlib.Path) -> Config:
  """Reads a `.cfg` file.

  Raises:
    OptionFileError: `file:line: field: problem` for a missing (line 0), unknown, impossible or
      unmodelled field (repeaters, low swing, busses instead of an H-tree, external sensing).
    OSError: if the file cannot be read.
  """
  path = pathlib.Path(path)
  entries = read_options(path, _OPTIONS)
  for name in ('ProcessNode', 'Capacity', 'WordWidth', 'MemoryCellInputFile'):
    if name not in entries:
      raise fail(path, 0, name, 'missing')

  def value(name, default):
    return entries[name].value if name in entries else default

  capacity = entries['Capacity']
  unit = _CAPACITY.match(path.read_text().splitlines()[capacity.line - 1].strip())
  if not unit:
    raise fail(path, capacity.line, 'Capacity', 'unit; allowed: (KB), (MB)')
  is_cache = value('DesignTarget', 'cache') == 'cache'
  word_bytes = entries['WordWidth'].value // 8
  if word_bytes < 1:
    raise fail(path, entries['WordWidth'].line, 'WordWidth', 'allowed: at least 8')
  spec = specs.CacheSpec(
    capacity.value << {'KB': 10, 'MB': 20}[unit[1]],
    word_bytes,
    value('Associativity', 1) if is_cache else 1,
  )
  target = value('OptimizationTarget', Target.READ_LATENCY)
  config = Config(
    cell_path=path.parent / entries['MemoryCellInputFile'].value,
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
  )
  try:
    config.technology()
  except ValueError as error:
    blamed = {'node_nm': 'ProcessNode', 'temperature_k': 'Temperature'}[str(error).split('=')[0]]
    raise fail(path, entries[blamed].line, blamed, str(error)) from None
  return config
