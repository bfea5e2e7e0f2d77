"""Metrics of the profilers: which field of a launch each gives, and what its units are worth.

L2's sectors are counted twice over: all of them, and those from and to the processors (`l2_tex_*`
of nvprof, `lts__t_sectors_srcunit_tex_*` of Nsight Compute). The latter are preferred: the traffic
model knows the processors' accesses only, and the others hold copies, the host's, and L2's own.
"""

import re
from typing import NamedTuple

SECTOR_BYTES = 32
COUNTERS = ('l2_reads', 'l2_writes', 'dram_reads', 'dram_writes')
RATES = ('l2_hit_rate', 'l2_read_hit_rate')
SECONDS = 'seconds'


class Metric(NamedTuple):
  """What a metric's name says.

  Attributes:
    fields: of a launch that it gives, or, if `added`, adds to.
    rank: of several metrics of a field the lowest is taken: sectors of the processors, all sectors,
      bytes of the processors, all bytes.
    scale: sectors, seconds or ratio for one of its unit.
    unit: that it has where the file says none: 'count', 'byte', '%', a unit of time, or '' for a
      time of unknown unit.
    added: whether it comes on top of the metrics of the same rank.
  """

  fields: tuple[str, ...]
  rank: int
  scale: float
  unit: str
  added: bool = False


def _count(field: str, rank: int) -> Metric:
  return Metric((field,), rank, 1.0, 'count')


def _bytes(field: str, rank: int) -> Metric:
  return Metric((field,), rank, 1 / SECTOR_BYTES, 'byte')


def _known() -> dict[str, Metric]:
  """Metrics by the tools' names."""
  known: dict[str, Metric] = {}
  for op in ('read', 'write'):
    l2, dram = f'l2_{op}s', f'dram_{op}s'
    known[f'l2_tex_{op}_transactions'] = _count(l2, 0)
    known[f'l2_{op}_transactions'] = _count(l2, 1)
    known[f'dram_{op}_transactions'] = _count(dram, 1)
    known[f'dram_{op}_bytes'] = known[f'dram__bytes_{op}.sum'] = _bytes(dram, 3)
    known[f'dram__sectors_{op}.sum'] = _count(dram, 1)
    for rank, source in ((0, 'srcunit_tex_'), (1, '')):
      known[f'lts__t_sectors_{source}op_{op}.sum'] = _count(l2, rank)
      known[f'lts__t_bytes_{source}op_{op}.sum'] = _bytes(l2, rank + 2)
    # A share of hits among reads or writes.
    for name in (f'l2_tex_{op}_hit_rate', f'lts__t_sector_op_{op}_hit_rate.pct'):
      if op == 'read':
        known[name] = Metric(('l2_read_hit_rate',), 0, 0.01, '%')
  for rank, source in ((0, 'srcunit_tex_'), (1, '')):
    # An atomic reads and writes a sector, a reduction writes one.
    for op, fields in (('atom', ('l2_reads', 'l2_writes')), ('red', ('l2_writes',))):
      known[f'lts__t_sectors_{source}op_{op}.sum'] = Metric(fields, rank, 1.0, 'count', True)
  known['lts__average_t_sector_srcunit_tex_op_read_hit_rate.pct'] = Metric(
    ('l2_read_hit_rate',), 0, 0.01, '%'
  )
  for name in ('l2_tex_hit_rate', 'lts__t_sector_hit_rate.pct'):
    known[name] = Metric(('l2_hit_rate',), 0, 0.01, '%')
  for name in ('gpu__time_duration.sum', 'gpu__time_duration.avg', 'gpu__time_duration.max'):
    known[name] = Metric((SECONDS,), 0, 1.0, 'ns')  # Nsight Compute's base unit.
  known['duration'] = Metric((SECONDS,), 1, 1.0, '')
  return known


METRICS = _known()
# What people and the details page call them: 'L2 Cache Read Sectors', 'dram_bytes_write', 'L2 Hit
# Rate', 'l2_tex_read_hit_pct', 'time_ms'. Whole names only: a rate or a throughput is no count.
_OPS = {'read': 'reads', 'load': 'reads', 'write': 'writes', 'store': 'writes'}
_LABEL = re.compile(
  r'(?P<device>l2|lts|dram|device memory)(?: cache)?(?P<tex> l1/tex| tex| sm| l1)? '
  r'(?:(?P<op1>read|load|write|store)s? (?P<noun1>sectors|transactions|bytes)|'
  r'(?P<noun2>sectors|transactions|bytes) (?P<op2>read|load|write|store)s?)'
)
_HIT_LABEL = re.compile(r'l2(?: tex)?(?P<read> read)? hit (?:rate|pct|percent|ratio)')
_TIME_LABEL = re.compile(
  r'(?:(?:gpu|kernel) )?(?:(?:time|duration|elapsed) ?)?(?P<unit>[num]s|seconds|sec)'
)
_BRACKETED = re.compile(r'(.*\S)\s*[\[(]([^\[\]()]*)[\])]')


