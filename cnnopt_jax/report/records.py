"""Append-only records, one JSON object a line, that survive a kill."""

import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any


def append(path: pathlib.Path, records: Iterable[Mapping[str, Any]]) -> None:
  """Appends records in one write and waits until they are on the disk."""
  lines = ''.join(json.dumps(dict(record), allow_nan=False) + '\n' for record in records)
  with open(path, 'a') as file:
    file.write(lines)
    file.flush()
    os.fsync(file.fileno())


def read(path: pathlib.Path) -> list[dict[str, Any]]:
  """Reads all records; a torn last one, left by a kill, is cut off the file.

  A last one that lacks nothing but the end of its line gets that.

  Args:
    path: of the file; it need not exist.

  Returns:
    The records in the order they were written.

  Raises:
    ValueError: if a line other than the last is no JSON object.
  """
  path = pathlib.Path(path)
  content = path.read_bytes() if path.exists() else b''
  end = content.rfind(b'\n') + 1
  rest = content[end:]
  if _record(rest) is not None:
    end = len(content)
    with open(path, 'ab') as file:
      file.write(b'\n')
  elif rest:
    with open(path, 'r+b') as file:
      file.truncate(end)
  records = []
  for number, line in enumerate(content[:end].splitlines(), 1):
    record = _record(line)
    if record is None:
      raise ValueError(f'{path}, line {number}: not a JSON object: {line[:80]!r}')
    records.append(record)
  return records


def _record(line: bytes) -> dict[str, Any] | None:
  try:
    record = json.loads(line)
  except ValueError:
    return None
  return record if isinstance(record, dict) else None
