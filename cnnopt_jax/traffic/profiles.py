"""Readers of profiles: L2 and DRAM transactions of each kernel, from nvprof and Nsight Compute.

    nvprof --csv --metrics l2_read_transactions,l2_write_transactions,dram_read_transactions,\\
dram_write_transactions --log-file profile.csv COMMAND
    ncu --csv --metrics lts__t_sectors_op_read.sum,lts__t_sectors_op_write.sum,\\
dram__sectors_read.sum,dram__sectors_write.sum --log-file profile.csv COMMAND

Five layouts are known: nvprof's summary (a line a kernel and metric, mean over invocations) and
trace (a column a metric, with units in a line below the names), and Nsight Compute's long (a line a
launch and metric) and raw page (a column a metric, units below), each with the tool's own lines
before the table or without.
"""

import csv
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

_SECTOR_BYTES = 32

# Metric -> field of `KernelProfile`, and sectors for each of its units.
METRICS: dict[str, tuple[str, float]] = {
  'l2_read_transactions': ('l2_reads', 1),
  'l2_write_transactions': ('l2_writes', 1),
  'dram_read_transactions': ('dram_reads', 1),
  'dram_write_transactions': ('dram_writes', 1),
  'dram_read_bytes': ('dram_reads', 1 / _SECTOR_BYTES),
  'dram_write_bytes': ('dram_writes', 1 / _SECTOR_BYTES),
  'lts__t_sectors_op_read.sum': ('l2_reads', 1),
  'lts__t_sectors_op_write.sum': ('l2_writes', 1),
  'dram__sectors_read.sum': ('dram_reads', 1),
  'dram__sectors_write.sum': ('dram_writes', 1),
  'dram__bytes_read.sum': ('dram_reads', 1 / _SECTOR_BYTES),
  'dram__bytes_write.sum': ('dram_writes', 1 / _SECTOR_BYTES),
}
# Reads and writes at once: counted on top of the metrics above.
_BOTH = {
  'lts__t_sectors_op_atom.sum': ('l2_reads', 'l2_writes'),
  'lts__t_sectors_op_red.sum': ('l2_writes',),
}
FIELDS = ('l2_reads', 'l2_writes', 'dram_reads', 'dram_writes')
_PREFIXES = {'': 1.0, 'K': 1e3, 'M': 1e6, 'G': 1e9, 'T': 1e12}
_UNIT = re.compile(r'^([KMGT]?)(i?)(sector|byte|B|transaction|request|inst|)s?$', re.IGNORECASE)
_NOT_A_TABLE = re.compile(r'^\s*(==|$)')


class ProfileError(ValueError):
  """A file that is no profile, or a broken one; names file, line and column."""


class KernelProfile(NamedTuple):
  """All launches of one kernel.

  Attributes:
    kernel: its name.
    launches: how many.
    l2_reads, l2_writes, dram_reads, dram_writes: sectors of all launches; None where the profile
      has no such metric.
  """

  kernel: str
  launches: int
  l2_reads: float | None
  l2_writes: float | None
  dram_reads: float | None
  dram_writes: float | None


class _Value(NamedTuple):
  """A metric of one launch, or of several by their mean."""

  kernel: str
  launch: object
  launches: int
  metric: str
  value: float


class _Table(NamedTuple):
  """The lines of a CSV table, and where its columns are."""

  path: pathlib.Path
  columns: list[str]
  lines: list[tuple[int, list[str]]]

  def error(self, line: int, column: str, what: str) -> ProfileError:
    return ProfileError(f'{self.path}, line {line}, column {column!r}: {what}')

  def cell(self, line: int, cells: list[str], column: str) -> str:
    return cells[self.columns.index(column)]

  def number(self, line: int, cells: list[str], column: str) -> float:
    text = self.cell(line, cells, column)
    match = re.match(r'^([+-]?[\d,.]+(?:[eE][+-]?\d+)?)\s*([A-Za-z]*)$', text.strip())
    try:
      value = float(match[1].replace(',', '')) if match else None
    except ValueError:  # More than one point.
      value = None
    if match is None or value is None:
      raise self.error(line, column, f'{text!r} is no number')
    if value < 0:
      raise self.error(line, column, f'{text!r} is negative; a count is not')
    return value * self.scale(line, column, match[2])

  def scale(self, line: int, column: str, unit: str) -> float:
    match = _UNIT.match(unit.strip())
    if match is None:
      raise self.error(
        line,
        column,
        f'unit {unit!r} is unknown; known: sector, byte, transaction, with K, M, G or T',
      )
    prefix = match[1].upper()
    return 2.0 ** (10 * 'KMGT'.index(prefix) + 10) if match[2] and prefix else _PREFIXES[prefix]


def read_profile(path: str | pathlib.Path) -> list[KernelProfile]:
  """Reads a profile of either tool, and sums it by kernel.

  Args:
    path: of the CSV file.

  Returns:
    One entry for each kernel, in the order of their first launch.

  Raises:
    OSError: if the file cannot be read.
    ProfileError: if it is no such table, has none of the known metrics, or a broken line; the
      message names file, line and column.
  """
  table = _read_table(pathlib.Path(path))
  reader = _layout(table)
  values = list(reader(table))
  if not values:
    raise ProfileError(
      f'{table.path}, line {table.lines[-1][0] if table.lines else 1}, column '
      "'Kernel': the table has no launch with a known metric"
    )
  return _summed(values)


