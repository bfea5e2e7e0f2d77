"""The table in a profiler's file: where it begins, what separates cells, which lines are not it."""

import codecs
import csv
import functools
import io
import math
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

# Spelled in small letters, with spaces for underscores; the first that a line has is the column.
_KERNEL_COLUMNS = ('kernel name', 'kernel', 'function name', 'kernel function', 'name')
_METRIC_COLUMNS = ('metric name', 'metric')
_BESIDE = set(
  'device|stream|calls|grid x|grid size|block size|process id|correlation id|invocations|'
  'event name|metric value|context|id'.split('|')
)
# nvprof's trace of API calls, which are no launches, names no more than this.
_API_TRACE = {'start', 'duration', 'name', 'correlation id'}
# Files that the tools open themselves, by their first bytes.
_BINARY = {
  b'NVR\x00': 'a report of Nsight Compute; `ncu --import FILE --csv --page raw` prints it as CSV',
  b'SQLite format 3': 'a database of nvprof; `nvprof --import-profile FILE --csv '
  '--print-gpu-trace` prints it as CSV',
}
_NUMBER = re.compile(r'([+-]?(?:[\d,.]*\d)(?:[eE][+-]?\d+)?)\s*([^\d\s].*)?')
_GROUPED = re.compile(r'[+-]?\d{1,3}(,\d{3})+(\.\d*)?([eE][+-]?\d+)?')
_ABSENT = {'', '-', 'n/a', '(!) n/a', 'nan', 'none', 'no data', '<overflow>'}


class ProfileError(ValueError):
  """A file that is no profile, or a broken one; names file, line and column."""


def normalized(name: str) -> str:
  """A column's name in small letters, with single spaces for underscores."""
  return ' '.join(name.replace('_', ' ').lower().split())


@functools.lru_cache(256)  # Asked for at every line of a table.
def _found(columns: tuple[str, ...], names: tuple[str, ...]) -> str | None:
  known = {normalized(column): column for column in reversed(columns)}
  return next((known[name] for name in names if name in known), None)


class Row(NamedTuple):
  """A line of a table.

  Attributes:
    line: its number in the file, from 1.
    cells: one for each column.
  """

  line: int
  cells: list[str]


class Table(NamedTuple):
  """A table of a file.

  Attributes:
    path: of the file.
    columns: names of the columns.
    rows: lines below the names.
    line: of the names.
    decimal_comma: whether '1,5' is one and a half, as where semicolons separate the cells.
  """

  path: pathlib.Path
  columns: tuple[str, ...]
  rows: list[Row]
  line: int
  decimal_comma: bool

  def error(self, line: int, column: str, what: str) -> ProfileError:
    return ProfileError(f'{self.path}, line {line}, column {column!r}: {what}')

  def find(self, *names: str) -> str | None:
    """The first column of one of these names, which are `normalized`."""
    return _found(self.columns, names)

  @property
  def kernel(self) -> str | None:
    """The column of kernels' names."""
    return self.find(*_KERNEL_COLUMNS)

  @property
  def metric(self) -> str | None:
    """The column of metrics' names, in a table that has one."""
    return self.find(*_METRIC_COLUMNS)

  def cell(self, row: Row, column: str | None) -> str:
    """Of a row; '' of a column that there is not."""
    return '' if column is None else row.cells[self.columns.index(column)].strip()

  def number(self, row: Row, column: str) -> tuple[float, str] | None:
    """The number of a cell and the unit behind it; None where the tool has none.

    Raises:
      ProfileError: for what is no number, or a negative one.
    """
    text = self.cell(row, column)
    if text.lower() in _ABSENT:
      return None
    match = _NUMBER.fullmatch(text)
    value = None if match is None else _value(match[1], self.decimal_comma)
    if match is None or value is None:
      raise self.error(row.line, column, f'{text!r} is no number')
    if value < 0:
      raise self.error(row.line, column, f'{text!r} is negative; a count is not')
    return value, match[2] or ''


def _value(digits: str, decimal_comma: bool) -> float | None:
  """A finite number; a comma separates thousands, or where it cannot, decimals if it may."""
  if ',' in digits:
    if decimal_comma and digits.count(',') == 1 and '.' not in digits:
      digits = digits.replace(',', '.')
    elif _GROUPED.fullmatch(digits):
      digits = digits.replace(',', '')
  try:
    value = float(digits)
  except ValueError:  # Several points, or commas that separate no thousands.
    return None
  return value if math.isfinite(value) else None


