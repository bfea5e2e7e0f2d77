"""Reference data: what NVSim and CACTI print, in four CSV formats, as rows of one kind each.

- forced components: one printed quantity of a design of forced organisation per row;
- forced summary: one such design per row;
- cache search: NVSim's winner for one target per row;
- CACTI: one SRAM cache per row.

Which one a file holds is told from its header.
"""

import csv
import pathlib
import re
from typing import NamedTuple

from cnnopt_jax.nvm.specs import Mode, Target


class Design(NamedTuple):
  """An array whose organisation is given.

  Attributes:
    cell, node_nm, roadmap: what it is made of.
    capacity_bytes, word_bits: what it holds.
    mats: rows and columns.
    active: rows and columns of mats at work.
    mux: degrees before and after the sense amplifiers, `(bit line, output 1, output 2)`.
  """

  cell: str
  node_nm: int
  roadmap: str
  capacity_bytes: int
  word_bits: int
  mats: tuple[int, int]
  active: tuple[int, int]
  mux: tuple[int, int, int]


class Figure(NamedTuple):
  """One figure of a design.

  Attributes:
    design: which.
    quantity: as NVSim prints it, 'total > part' for parts.
    value: in mm2, ns, pJ or mW.
    step: half a unit of the last digit that NVSim printed.
    line: in the file.
  """

  design: Design
  quantity: str
  value: float
  step: float
  line: int


class CacheRow(NamedTuple):
  """NVSim's winner for one target.

  Attributes:
    design: its data array.
    line_bytes, mode, target: of the cache.
    figures: area_mm2, hit_latency_ns, miss_latency_ns, write_latency_ns, hit_energy_nj,
      miss_energy_nj, write_energy_nj, leakage_mw.
    line: in the file.
  """

  design: Design
  line_bytes: int
  mode: Mode
  target: Target
  figures: dict[str, float]
  line: int


class CactiRow(NamedTuple):
  """An SRAM cache of CACTI's.

  Attributes:
    design: only its cell, node and capacity count.
    mode: access mode.
    figures: hit_latency_ns, hit_energy_nj, write_energy_nj, leakage_mw, area_mm2.
    line: in the file.
  """

  design: Design
  mode: Mode
  figures: dict[str, float]
  line: int


_UNITS = {
  'mm2': 1.0,
  'um2': 1e-6,
  'ns': 1.0,
  'ps': 1e-3,
  'us': 1e3,
  'pJ': 1.0,
  'nJ': 1e3,
  'fJ': 1e-3,
  'mW': 1.0,
  'uW': 1e-3,
  'nW': 1e-6,
  'W': 1e3,
}
# The smallest unit that NVSim prints a quantity in, relative to ours, by ours.
_SMALLEST = {'mm2': 1e-12, 'ns': 1e-3, 'pJ': 1.0, 'mW': 1e-9}
_SUMMARY = {
  'area_mm2': ('Total Area', 'mm2'),
  'read_ns': ('Read Latency', 'ns'),
  'htree_read_ns': ('Read Latency > H-Tree Latency', 'ns'),
  'bitline_ns': ('Read Latency > Bitline Latency', 'ns'),
  'senseamp_ns': ('Read Latency > Senseamp Latency', 'ns'),
  'rowdec_ns': ('Read Latency > Row Decoder Latency', 'ns'),
  'write_ns': ('Write Latency', 'ns'),
  'read_pJ': ('Read Dynamic Energy', 'pJ'),
  'write_pJ': ('Write Dynamic Energy', 'pJ'),
  'leak_mW': ('Leakage Power', 'mW'),
  'set_ns': ('SET Latency', 'ns'),
  'reset_ns': ('RESET Latency', 'ns'),
  'set_pJ': ('SET Dynamic Energy', 'pJ'),
  'reset_pJ': ('RESET Dynamic Energy', 'pJ'),
}
_CACHE_FIGURES = {
  'area_mm2': 'area_mm2',
  'hit_ns': 'hit_latency_ns',
  'miss_ns': 'miss_latency_ns',
  'write_ns': 'write_latency_ns',
  'hit_nJ': 'hit_energy_nj',
  'miss_nJ': 'miss_energy_nj',
  'write_nJ': 'write_energy_nj',
  'leak_mW': 'leakage_mw',
}
_MODES = {'seq': Mode.SEQUENTIAL, 'norm': Mode.NORMAL, 'fast': Mode.FAST}
_TARGETS = {
  'ReadLatency': Target.READ_LATENCY,
  'WriteLatency': Target.WRITE_LATENCY,
  'ReadDynamicEnergy': Target.READ_ENERGY,
  'WriteDynamicEnergy': Target.WRITE_ENERGY,
  'ReadEDP': Target.READ_EDP,
  'WriteEDP': Target.WRITE_EDP,
  'LeakagePower': Target.LEAKAGE,
  'Leakage': Target.LEAKAGE,
  'Area': Target.AREA,
}
_RUN = re.compile(
  r'cache(?P<node>\d+)_(?P<line>\d+)B_(?P<mode>seq|norm|fast)_'
  r'(?:(?P<roadmap>HP|LSTP|LOP)_)?(?P<cell>.+)_(?P<capacity>\d+)(?P<unit>[KMG])B$'
)
_CACTI_RUN = re.compile(r'cacti_(?P<node>\d+)_(?P<mode>normal|fast|sequential)_(?P<mb>\d+)MB$')
_CACTI_FIGURES = {
  'access_ns': 'hit_latency_ns',
  'read_nJ': 'hit_energy_nj',
  'write_nJ': 'write_energy_nj',
  'leak_mW': 'leakage_mw',
  'area_mm2': 'area_mm2',
}
_ORGANIZATION = re.compile(r'mats (\d+)x(\d+) act (\d+)x(\d+); sub \d+x\d+; mux (\d+)/(\d+)/(\d+)')