def _read_table(path: pathlib.Path) -> _Table:
  try:
    text = path.read_text(encoding='utf-8-sig')
  except UnicodeDecodeError as error:
    raise ProfileError(
      f'{path}, line 1, column 1: not text ({error.reason}); allowed: CSV of '
      'nvprof or Nsight Compute'
    ) from None
  lines, header, header_line = [], None, 0
  reader = csv.reader(text.splitlines(), strict=True)
  try:
    for cells in reader:
      line = reader.line_num
      if not cells or _NOT_A_TABLE.match(cells[0]) and len(cells) == 1:
        continue  # The tools' own lines, such as '==123== Profiling result:'.
      if header is None and ('Kernel' in cells or 'Kernel Name' in cells):
        header, header_line = [cell.strip() for cell in cells], line
        continue
      if header is None:
        continue  # What the profiled program printed.
      if len(cells) != len(header):
        raise ProfileError(
          f'{path}, line {line}, column {min(len(cells), len(header)) + 1}: '
          f'{len(cells)} fields, but line {header_line} names {len(header)}'
        )
      lines.append((line, cells))
  except csv.Error as error:
    raise ProfileError(f'{path}, line {reader.line_num}, column 1: {error}') from None
  if header is None:
    raise ProfileError(
      f"{path}, line 1, column 1: no line names a column 'Kernel' or 'Kernel "
      "Name'; allowed: CSV of nvprof --metrics or ncu --csv"
    )
  return _Table(path, header, lines)


def _layout(table: _Table) -> Callable[[_Table], Iterator[_Value]]:
  columns = set(table.columns)
  if {'Kernel', 'Invocations', 'Metric Name', 'Avg'} <= columns:
    return _nvprof_summary
  if {'Kernel Name', 'ID', 'Metric Name', 'Metric Unit', 'Metric Value'} <= columns:
    return _ncu_long
  if columns & ({*METRICS, *_BOTH}):
    return _wide
  known = ', '.join(METRICS)
  raise ProfileError(
    f'{table.path}, line 1, column {table.columns[-1]!r}: no known metric among '
    f'the columns; known: {known}'
  )


def _nvprof_summary(table: _Table) -> Iterator[_Value]:
  for i, (line, cells) in enumerate(table.lines):
    metric = table.cell(line, cells, 'Metric Name')
    if metric in METRICS or metric in _BOTH:
      count = table.number(line, cells, 'Invocations')
      if count < 1 or count != int(count):
        raise table.error(line, 'Invocations', f'{count:g} is no number of launches')
      yield _Value(
        table.cell(line, cells, 'Kernel'),
        i,
        int(count),
        metric,
        table.number(line, cells, 'Avg') * count,
      )


def _ncu_long(table: _Table) -> Iterator[_Value]:
  for line, cells in table.lines:
    metric = table.cell(line, cells, 'Metric Name')
    if metric in METRICS or metric in _BOTH:
      scale = table.scale(line, 'Metric Unit', table.cell(line, cells, 'Metric Unit'))
      yield _Value(
        table.cell(line, cells, 'Kernel Name'),
        table.cell(line, cells, 'ID'),
        1,
        metric,
        scale * table.number(line, cells, 'Metric Value'),
      )


def _wide(table: _Table) -> Iterator[_Value]:
  kernel = 'Kernel Name' if 'Kernel Name' in table.columns else 'Kernel'
  metrics = [name for name in table.columns if name in METRICS or name in _BOTH]
  scales, lines = dict.fromkeys(metrics, 1.0), table.lines
  if lines and not table.cell(*lines[0], kernel).strip():  # Units.
    line, cells = lines[0]
    scales = {name: table.scale(line, name, table.cell(line, cells, name)) for name in metrics}
    lines = lines[1:]
  for line, cells in lines:
    name = table.cell(line, cells, kernel)
    if not name.strip():
      raise table.error(line, kernel, 'no name of a kernel')
    if name.startswith('[CUDA mem'):
      continue  # Copies have no counters.
    for metric in metrics:
      yield _Value(name, line, 1, metric, scales[metric] * table.number(line, cells, metric))


def _summed(values: list[_Value]) -> list[KernelProfile]:
  launches: dict[str, dict] = {}
  totals: dict[str, dict[str, float]] = {}
  metrics = {value.metric for value in values}
  preferred: dict[
    str, str
  ] = {}  # One metric for each field: sectors if they are there, bytes otherwise.
  for metric, (field, scale) in METRICS.items():
    if metric in metrics and (field not in preferred or scale == 1):
      preferred.setdefault(field, metric)
  for value in values:
    kernel = totals.setdefault(value.kernel, {})
    launches.setdefault(value.kernel, {})[value.metric, value.launch] = value.launches
    if value.metric in _BOTH:
      for field in _BOTH[value.metric]:
        kernel[field] = kernel.get(field, 0.0) + value.value
    elif preferred[METRICS[value.metric][0]] == value.metric:
      field, scale = METRICS[value.metric]
      kernel[field] = kernel.get(field, 0.0) + scale * value.value

  def count(kernel: str) -> int:
    sums: dict[str, int] = {}
    for (metric, _), number in launches[kernel].items():
      sums[metric] = sums.get(metric, 0) + number
    return max(sums.values())

  return [
    KernelProfile(kernel, count(kernel), *(fields.get(field) for field in FIELDS))
    for kernel, fields in totals.items()
  ]