def metric_of(name: str) -> Metric | None:
  """What a name means; None for that of nothing that is read.

  Args:
    name: of a column or a metric; a unit may follow in brackets.
  """
  name = name.strip()
  if found := METRICS.get(name):
    return found
  if match := _BRACKETED.fullmatch(name):
    inner = metric_of(match[1])
    if inner is not None:
      return inner._replace(unit=match[2].strip())
    return METRICS.get(match[2].strip())  # 'A label (metric)'.
  words = ' '.join(name.replace('_', ' ').lower().split())
  if found := METRICS.get(words):
    return found
  if match := _LABEL.fullmatch(words):
    device = 'l2' if match['device'] in ('l2', 'lts') else 'dram'
    field = f'{device}_{_OPS[match["op1"] or match["op2"]]}'
    rank = 0 if match['tex'] else 1
    noun = match['noun1'] or match['noun2']
    return _bytes(field, rank + 2) if noun == 'bytes' else _count(field, rank)
  if match := _HIT_LABEL.fullmatch(words):
    ratio = words.endswith('ratio')
    field = 'l2_read_hit_rate' if match['read'] else 'l2_hit_rate'
    return Metric((field,), 1, 1.0 if ratio else 0.01, 'ratio' if ratio else '%')
  if match := _TIME_LABEL.fullmatch(words):
    unit = {'seconds': 's', 'sec': 's'}.get(match['unit'], match['unit'])
    return Metric((SECONDS,), 1, 1.0, unit)
  return None


_PREFIXES = {'': 1.0, 'K': 1e3, 'M': 1e6, 'G': 1e9, 'T': 1e12}
_COUNT_UNIT = re.compile(r'([KMGT]?)(i?)(sector|byte|B|transaction|request|inst|count|)s?', re.I)
_TIME_UNIT = re.compile(r'(n|u|\u00b5|\u03bc|m|)s(?:ec(?:ond)?s?)?', re.I)
_TIMES = {'n': 1e-9, 'u': 1e-6, '\u00b5': 1e-6, '\u03bc': 1e-6, 'm': 1e-3, '': 1.0}


def factor(metric: Metric, unit: str) -> float | None:
  """Sectors, seconds or ratio for one of a metric in a unit.

  Args:
    metric: what `metric_of` returned.
    unit: as the file has it; '' where it has none.

  Returns:
    The factor; None for a time of unknown unit.

  Raises:
    ValueError: in half a line, for a unit that the metric cannot have.
  """
  unit = unit.strip() or ('' if metric.unit in ('count', 'byte') else metric.unit)
  if metric.fields == (SECONDS,):
    match = _TIME_UNIT.fullmatch(unit)
    if not unit:
      return None
    if match is None:
      raise ValueError(f'unit {unit!r} is unknown; known: s, ms, us, ns')
    return _TIMES[match[1].lower()]
  if metric.fields[0] in RATES:
    if unit not in ('%', 'ratio', 'percent', 'pct'):
      raise ValueError(f'unit {unit!r} is unknown; known: %, ratio')
    return 1.0 if unit == 'ratio' else 0.01
  if '/' in unit or '%' in unit:
    raise ValueError(f'unit {unit!r} is that of a rate; allowed: a count')
  match = _COUNT_UNIT.fullmatch(unit)
  if match is None:
    raise ValueError(
      f'unit {unit!r} is unknown; known: sector, byte, transaction, with K, M, G or T'
    )
  noun, prefix = match[3].lower(), match[1].upper()
  # What a unit says outranks a name: bytes where sectors are meant, and the reverse.
  scale = 1 / SECTOR_BYTES if noun in ('b', 'byte') else 1.0 if noun else metric.scale
  return scale * (
    2.0 ** (10 * 'KMGT'.index(prefix) + 10) if match[2] and prefix else _PREFIXES[prefix]
  )
