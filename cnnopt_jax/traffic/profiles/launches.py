"""`read_launches` and `read_profile`: a profile launch by launch, and summed by kernel."""

import pathlib
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from cnnopt_jax.traffic.profiles.layouts import Sample, attributes, samples
from cnnopt_jax.traffic.profiles.metrics import COUNTERS, METRICS, RATES, SECONDS, metric_of
from cnnopt_jax.traffic.profiles.tables import ProfileError, Table, read_tables

_FIELDS = (SECONDS, *COUNTERS, *RATES)


class LaunchProfile(NamedTuple):
  """A launch, a copy or a fill; or, of a summary, all of a kernel.

  Figures are sums over `launches`, rates their means; None where the profile has none.

  Attributes:
    kernel: its name.
    launches: 1 in a trace.
    grid, block: in x, y, z.
    device: the GPU's name.
    capability: its compute capability, such as '7.0'.
    nvtx: NVTX ranges around it, the outermost first, with slashes between.
    seconds: s.
    l2_reads, l2_writes, dram_reads, dram_writes: sectors of 32 B; those of L2 from and to the
      processors where the profile tells them from all.
    l2_hit_rate, l2_read_hit_rate: hits in L2 over accesses, and over reads.
  """

  kernel: str
  launches: int = 1
  grid: tuple[int, int, int] | None = None
  block: tuple[int, int, int] | None = None
  device: str | None = None
  capability: str | None = None
  nvtx: str | None = None
  seconds: float | None = None
  l2_reads: float | None = None
  l2_writes: float | None = None
  dram_reads: float | None = None
  dram_writes: float | None = None
  l2_hit_rate: float | None = None
  l2_read_hit_rate: float | None = None

  @property
  def is_copy(self) -> bool:
    """Whether it is a copy or a fill, of which the tools count little or nothing."""
    return self.kernel.startswith(('[CUDA mem', '[Unified Memory'))


class KernelProfile(NamedTuple):
  """All launches of one kernel.

  Attributes:
    kernel: its name.
    launches: how many.
    l2_reads, l2_writes, dram_reads, dram_writes: sectors of all launches; None where the profile
      has them not of every one.
  """

  kernel: str
  launches: int
  l2_reads: float | None
  l2_writes: float | None
  dram_reads: float | None
  dram_writes: float | None


def total_of(launches: Sequence[LaunchProfile], field: str) -> float | None:
  """The sum of a counter or of the seconds; None unless every launch has it.

  A sum of some would pass for the whole. Copies and fills without the counter are left out.
  """
  values = [getattr(launch, field) for launch in launches]
  kept = [v for v, launch in zip(values, launches) if v is not None or not launch.is_copy]
  return None if not kept or None in kept else sum(kept)


def read_profile(path: str | pathlib.Path) -> list[KernelProfile]:
  """Reads a profile of either tool, and sums it by kernel.

  Args:
    path: of the CSV file.

  Returns:
    One entry for each kernel, in the order of their first launch; copies only if they are counted.

  Raises:
    OSError: if the file cannot be read.
    ProfileError: as `read_launches`.
  """
  kernels: dict[str, list[LaunchProfile]] = {}
  for launch in read_launches(path):
    if not launch.is_copy or any(getattr(launch, field) is not None for field in COUNTERS):
      kernels.setdefault(launch.kernel, []).append(launch)
  return [
    KernelProfile(
      kernel, sum(one.launches for one in found), *(total_of(found, field) for field in COUNTERS)
    )
    for kernel, found in kernels.items()
  ]


def read_launches(path: str | pathlib.Path) -> tuple[LaunchProfile, ...]:
  """Reads a profile of either tool, launch by launch, in the order of the file.

  Of several metrics that give a counter, the first of these that every launch has is taken: sectors
  of the processors, all sectors, bytes of the processors, all bytes. Bytes are divided by 32.

  Args:
    path: of the CSV file.

  Returns:
    An entry for each launch, copies and fills included; of a summary for each kernel.

  Raises:
    OSError: if the file cannot be read.
    ProfileError: if it is no such table, has none of the known metrics, or a broken line; the
      message names file, line and column.
  """
  tables = read_tables(pathlib.Path(path), lambda name: metric_of(name) is not None)
  launches: dict[Hashable, tuple[Table, list[Sample]]] = {}
  for number, table in enumerate(tables):
    for sample in samples(table):
      launches.setdefault((number, sample.launch), (table, []))[1].append(sample)
  if not any(sample.metric for _, found in launches.values() for sample in found):
    raise _nothing_known(tables[-1])
  rows = [_by_name(table, found) for table, found in launches.values()]
  chosen = {field: _choice(rows, field) for field in _FIELDS}
  return tuple(
    _launch(table, found, row, chosen) for row, (table, found) in zip(rows, launches.values())
  )


class _Row(NamedTuple):
  """Values of a launch by name of the metric, and whether it is a copy."""

  values: dict[str, float]
  is_copy: bool


def _by_name(table: Table, found: list[Sample]) -> _Row:
  values: dict[str, float] = {}
  first = found[0]
  for sample in found:
    if sample.kernel != first.kernel:
      raise table.error(
        sample.row.line,
        table.kernel or '',
        f'{sample.kernel!r}, but line {first.row.line} has {first.kernel!r} for the same launch',
      )
    if sample.value is not None:  # A page may show a metric in several sections.
      values.setdefault(sample.name, sample.value)
  return _Row(values, first.kernel.startswith('['))


def _choice(rows: list[_Row], field: str) -> tuple[str, tuple[str, ...]] | None:
  """The metric of a field, and those that come on top of it; None where there is none."""
  names = dict.fromkeys(name for row in rows for name in row.values)
  metrics = {name: metric for name in names if (metric := metric_of(name)) is not None}
  kernels = [row for row in rows if not row.is_copy] or rows
  # The most launches first: a counter that some lack would be a part that passes for the whole.
  ranked = [
    (-sum(name in row.values for row in kernels), metric.rank, name)
    for name, metric in metrics.items()
    if metric.fields == (field,) and not metric.added
  ]
  if not ranked:
    return None
  _, rank, best = min(ranked)
  added = tuple(
    name for name, m in metrics.items() if m.added and m.rank == rank and field in m.fields
  )
  return best, added


def _launch(
  table: Table,
  found: list[Sample],
  row: _Row,
  chosen: dict[str, tuple[str, tuple[str, ...]] | None],
) -> LaunchProfile:
  count = max(sample.launches for sample in found)
  figures: dict[str, float | None] = {}
  for field, names in chosen.items():
    value = None if names is None else row.values.get(names[0])
    if names is not None and value is not None:
      value += sum(row.values.get(name, 0.0) for name in names[1])
      value = value / count if field in RATES else value
    figures[field] = value
  about = attributes(table, found[0].row)
  return LaunchProfile(found[0].kernel, count, *about, **figures)  # type: ignore[arg-type]


def _nothing_known(table: Table) -> ProfileError:
  line = table.rows[-1].line if table.rows else table.line
  named = any(metric_of(column) for column in table.columns) or table.metric is not None
  if named:
    column = table.metric or table.kernel or ''
    return table.error(line, column, 'the table has no launch with a known metric')
  return table.error(
    table.line,
    table.columns[-1],
    f'no known metric among the columns; known: {", ".join(METRICS)}',
  )
