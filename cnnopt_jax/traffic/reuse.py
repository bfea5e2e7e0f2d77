"""Misses of caches of every size and associativity, from a histogram of stack distances."""

from typing import Any, NamedTuple

import numpy as np
from scipy import special


class ReuseHistogram(NamedTuple):
  """How much of a stream is reused over which stack distance.

  Attributes:
    amounts: `[D]` float64; entry d is the weight of all accesses of stack distance d.
    cold: the weight of accesses to an address never touched before.
  """

  amounts: np.ndarray
  cold: float

  @property
  def total(self) -> float:
    """The weight of all accesses."""
    return float(self.amounts.sum() + self.cold)

  def misses(self, capacities: Any) -> np.ndarray:
    """Misses of fully associative LRU caches.

    Args:
      capacities: in blocks, any shape; fractions are rounded down.

    Returns:
      The weight of the accesses that miss, one for each capacity: those whose distance is not
      below the capacity, and the cold ones.
    """
    hits = np.concatenate([[0.0], np.cumsum(self.amounts)])
    held = np.clip(np.floor(capacities), 0, len(self.amounts)).astype(np.int64)
    return hits[-1] - hits[held] + self.cold

  def set_associative_misses(
    self, sets: Any, ways: Any, *, blocks_per_entry: float = 1.0
  ) -> np.ndarray:
    """Expected misses of set-associative LRU caches with addresses spread evenly over the sets.

    An access at stack distance d hits if fewer than A of those d blocks fell into its own one of S
    sets. If every block lies in any set with equal chance, their number is binomial, so

        P(miss | d) = sum_{k >= A} C(d, k) (1/S)^k (1 - 1/S)^(d - k) = I_{1/S}(A, d - A + 1),

    I the regularised incomplete beta function: the model of A. J. Smith, IEEE Transactions on
    Software Engineering 4(2), 1978, confirmed on traces by M. D. Hill and A. J. Smith, IEEE
    Transactions on Computers 38(12), 1989. At S = 1 it is `misses(ways)`.

    Args:
      sets: their number, broadcast against `ways`.
      ways: blocks in a set.
      blocks_per_entry: cache blocks for each unit of the histogram's distance.

    Returns:
      The expected weight of the accesses that miss.
    """
    used = np.flatnonzero(self.amounts)
    sets, ways = np.broadcast_arrays(np.asarray(sets, float), np.asarray(ways, float))
    missed = miss_probability(used * blocks_per_entry, sets[..., None], ways[..., None])
    return missed @ self.amounts[used] + self.cold


def miss_probability(distances: Any, sets: Any, ways: Any) -> np.ndarray:
  """The chance that an access at a stack distance misses in a set-associative cache.

  Args:
    distances: in cache blocks, not negative.
    sets, ways: of the cache; all broadcast.

  Returns:
    Probabilities, by the model that `ReuseHistogram.set_associative_misses` describes.
  """
  distances, sets, ways = np.broadcast_arrays(np.asarray(distances, float), sets, ways)
  fits = distances < ways  # Too few blocks to fill a set.
  probability = special.betainc(ways, np.where(fits, 1.0, distances - ways + 1), 1 / sets)
  return np.where(fits, 0.0, probability)


def reuse_histogram(distances: Any, amounts: Any = None) -> ReuseHistogram:
  """Collects stack distances.

  Args:
    distances: `[N]` integers, -1 for cold accesses.
    amounts: `[N]`, the weight of each access, such as its bytes; 1 by default.

  Returns:
    The histogram.

  Raises:
    ValueError: if the shapes differ.
  """
  distances = np.asarray(distances)
  amounts = np.ones(distances.shape) if amounts is None else np.asarray(amounts, float)
  if distances.ndim != 1 or amounts.shape != distances.shape:
    raise ValueError(f'distances {distances.shape} and amounts {amounts.shape}; allowed: [N], [N]')
  counts = np.bincount(distances.astype(np.int64) + 1, amounts, minlength=1)
  return ReuseHistogram(counts[1:], float(counts[0]))
