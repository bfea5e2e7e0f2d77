"""What DeepNVM and DeepNVM++ report.

The headline figures are from the two abstracts. The caches are from DeepNVM++'s tables AS RECALLED
AND UNVERIFIED: no claim of this library rests on them, and whatever is computed from them is
labelled `published`.
"""

from typing import NamedTuple

from cnnopt_jax.nvm.system import CacheFigures

# (technology, MiB): 16 nm, after EDAP tuning. Recalled, unverified.
RECALLED_CACHES = {
  ('sram', 3): CacheFigures(2.91, 1.53, 0.35, 0.32, 6442.0, 5.53),
  ('stt', 3): CacheFigures(2.98, 9.31, 0.81, 0.31, 748.0, 2.34),
  ('sot', 3): CacheFigures(3.71, 1.38, 0.49, 0.22, 527.0, 1.95),
  ('stt', 7): CacheFigures(4.58, 10.06, 0.93, 0.43, 1706.0, 5.12),
  ('sot', 10): CacheFigures(6.69, 2.47, 0.51, 0.40, 1434.0, 5.64),
}
# Fewer DRAM accesses of AlexNet than with 3 MB, by capacity in MiB. Recalled, unverified.
RECALLED_DRAM_REDUCTIONS = {7: 0.146, 10: 0.198}


class Headline(NamedTuple):
  """A figure of an abstract.

  Attributes:
    paper: version.
    study: 'iso_capacity' or 'iso_area'.
    technology: 'stt', 'sot', or 'both' for the mean of the two.
    figure: 'edp', 'area' or 'capacity'.
    value: the factor.
    is_bound: 'up to', of the best workload, rather than a mean.
  """

  paper: str
  study: str
  technology: str
  figure: str
  value: float
  is_bound: bool


_DATE, _TCAD = 'DeepNVM, DATE 2020', 'DeepNVM++, TCAD 2021'
HEADLINES = (
  Headline(_DATE, 'iso_capacity', 'stt', 'edp', 4.2, True),
  Headline(_DATE, 'iso_capacity', 'sot', 'edp', 5.0, True),
  Headline(_DATE, 'iso_capacity', 'stt', 'area', 2.4, False),
  Headline(_DATE, 'iso_capacity', 'sot', 'area', 3.0, False),
  Headline(_DATE, 'iso_area', 'both', 'edp', 2.3, False),
  Headline(_TCAD, 'iso_capacity', 'stt', 'edp', 3.8, True),
  Headline(_TCAD, 'iso_capacity', 'sot', 'edp', 4.7, True),
  Headline(_TCAD, 'iso_capacity', 'stt', 'area', 2.4, False),
  Headline(_TCAD, 'iso_capacity', 'sot', 'area', 2.8, False),
  Headline(_TCAD, 'iso_area', 'stt', 'edp', 2.0, True),
  Headline(_TCAD, 'iso_area', 'sot', 'edp', 2.3, True),
  Headline(_TCAD, 'iso_area', 'stt', 'capacity', 2.3, False),
  Headline(_TCAD, 'iso_area', 'sot', 'capacity', 3.3, False),
)
