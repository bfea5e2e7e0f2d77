"""A law of the error in weights and bits, fitted, with its error on points that it has not seen.

The error 1 - accuracy of a network of N weights of b bits each is taken to be

    error = e + c n^-a,     n the weights that these bits leave of N, by one of `LAWS`:

    'saturating'   n = N (1 - exp(-b / g)), of Kumar et al., "Scaling Laws for Precision" (2024, as
                   recalled); where g is many bits it is N b / g
    'power'        n = N b^g
    'size'         n = N b, all that an accuracy depended on if a bit were a bit
    'weights'      n = N, if bits did not matter
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize

LAWS: dict[str, Callable[[np.ndarray, np.ndarray, float], np.ndarray]] = {
  'saturating': lambda n, b, g: n * -np.expm1(-b / g),
  'power': lambda n, b, g: n * b**g,
  'size': lambda n, b, g: n * b,
  'weights': lambda n, b, g: n,
}
_WITH_G = ('saturating', 'power')
# e, c and a, and where there is one g.
_FEWEST_POINTS = 6


class Points(NamedTuple):
  """What a law is fitted to, P points.

  Attributes:
    weights: N, [P].
    bits: b, [P].
    errors: 1 - accuracy, mean over seeds, [P].
    groups: a label a point: those of one label are held out together, [P].
  """

  weights: np.ndarray
  bits: np.ndarray
  errors: np.ndarray
  groups: np.ndarray


class Law(NamedTuple):
  """A fitted law.

  Attributes:
    name: of `LAWS`.
    floor, scale, exponent: e, c (for N in units of the geometric mean) and a.
    g: None where the law has none.
    unit: geometric mean of N.
    fitted: root mean square error on the points fitted to, in accuracy.
    held_out: the same on points held out, group by group; None of one group.
  """

  name: str
  floor: float
  scale: float
  exponent: float
  g: float | None
  unit: float
  fitted: float
  held_out: float | None

  def predict(self, weights: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Errors of networks."""
    n = LAWS[self.name](np.asarray(weights) / self.unit, np.asarray(bits, float), self.g or 1.0)
    return self.floor + self.scale * n**-self.exponent


def fit(points: Points, name: str) -> Law | None:
  """Fits a law, and judges it by holding out one group after the other.

  Args:
    points: at least six, else there is no law.
    name: of `LAWS`.

  Returns:
    The law of least squares of the logarithm of the error.
  """
  if len(points.errors) < _FEWEST_POINTS:
    return None
  law = _fit(points, name)
  groups, missed = np.unique(points.groups), []
  for group in groups if len(groups) > 1 else ():
    seen = points.groups != group
    if seen.sum() < _FEWEST_POINTS - 1:
      return law
    own = _fit(Points(*(column[seen] for column in points)), name)
    missed.append(own.predict(points.weights[~seen], points.bits[~seen]) - points.errors[~seen])
  held_out = _root_mean_square(np.concatenate(missed)) if missed else None
  return law._replace(held_out=held_out)


def _fit(points: Points, name: str) -> Law:
  unit = float(np.exp(np.mean(np.log(points.weights))))
  bits, target = points.bits.astype(float), np.log(points.errors)

  def law_of(x) -> Law:
    floor, scale, exponent, g = np.exp(x).tolist()
    return Law(name, floor, scale, exponent, g if name in _WITH_G else None, unit, 0.0, None)

  def residuals(x):
    return np.log(law_of(x).predict(points.weights, bits)) - target

  # All numbers are positive: their logarithms are searched, within bounds. At its upper one, 100
  # bits, g says that bits count in proportion.
  low, high = np.log([1e-6, 1e-6, 1e-3, 1e-2]), np.log([1.0, 1.0, 10.0, 1e2])
  starts: Sequence[Sequence[float]] = [
    (floor, 0.5 * float(points.errors.mean()), exponent, g)
    for floor in (1e-4, 0.5 * float(points.errors.min()))
    for exponent in (0.1, 0.5)
    for g in (0.5, 2.0)
  ]
  found = [
    optimize.least_squares(
      residuals, np.clip(np.log(start), low + 1e-9, high - 1e-9), bounds=(low, high)
    )
    for start in starts
  ]
  best = law_of(min(found, key=lambda one: one.cost).x)
  missed = best.predict(points.weights, bits) - points.errors
  return best._replace(fitted=_root_mean_square(missed))


def _root_mean_square(x: np.ndarray) -> float:
  return float(np.sqrt(np.mean(np.square(x))))
