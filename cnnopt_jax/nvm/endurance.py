"""`lifetime`: how long a cache's cells survive a workload's writes."""

import math

from cnnopt_jax.nvm import structures

SECONDS_PER_YEAR = 365.25 * 24 * 3600


def lifetime(
  cell: structures.Cell,
  capacity_bytes: int,
  writes_per_s: float,
  *,
  line_bytes: int = 64,
  hottest_share: float | None = None,
) -> float:
  """Years until the first line of a cache has had all the writes that its cells survive.

  A write of a line writes every cell of it once, however many pulses that takes; refreshing does
  not wear. With E writes of endurance, L = capacity / line lines and W line writes a second,

      levelled:      years = E L / W / s      each line has the same share, 1 / L
      not levelled:  years = E / (W h) / s    the hottest line has the share h >= 1 / L

  with s = 31,557,600 seconds a year. Levelling is taken as perfect and free.

  Args:
    cell: its `endurance_writes`; 0 is no limit.
    capacity_bytes: of data.
    writes_per_s: writes of lines a second, on average over the years.
    line_bytes: of a line.
    hottest_share: h, of the line that is written most; None if wear is levelled.

  Returns:
    Years; infinite where endurance is not limited or nothing is written.

  Raises:
    ValueError: naming the argument, its value and what is allowed.
  """
  if capacity_bytes < line_bytes or line_bytes < 1:
    raise ValueError(
      f'capacity_bytes={capacity_bytes}; allowed: at least line_bytes ({line_bytes}), above 0'
    )
  if not 0 <= writes_per_s < math.inf:
    raise ValueError(f'writes_per_s={writes_per_s}; allowed: a finite number of at least 0')
  even = line_bytes / capacity_bytes
  share = even if hottest_share is None else hottest_share
  if not even <= share <= 1:
    raise ValueError(
      f'hottest_share={share}; allowed: {even:.3g}, the share of each line if all are alike, to 1'
    )
  endurance = float(cell.endurance_writes)
  if endurance == 0 or writes_per_s == 0:
    return math.inf
  return endurance / (writes_per_s * share) / SECONDS_PER_YEAR
