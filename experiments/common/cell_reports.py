"""What a report says of cells: where they come from, what holds them back, refresh and wear."""

from cnnopt_jax import nvm
from cnnopt_jax import report as formats
from experiments.common import caches

MIB = 1 << 20


def size_name(capacity_bytes: int) -> str:
  """Mebibytes as a bare number, smaller capacities in KB: `3`, `1 KB`."""
  whole = capacity_bytes % MIB == 0
  return f'{capacity_bytes / MIB:g}' if whole else f'{capacity_bytes / 1024:g} KB'


def sources(cells: dict[str, nvm.Cell], users: dict[str, caches.UserCell]) -> str:
  """Where each cell comes from, as a table."""
  rows = [
    [
      name,
      f'`{users[name].path}`' if name in users else 'built in',
      nvm.Kind(int(cell.kind)).name,
      f'{cell.area_f2:g}',
      f'{cell.bits_per_cell:g}',
      f'{cell.retention_us:g}' if cell.retention_us else 'no limit',
      f'{cell.endurance_writes:g}' if cell.endurance_writes else 'no limit',
    ]
    for name, cell in cells.items()
  ]
  head = ['cell', 'from', 'kind', 'area, F2', 'bits', 'retention, us', 'endurance, writes']
  return formats.to_markdown(rows, head)


def unbuilt(blocked: dict) -> list[str]:
  """What could not be built, a line each."""
  lines = [line for reasons_ in blocked.values() for line in reasons_]
  return ['\n'.join(f'- **{line}**' for line in lines) + '\n'] if lines else []


def notes(users: dict[str, caches.UserCell]) -> list[str]:
  """What in the files was ignored or assumed, a line each."""
  lines = [line for user in users.values() for line in user.notes]
  return ['\n'.join(f'- {line}' for line in lines) + '\n'] if lines else []


def refresh(
  cells: dict[str, nvm.Cell], tech: nvm.Technology, tuned: dict, temperature_k: int
) -> list[str]:
  """Refresh as a part of the leakage, of cells that need it."""
  rows = []
  for (name, size), winner in tuned.items():
    if winner is None:
      continue
    cell = cells[name]
    if cell.kind not in (nvm.Kind.EDRAM, nvm.Kind.GAIN_CELL):
      continue
    bank = nvm.array_ppa(cell, tech, winner.data_organization)
    banks = size // (size & -size)
    refresh = banks * float(bank.breakdown.refresh_mw)
    total = winner.totals.leakage_mw
    rows.append([name, size_name(size), f'{cell.retention_us:g}', refresh, total])
  if not rows:
    return []
  return [
    f'## Refresh at {temperature_k} K\n',
    'Every row once in its retention, which is taken to hold at this temperature; a part of the '
    'leakage above.\n',
    formats.to_markdown(
      [[*row[:3], *(f'{value:.4g}' for value in row[3:])] for row in rows],
      ['cell', 'MB', 'retention, us', 'refresh, mW', 'leakage with it, mW'],
    ),
  ]


def lifetimes(
  cells: dict[str, nvm.Cell], size: int, writes_per_s: float, hottest_share: float
) -> list[str]:
  """Years of caches of `size` bytes of the cells that wear out."""
  share = max(hottest_share, 64 / size)  # No line is written less than if all were alike.
  rows = [
    [
      name,
      f'{cell.endurance_writes:g}',
      f'{nvm.lifetime(cell, size, writes_per_s):.3g}',
      f'{nvm.lifetime(cell, size, writes_per_s, hottest_share=share):.3g}',
    ]
    for name, cell in cells.items()
    if cell.endurance_writes
  ]
  if not rows:
    return []
  return [
    f'## Lifetime of {size / MIB:g} MB\n',
    f'Under {writes_per_s:g} line writes a second: with wear levelled perfectly, and with '
    f'{share:.2g} of them to one line.\n',
    formats.to_markdown(rows, ['cell', 'endurance, writes', 'levelled, years', 'not, years']),
  ]
