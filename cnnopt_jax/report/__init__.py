"""What a run leaves behind and shows: records, tables, plots, progress."""

from cnnopt_jax.report import records
from cnnopt_jax.report.files import write_atomically
from cnnopt_jax.report.plots import Interval, Series, agreement, intervals, tradeoff
from cnnopt_jax.report.progress import Progress
from cnnopt_jax.report.tables import to_csv, to_markdown

__all__ = [
  'Interval',
  'Progress',
  'Series',
  'agreement',
  'intervals',
  'records',
  'to_csv',
  'to_markdown',
  'tradeoff',
  'write_atomically',
]