def read_reference(path: pathlib.Path) -> list[Figure] | list[CacheRow] | list[CactiRow]:
  """Reads a CSV of one of the four formats.

  Raises:
    ValueError: naming file, line and field of what cannot be read.
  """
  with open(path, newline='') as file:
    reader = csv.DictReader(file)
    header = set(reader.fieldnames or ())
    parse = next(
      (
        parse
        for needed, parse in (
          ({'cell', 'quantity', 'value', 'unit'}, _component),
          ({'cell', 'cap_KB', 'matRows', 'read_ns'}, _summary),
          ({'run', 'opt_target', 'data_org'}, _cache),
          ({'run', 'access_ns', 'Ndwl'}, _cacti),
        )
        if needed <= header
      ),
      None,
    )
    if parse is None:
      raise ValueError(f'{path}: line 1: header {reader.fieldnames}: not a known format')
    rows = []
    for row in reader:
      try:
        rows.extend(parse(row, reader.line_num))
      except KeyError as error:
        raise ValueError(f'{path}: line {reader.line_num}: no column {error}') from None
      except (ValueError, TypeError) as error:
        raise ValueError(f'{path}: line {reader.line_num}: {error}') from None
  return rows


def _half_step(value, unit):
  """NVSim prints three decimals in units of 1000^k, from the smallest unit up."""
  step = _SMALLEST[unit]
  factor = 1e6 if unit == 'mm2' else 1e3
  while step * factor <= abs(value):
    step *= factor
  return 0.5e-3 * step


def _component(row, line):
  columns = int(row['mat_cols'])
  design = Design(
    row['cell'],
    int(row['node_nm']),
    row['roadmap'],
    1024 * int(row['capacity_kib']),
    int(row.get('word_bits') or 512),
    (int(row['mat_rows']), columns),
    (1, int(row['active_cols'])),
    (int(row['mux_senseamp']), 1, 1),
  )
  if row['unit'] not in _UNITS:
    raise ValueError(f'unit {row["unit"]!r}: unknown')
  unit = {'m': 'mm2', 's': 'ns', 'J': 'pJ', 'W': 'mW'}[row['unit'].rstrip('2')[-1]]
  value = float(row['value']) * _UNITS[row['unit']]
  yield Figure(design, row['quantity'], value, _half_step(value, unit), line)


def _summary(row, line):
  design = Design(
    row['cell'],
    int(row['node_nm']),
    row['roadmap'],
    1024 * int(row['cap_KB']),
    int(row['word_bit']),
    (int(row['matRows']), int(row['matCols'])),
    (1, int(row['activeCols'])),
    (int(row['muxSA']), 1, 1),
  )
  for column, (quantity, unit) in _SUMMARY.items():
    if row.get(column):
      value = float(row[column])
      yield Figure(design, quantity, value, _half_step(value, unit), line)


def _cache(row, line):
  run = _RUN.match(row['run'])
  organization = _ORGANIZATION.match(row['data_org'])
  if not run:
    raise ValueError(f'run {row["run"]!r}: not <node>_<line>B_<mode>_[roadmap_]<cell>_<capacity>')
  if not organization:
    raise ValueError(f'data_org {row["data_org"]!r}: not "mats RxC act RxC; sub RxC; mux A/B/C"')
  rows, columns, active_rows, active_columns, *mux = map(int, organization.groups())
  bit_line, first, second = mux
  line_bytes = int(run['line'])
  capacity = int(run['capacity']) << {'K': 10, 'M': 20, 'G': 30}[run['unit']]
  design = Design(
    run['cell'],
    int(run['node']),
    run['roadmap'] or 'HP',
    capacity,
    8 * line_bytes,
    (rows, columns),
    (active_rows, active_columns),
    (bit_line, first, second),
  )
  if row['opt_target'] not in _TARGETS:
    raise ValueError(f'opt_target {row["opt_target"]!r}: unknown')
  figures = {ours: float(row[theirs]) for theirs, ours in _CACHE_FIGURES.items()}
  yield CacheRow(
    design, line_bytes, _MODES[run['mode']], _TARGETS[row['opt_target']], figures, line
  )


def _cacti(row, line):
  run = _CACTI_RUN.match(row['run'])
  if not run:
    raise ValueError(f'run {row["run"]!r}: not cacti_<node>_<mode>_<capacity>MB')
  design = Design(
    'sram', int(run['node']), 'HP', int(run['mb']) << 20, 512, (1, 1), (1, 1), (1, 1, 1)
  )
  figures = {ours: float(row[theirs]) for theirs, ours in _CACTI_FIGURES.items()}
  yield CactiRow(design, Mode(run['mode'].capitalize()), figures, line)
