"""Breaks the library on purpose, one line at a time, and says which breaks the tests catch.

    python tools/break_lines.py                     # all of tools/breaks.toml, ten minutes
    python tools/break_lines.py --room quant        # one room
    python tools/break_lines.py --number 3 17       # some of them
    python tools/break_lines.py --check             # only whether texts, once, and tests are there

Works in a copy of the tree, never in place. A break is caught if a test fails that passes in the
copy without the break. Records are kept in runs/breaks.jsonl (a later one replaces an earlier one),
and docs/results/breaks.md is written from them.
"""

import argparse
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from typing import NamedTuple

REPO = pathlib.Path(__file__).resolve().parents[1]
TABLE = REPO / 'tools' / 'breaks.toml'
RECORDS = REPO / 'runs' / 'breaks.jsonl'
REPORT = REPO / 'docs' / 'results' / 'breaks.md'
TIMEOUT_S = 300
_FAILURE = re.compile(r'^(?:FAILED|ERROR) (.+?)(?: - .*)?$', re.MULTILINE)


class Break(NamedTuple):
  """One change of one line.

  Attributes:
    number: in the table, from 1.
    room: a folder of the library.
    what: what the change amounts to.
    old, new: the text and what replaces it.
    tests: folders and files to run, one set after the other until one of them catches it.
    first_missed: whether its test was written because none caught it.
  """

  number: int
  room: str
  what: str
  old: str
  new: str
  tests: tuple[tuple[str, ...], ...]
  first_missed: bool


class Record(NamedTuple):
  """What became of a break: `caught_by` is a test's id, or None if it was missed."""

  number: int
  old: str
  new: str
  place: str
  caught_by: str | None


def read_table() -> list[Break]:
  """The breaks of `TABLE`, in order."""
  table = tomllib.loads(TABLE.read_text())
  return [
    Break(
      number,
      row['room'],
      row['what'],
      row['old'],
      row['new'],
      (tuple(row['tests']), (f'tests/{row["room"]}',), tuple(table['wider'][row['room']])),
      row.get('first_missed', False),
    )
    for number, row in enumerate(table['break'], 1)
  ]


def find_place(tree: pathlib.Path, b: Break) -> tuple[pathlib.Path, int]:
  """The file and the line of a break's text.

  Raises:
    ValueError: unless the text stands in the room, or beside the rooms, exactly once.
  """
  library = tree / 'cnnopt_jax'
  # What several rooms share stands beside them.
  files = sorted([*(library / b.room).rglob('*.py'), *library.glob('*.py')])
  found = [
    (path, text.count('\n', 0, match.start()) + 1)
    for path in files
    for text in [path.read_text()]
    for match in re.finditer(re.escape(b.old), text)
  ]
  if len(found) != 1:
    places = ', '.join(f'{path.relative_to(tree)}:{line}' for path, line in found) or 'nowhere'
    raise ValueError(f'break {b.number}: old={b.old!r} is found {places}; allowed: exactly once')
  return found[0]


def copy_tree(target: pathlib.Path) -> None:
  """Copies what git tracks or would track, as it is now."""
  listed = subprocess.run(
    ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
    cwd=REPO,
    check=True,
    capture_output=True,
    text=True,
  ).stdout
  for name in filter(None, listed.split('\0')):
    if (REPO / name).is_symlink() or (REPO / name).exists():
      (target / name).parent.mkdir(parents=True, exist_ok=True)
      shutil.copy2(REPO / name, target / name, follow_symlinks=False)


def first_failure(tree: pathlib.Path, tests: tuple[str, ...], programs: pathlib.Path) -> str | None:
  """The id of the first test that fails, None if all pass.

  Raises:
    RuntimeError: if pytest itself fails, finds no tests, or takes longer than `TIMEOUT_S`.
  """
  command = [sys.executable, '-m', 'pytest', '-x', '-q', '-n', '1', '-p', 'no:cacheprovider']
  # A break changes few programs: the others are read from where the first run left them.
  environment = {**os.environ, 'JAX_COMPILATION_CACHE_DIR': str(programs), 'PYTHONPATH': ''}
  process = subprocess.Popen(
    [*command, *tests],
    cwd=tree,
    env=environment,
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    start_new_session=True,
  )
  try:
    output, _ = process.communicate(timeout=TIMEOUT_S)
  except subprocess.TimeoutExpired:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    raise RuntimeError(f'{" ".join(tests)} took longer than {TIMEOUT_S} s') from None
  if process.returncode == 0:
    return None
  failure = _FAILURE.search(output)
  if process.returncode not in (1, 2) or failure is None:
    raise RuntimeError(f'pytest ended with {process.returncode}:\n{output[-4000:]}')
  return failure[1]


