"""Figures that others print or publish, and how far the model is from them."""

from cnnopt_jax.nvm.validation.comparison import (
  QUANTITIES,
  TOTALS,
  Comparison,
  compare_caches,
  compare_cacti,
  compare_figures,
  summarize,
  unmodelled,
)
from cnnopt_jax.nvm.validation.published import (
  HEADLINES,
  RECALLED_CACHES,
  RECALLED_DRAM_REDUCTIONS,
  Headline,
)
from cnnopt_jax.nvm.validation.reference import (
  CacheRow,
  CactiRow,
  Design,
  Figure,
  read_reference,
)

__all__ = [
  'CacheRow',
  'CactiRow',
  'Comparison',
  'Design',
  'Figure',
  'HEADLINES',
  'Headline',
  'QUANTITIES',
  'RECALLED_CACHES',
  'RECALLED_DRAM_REDUCTIONS',
  'TOTALS',
  'compare_caches',
  'compare_cacti',
  'compare_figures',
  'read_reference',
  'summarize',
  'unmodelled',
]
