"""Tables as CSV and Markdown."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def to_csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
  """CSV text with a header line; None is an empty field, floats in their shortest exact form."""
  out = io.StringIO()
  writer = csv.DictWriter(out, columns, extrasaction='ignore', lineterminator='\n')
  writer.writeheader()
  writer.writerows(rows)
  return out.getvalue()


def to_markdown(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
  """A Markdown table, padded so that it reads well as plain text; the first column is left."""
  table = [list(map(str, row)) for row in (header, *rows)]
  widths = [max(len(row[i]) for row in table) for i in range(len(header))]

  def align(row):
    first, *others = zip(row, widths, strict=True)
    return [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]

  rule = ['-' * width if i == 0 else '-' * (width - 1) + ':' for i, width in enumerate(widths)]
  lines = [align(table[0]), rule, *map(align, table[1:])]
  return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines) + '\n'
