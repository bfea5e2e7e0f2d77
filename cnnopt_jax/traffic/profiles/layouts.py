"""The layouts of tables: what each says of launches, as samples of metrics.

- summary: a line a kernel and metric, the mean over invocations (nvprof; `ncu --print-summary`), or
  a line a kernel with its time alone (nvprof without metrics);
- long: a line a launch and metric (Nsight Compute's details page and log);
- wide: a line a launch, a column a metric (nvprof's traces, Nsight Compute's raw page, joined
  tables);
- turned: a line a metric, a column a launch.
"""

import collections
import functools
import re
from collections.abc import Hashable, Iterator
from typing import NamedTuple

from cnnopt_jax.traffic.profiles.metrics import Metric, factor, metric_of
from cnnopt_jax.traffic.profiles.tables import Row, Table, normalized

# nvprof prints a correlation behind the name where it has no column for it.
_CORRELATION = re.compile(r'\s+\[\d+\]$')
_NVTX_COLUMNS = ('push/pop range', 'start/stop range', 'nvtx')
_VALUE_COLUMNS = ('metric value', 'avg', 'average', 'mean', 'value')
# Of an NVTX range: domain, name, and six fields more, most of them 'none'.
_NVTX_SUFFIX = 6


class Sample(NamedTuple):
  """What a line says of a launch, or of several by their sum.

  Attributes:
    launch: what tells it from others.
    kernel: its name.
    launches: how many are summed.
    row: the line, for grid, block, device and NVTX range.
    name: of the metric; '' for a launch of which no metric is known.
    metric: what the name means.
    value: in the metric's field's unit, all launches; None where the tool has none.
  """

  launch: Hashable
  kernel: str
  launches: int
  row: Row
  name: str
  metric: Metric | None
  value: float | None


def samples(table: Table) -> list[Sample]:
  """Everything that a table says of launches; none where it has no known metric.

  Raises:
    ProfileError: for a broken line; it names file, line and column.
  """
  if table.metric is not None:
    if table.kernel is None or table.find(*_VALUE_COLUMNS) is None:
      return list(_turned(table))
    if table.find('invocations') is not None:
      return list(_summary(table))
    return list(_long(table))
  metrics = {column: found for column in table.columns if (found := metric_of(column))}
  if table.find('calls') is not None and table.find('time') is not None:
    return list(_times(table))
  return list(_wide(table, metrics)) if metrics else []


def _value(
  table: Table, row: Row, column: str, metric: Metric, unit: str, unit_column: str | None = None
) -> float | None:
  """A cell in the unit of the metric's field: its own unit counts before that of its column."""
  found = table.number(row, column)
  if found is None:
    return None
  number, own = found
  try:
    scale = factor(metric, own or unit)
  except ValueError as error:
    raise table.error(row.line, unit_column or column, str(error)) from None
  return None if scale is None else number * scale


def _kernel(table: Table, row: Row) -> str:
  name = _CORRELATION.sub('', table.cell(row, table.kernel))
  if not name:
    raise table.error(row.line, table.kernel or '', 'no name of a kernel')
  return name


def _invocations(table: Table, row: Row, column: str) -> int:
  found = table.number(row, column)
  if found is None or found[0] < 1 or found[0] != int(found[0]):
    text = table.cell(row, column)
    raise table.error(row.line, column, f'{text} is no number of launches')
  return int(found[0])


def _summary(table: Table) -> Iterator[Sample]:
  invocations = table.find('invocations') or ''
  mean, unit = table.find(*_VALUE_COLUMNS), table.find('metric unit')
  for row in table.rows:
    name = table.cell(row, table.metric)
    metric = metric_of(name)
    if metric is None or mean is None:
      continue
    count = _invocations(table, row, invocations)
    value = _value(table, row, mean, metric, table.cell(row, unit), unit)
    kernel = _kernel(table, row)
    # One process after another may run the same kernel.
    launch = (
      kernel,
      table.cell(row, table.find('process id')),
      table.cell(row, table.find('device')),
    )
    yield Sample(launch, kernel, count, row, name, metric, None if value is None else value * count)


def _times(table: Table) -> Iterator[Sample]:
  """nvprof without metrics: the time of all launches of a kernel, and their number."""
  time, calls, kind = (table.find(name) or '' for name in ('time', 'calls', 'type'))
  metric = Metric(('seconds',), 1, 1.0, '')
  rows, units = _units(table, [time])
  for row in rows:
    if kind and table.cell(row, kind) == 'API calls':
      continue
    count = _invocations(table, row, calls)
    value = _value(table, row, time, metric, units[time])
    yield Sample(row.line, _kernel(table, row), count, row, 'duration', metric, value)


def _long(table: Table) -> Iterator[Sample]:
  value = table.find(*_VALUE_COLUMNS)
  unit, identity = table.find('metric unit', 'unit'), table.find('id', 'launch id', 'index')
  process = table.find('process id')
  seen: collections.Counter[Hashable] = collections.Counter()
  for row in table.rows:
    kernel, name = _kernel(table, row), table.cell(row, table.metric)
    metric = metric_of(name) if value is not None else None
    if identity is not None:
      launch: Hashable = table.cell(row, process), table.cell(row, identity)
    else:  # The n-th line of a kernel and metric is of its n-th launch.
      seen[kernel, name] += 1
      launch = kernel, seen[kernel, name]
    if metric is None or value is None:
      yield Sample(launch, kernel, 1, row, '', None, None)
      continue
    number = _value(table, row, value, metric, table.cell(row, unit), unit)
    yield Sample(launch, kernel, 1, row, name, metric, number)


