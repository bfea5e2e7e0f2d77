"""Rows of results.csv, chosen and averaged."""

import statistics

SOURCES = {'published': "DeepNVM++'s table (recalled, unverified)", 'model': 'our cache model'}


def mean(values) -> float:
  """Geometric: the mean of factors."""
  return statistics.geometric_mean(values)


def select(rows, **wanted):
  return [r for r in rows if all(r[key] == value for key, value in wanted.items())]
