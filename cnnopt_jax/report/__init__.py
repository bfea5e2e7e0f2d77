"""What a run leaves behind: records, tables, plots."""

from cnnopt_jax.report import records
from cnnopt_jax.report.plots import Series, tradeoff
from cnnopt_jax.report.tables import to_csv, to_markdown

__all__ = ['Series', 'records', 'to_csv', 'to_markdown', 'tradeoff']