def read_tables(path: pathlib.Path, is_metric: Callable[[str], bool]) -> list[Table]:
  """The tables of a file.

  Args:
    path: of the file.
    is_metric: whether a column's name is that of a metric or duration that is read.

  Returns:
    One or more; a tool run twice writes its names twice.

  Raises:
    OSError: if the file cannot be read.
    ProfileError: if it is no text, has no table, or a broken line.
  """
  text = _text(path)
  lines = text.splitlines(keepends=True)
  for delimiter in (',', '\t', ';'):
    if starts := _heads(lines, delimiter, is_metric):
      ends = [*starts[1:], len(lines)]
      return [_table(path, lines[start:end], start, delimiter) for start, end in zip(starts, ends)]
  raise ProfileError(
    f"{path}, line 1, column 1: no line names a column 'Kernel', 'Kernel Name' or 'Name' of "
    'launches; allowed: CSV of nvprof --metrics or --print-gpu-trace, or of ncu --csv'
    + (' (the file is empty)' if not text.strip() else '')
  )


def _text(path: pathlib.Path) -> str:
  data = path.read_bytes()
  for start, what in _BINARY.items():
    if data.startswith(start):
      raise ProfileError(f'{path}, line 1, column 1: not text, but {what}')
  wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
  try:
    text = data.decode('utf-16' if wide else 'utf-8-sig')
  except UnicodeDecodeError as error:
    raise ProfileError(
      f'{path}, line {data[: error.start].count(10) + 1}, column 1: not text ({error.reason}); '
      'allowed: CSV of nvprof or Nsight Compute'
    ) from None
  # Only these end a line: `splitlines` alone would break names at other control characters.
  return re.sub(r'[\v\f\x1c-\x1e\x85\u2028\u2029]', ' ', text)


def _heads(lines: list[str], delimiter: str, is_metric: Callable[[str], bool]) -> list[int]:
  """Lines that name the columns of launches.

  A kernel may itself be called 'kernel': a head has no numbers, heads that more than one word
  betrays are sought first, and only without any the first line that has such a column at all.
  """
  strong, weak = [], []
  for i, line in enumerate(lines):
    if delimiter not in line or line.startswith('=='):
      continue
    try:
      cells = next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
      continue
    if any(_NUMBER.fullmatch(cell.strip()) for cell in cells):
      continue
    names = {normalized(cell) for cell in cells}
    beside = len(names & _BESIDE) + sum(map(is_metric, cells))
    metrics, kernels = names & set(_METRIC_COLUMNS), names & set(_KERNEL_COLUMNS[:-1])
    if kernels and (metrics or beside) or 'name' in names and beside and names - _API_TRACE:
      strong.append(i)
    elif (kernels or metrics) and len(names) > 1:
      weak.append(i)
  return strong or weak[:1]


def _table(path: pathlib.Path, lines: list[str], before: int, delimiter: str) -> Table:
  """The table that begins with the first of some lines; `before` stand above it in the file."""
  rows = list(_rows(path, lines, before, delimiter))
  columns = tuple(cell.strip() for cell in rows[0].cells)
  quoted = lines[0].lstrip().startswith('"')
  kept = []
  for row in rows[1:]:
    if len(row.cells) == len(columns):
      kept.append(row)
    elif not (quoted and _is_print(lines[row.line - before - 1])):
      raise ProfileError(
        f'{path}, line {row.line}, column {min(len(row.cells), len(columns)) + 1}: '
        f'{len(row.cells)} fields, but line {before + 1} names {len(columns)}'
      )
  return Table(path, columns, kept, before + 1, delimiter == ';')


def _is_print(line: str) -> bool:
  """Whether a line between a tool's own, which quotes its cells, is what the program printed."""
  return not re.match(r'\s*["\d,]', line)


def _rows(path: pathlib.Path, lines: list[str], before: int, delimiter: str) -> Iterator[Row]:
  """Rows of cells, without blank lines and the tools' own, such as '==123== Profiling result:'."""
  blanked = ('\n' if re.match(r'\s*==', line) else line for line in lines)
  reader = csv.reader(io.StringIO(''.join(blanked), newline=''), delimiter=delimiter, strict=True)
  first = 1
  try:
    for cells in reader:
      if any(cell.strip() for cell in cells):
        # Messages of one line have to name what stands in a cell of several.
        yield Row(before + first, [' '.join(cell.splitlines()) for cell in cells])
      first = reader.line_num + 1
  except csv.Error as error:
    raise ProfileError(f'{path}, line {before + reader.line_num}, column 1: {error}') from None