def _wide(table: Table, metrics: dict[str, Metric]) -> Iterator[Sample]:
  rows, units = _units(table, metrics)
  device = table.find('device') if table.find('name') == table.kernel else None
  for row in rows:
    # A trace may hold API calls too, which have no device.
    if device is not None and not table.cell(row, device):
      continue
    kernel = _kernel(table, row)
    for column, metric in metrics.items():
      value = _value(table, row, column, metric, units[column])
      yield Sample(row.line, kernel, 1, row, column, metric, value)


def _units(table: Table, columns) -> tuple[list[Row], dict[str, str]]:
  """The rows below a line of units, and the unit of each column; '' where there is no such line."""
  rows = table.rows
  if rows and not table.cell(rows[0], table.kernel):
    return rows[1:], {column: table.cell(rows[0], column) for column in columns}
  return rows, dict.fromkeys(columns, '')


def _turned(table: Table) -> Iterator[Sample]:
  """Kernels are columns: all but those that describe the metric."""
  unit = table.find('metric unit', 'unit', 'units')
  about = ('metric unit', 'unit', 'units', 'section name', 'metric description', 'description')
  kernels = [
    (i, column)
    for i, column in enumerate(table.columns)
    if column and column != table.metric and normalized(column) not in about
  ]
  for row in table.rows:
    metric = metric_of(table.cell(row, table.metric))
    if metric is None:
      continue
    for i, kernel in kernels:
      # Columns of one name are several launches: the cell is taken by its place.
      cell = table._replace(
        columns=tuple(str(j) if j == i else '' for j in range(len(table.columns)))
      )
      try:
        value = _value(cell, row, str(i), metric, table.cell(row, unit), unit)
      except ValueError as error:
        raise type(error)(str(error).replace(f'column {str(i)!r}', f'column {kernel!r}')) from None
      yield Sample(i, kernel, 1, row, table.cell(row, table.metric), metric, value)


class Attributes(NamedTuple):
  """What a line says of a launch beside metrics.

  Attributes:
    grid, block: in x, y, z.
    device: the GPU's name.
    capability: its compute capability, such as '7.0'.
    nvtx: ranges around it, the outermost first, with slashes between.
  """

  grid: tuple[int, int, int] | None
  block: tuple[int, int, int] | None
  device: str | None
  capability: str | None
  nvtx: str | None


def attributes(table: Table, row: Row) -> Attributes:
  """Grid, block, GPU and NVTX ranges of a line.

  Raises:
    ProfileError: for a grid or block that is none.
  """
  device = re.sub(
    r'\s*\(\d+\)$', '', table.cell(row, table.find('device attribute display name', 'device'))
  )
  nvtx = '/'.join(
    part for column in _nvtx_columns(table.columns) for part in _ranges(table.cell(row, column))
  )
  return Attributes(
    _extent(table, row, 'grid'),
    _extent(table, row, 'block'),
    None if not device or device.isdigit() else device,  # Nsight Compute numbers the devices.
    table.cell(row, table.find('cc')) or None,
    nvtx or None,
  )


@functools.lru_cache(64)
def _nvtx_columns(columns: tuple[str, ...]) -> list[str]:
  return [c for c in columns if any(word in normalized(c) for word in _NVTX_COLUMNS)]


def _extent(table: Table, row: Row, what: str) -> tuple[int, int, int] | None:
  # 'GrdX' as Nsight Systems has it.
  short = {'grid': 'grd', 'block': 'blk'}[what]
  columns = [table.find(f'{what} {axis}', f'{short}{axis}') for axis in 'xyz']
  if column := columns[0]:
    parts = [table.cell(row, c) or '1' for c in columns]
    if not table.cell(row, column):
      return None  # A copy.
  else:
    column = table.find(f'{what} size', what)
    text = table.cell(row, column)
    if column is None or not text:
      return None
    parts = (re.findall(r'\d+', text) + ['1', '1'])[:3]
  if not all(re.fullmatch('0*[1-9][0-9]{0,11}', part) for part in parts):
    raise table.error(row.line, column, f'{table.cell(row, column)!r} is no size of a {what}')
  x, y, z = map(int, parts)
  return x, y, z


def _ranges(text: str) -> list[str]:
  """Names of the ranges of a cell: '1  "<default domain>:conv1:none:none:none:none:none:none"'."""
  quoted = re.findall(r'"([^"]+)"', text)
  if not quoted:
    return [text] if text else []
  names = []
  for whole in quoted:
    parts = whole.split(':')
    if len(parts) >= _NVTX_SUFFIX + 2:
      parts = parts[:-_NVTX_SUFFIX]
    while len(parts) > 2 and parts[-1] == 'none':
      parts.pop()
    names.append(':'.join(parts[1:] or parts))
  return names
