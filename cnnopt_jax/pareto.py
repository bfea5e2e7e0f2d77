"""The points that no other one beats."""

import numpy as np


def non_dominated(values: np.ndarray) -> np.ndarray:
  """Finds the rows that no row beats or equals in all columns and beats in one.

  Args:
    values: `[N, K]`, each column to be kept small. Equal rows do not beat each other.

  Returns:
    `[P]` int, indices of the rows, in the order of their first column, then their second, ...
  """
  order = np.lexsort(values.T[::-1])  # A dominating row comes before those it dominates.
  front = np.empty((0, values.shape[1]))
  kept = []
  for i in order:
    row = values[i]
    if not ((front <= row).all(axis=1) & (front < row).any(axis=1)).any():
      kept.append(i)
      front = np.vstack([front, row])
  return np.array(kept, int)