def try_break(tree: pathlib.Path, b: Break, programs: pathlib.Path) -> Record:
  """Applies a break, runs its tests, takes it back."""
  path, line = find_place(tree, b)
  whole = path.read_text()
  place = f'{path.relative_to(tree)}:{line}'
  for tests in b.tests:
    path.write_text(whole.replace(b.old, b.new))
    try:
      test = first_failure(tree, tests, programs)
    finally:
      path.write_text(whole)
    if test is not None:
      if first_failure(tree, (test,), programs) is not None:
        raise RuntimeError(f'{test} fails without break {b.number} too')
      return Record(b.number, b.old, b.new, place, test)
  return Record(b.number, b.old, b.new, place, None)


def read_records(breaks: list[Break]) -> dict[int, Record]:
  """The latest record of each break that is still in the table as it was."""
  texts = {b.number: (b.old, b.new) for b in breaks}
  lines = RECORDS.read_text().splitlines() if RECORDS.exists() else []
  records = [Record(**json.loads(line)) for line in lines]
  return {r.number: r for r in records if texts.get(r.number) == (r.old, r.new)}


def write_report(breaks: list[Break], records: dict[int, Record]) -> None:
  """Writes `REPORT`."""
  done = [(b, records[b.number]) for b in breaks if b.number in records]
  caught = sum(record.caught_by is not None for _, record in done)

  def cell(text):
    return text.replace('|', '\\|')

  added = sum(b.first_missed for b, record in done if record.caught_by)
  lines = [
    '# Lines broken on purpose',
    '',
    f'The tests catch {caught} of {len(done)} one-line breaks, eight in each of five rooms,',
    'chosen by reading the code before it was known which are caught.',
    f'{caught - added} of them were caught at first, those with a star by tests added since.',
    '`tools/break_lines.py` applies each one of `tools/breaks.toml` in a copy of the tree and runs',
    'the tests of its room.',
    '',
    '| | place | break | old | new | caught by |',
    '|--:|---|---|---|---|---|',
  ]
  for b, record in done:
    by = f'`{record.caught_by}`' if record.caught_by else '**missed**'
    # Without the number of the line, which every edit above it changes.
    place = record.place.removeprefix('cnnopt_jax/').rpartition(':')[0]
    texts = f'`` {cell(b.old)} `` | `` {cell(b.new)} ``'
    star = '*' if b.first_missed else ''
    lines.append(f'| {b.number}{star} | {place} | {b.what} | {texts} | {cell(by)} |')
  REPORT.write_text('\n'.join(lines) + '\n')


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--room', help='only the breaks of this room')
  parser.add_argument('--number', type=int, nargs='+', help='only these breaks')
  parser.add_argument('--check', action='store_true', help='look for the texts, run nothing')
  options = parser.parse_args()
  breaks = read_table()
  for b in breaks:
    find_place(REPO, b)
    for test in itertools.chain(*b.tests):
      if not (REPO / test).exists():
        raise ValueError(f'break {b.number}: tests={test!r}; allowed: what exists')
  if options.check:
    print(f'all {len(breaks)} texts stand where they should, once')
    return 0
  chosen = [
    b
    for b in breaks
    if options.room in (None, b.room) and (not options.number or b.number in options.number)
  ]
  RECORDS.parent.mkdir(exist_ok=True)
  with tempfile.TemporaryDirectory(prefix='breaks_') as scratch:
    tree = pathlib.Path(scratch) / 'tree'
    copy_tree(tree)
    for b in chosen:
      try:
        record = try_break(tree, b, pathlib.Path(scratch) / 'programs')
      except RuntimeError as error:
        print(f'{b.number:2} not decided: {error}', flush=True)
        continue
      with RECORDS.open('a') as file:
        file.write(json.dumps(record._asdict()) + '\n')
      print(f'{b.number:2} {record.place}: {record.caught_by or "MISSED"} ({b.what})', flush=True)
      write_report(breaks, read_records(breaks))
  records = read_records(breaks)
  missed = sum(record.caught_by is None for record in records.values())
  undecided = len(breaks) - len(records)
  print(f'{missed} missed, {undecided} not tried; {REPORT.relative_to(REPO)} is written')
  return int(missed + undecided > 0)


if __name__ == '__main__':
  sys.exit(main())
