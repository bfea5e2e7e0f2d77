"""Uniform quantizers of minimum mean squared error for Gaussian weights.

Max, "Quantizing for minimum distortion", IRE Trans. Inf. Theory 6 (1960), tabulates the optimal
uniform quantizer of N(0, 1) with an even number of levels; the odd case (a level at zero) follows
from the same integral. Both are computed here, in closed form up to one scalar minimisation.
"""

import functools
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

MIN_BITS, MAX_BITS = 1, 8
IDENTITY_BITS = 32


class GaussianQuantizer(NamedTuple):
  """A symmetric uniform quantizer of N(0, 1).

  Attributes:
    clip: the outermost level, in standard deviations.
    distortion: expected squared error, in variances.
  """

  clip: float
  distortion: float


def num_levels(bits: int, levels: str) -> int:
  """Number of levels: 2**bits - 1 with a level at zero ('mid_tread'), 2**bits without."""
  return 2**bits - (levels == 'mid_tread')


@functools.cache
def gaussian_quantizer(bits: int, levels: str) -> GaussianQuantizer:
  """Returns the minimum-MSE quantizer of N(0, 1).

  Args:
    bits: 1 to 8 (2 to 8 for 'mid_tread').
    levels: 'mid_tread' or 'mid_rise'.

  Returns:
    Its clip and its distortion, in float64.
  """
  count = num_levels(bits, levels)
  found = optimize.minimize_scalar(
    _distortion, bounds=(1e-3, 8.0), args=(count,), method='bounded', options={'xatol': 1e-10}
  )
  return GaussianQuantizer(float(found.x), float(found.fun))


def _distortion(clip: float, count: int) -> float:
  """E[(X - Q(X))^2] for X ~ N(0, 1) and `count` equidistant levels from -clip to clip."""
  level = np.linspace(-clip, clip, count)
  edge = np.concatenate([[-np.inf], (level[1:] + level[:-1]) / 2, [np.inf]])
  density = np.exp(-(edge**2) / 2) / np.sqrt(2 * np.pi)
  # Over a cell with edges l < u: int phi = Phi(u) - Phi(l), int x phi = phi(l) - phi(u), and
  # int x^2 phi = int phi + l phi(l) - u phi(u); an infinite edge adds nothing.
  mass = np.diff(special.ndtr(edge))
  first = -np.diff(density)
  second = mass - np.diff(np.where(np.isinf(edge), 0.0, edge) * density)
  return float(np.sum(second - 2 * level * first + level**2 * mass))
