"""Which units to make virtual first: what each costs in accuracy and saves in time."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnnopt_jax.vip.plans import Plan, mask_variables, resolve_plan


def plan_masks(units: Sequence[str], plans: Sequence[Plan]) -> np.ndarray:
  """Plans as rows of zeros and ones, float32 [len(plans), len(units)].

  Raises:
    ValueError: if a plan names no unit of these.
  """
  resolved = [resolve_plan(plan, units) for plan in plans]
  return np.array([[unit in plan for unit in units] for plan in resolved], np.float32)


def make_predictor(
  apply: Callable[[Any, jax.Array], jax.Array], units: Sequence[str]
) -> Callable[..., jax.Array]:
  """Predictions of a dense network under plans that are data: one program for every plan.

  Args:
    apply: maps (variables, images [B, H, W, C]) to logits [B, K]; a network whose conv units honour
      `mask_variables`.
    units: names of its units.

  Returns:
    A jitted function of (variables, mask [len(units)], images) that gives the class of each image,
    int32 [B].
  """

  @jax.jit
  def predict(variables, mask, images):
    logits = apply({**variables, **mask_variables(units, mask)}, images)
    return jnp.argmax(logits, -1).astype(jnp.int32)

  return predict


def order_units(
  units: Sequence[str], losses: Sequence[float], saved_ms: Sequence[float]
) -> tuple[str, ...]:
  """Units in the order in which to make them virtual: by accuracy lost per millisecond saved.

  A unit that loses nothing comes before all that do, the one that saves most first; one that saves
  no time comes last.

  Args:
    units: their names.
    losses: accuracy lost when only that unit is virtual; may be negative.
    saved_ms: time saved when only that unit is virtual; may be negative.

  Returns:
    The names.
  """

  def key(i):
    loss, saved = losses[i], saved_ms[i]
    if saved <= 0:
      return 2, loss - saved
    return (0, -saved) if loss <= 0 else (1, loss / saved)

  return tuple(units[i] for i in sorted(range(len(units)), key=key))


def cumulative_plans(order: Sequence[str], count: int) -> tuple[Plan, ...]:
  """Plans of growing length: `count` groups of an order, as equal as can be, one on top of another.

  Args:
    order: names of units.
    count: number of plans, at most the number of units.

  Returns:
    The plans; the last one holds every unit.
  """
  if not 1 <= count <= len(order):
    raise ValueError(f'{count} rounds of {len(order)} units; allowed: 1 to {len(order)}')
  ends = [round(len(order) * (i + 1) / count) for i in range(count)]
  return tuple(tuple(order[:end]) for end in ends)


class Difference(NamedTuple):
  """Mean of paired differences, with a confidence interval.

  Attributes:
    mean: of the differences.
    low: lower end of the interval.
    high: upper end.
  """

  mean: float
  low: float
  high: float


def paired_difference(
  a: np.ndarray, b: np.ndarray, *, seed: int = 0, resamples: int = 2000, confidence: float = 0.95
) -> Difference:
  """Mean of a - b with a bootstrap interval that resamples pairs.

  Args:
    a: one value an image, such as 1 where a network was right, [..., images]; leading axes (such
      as plans or training seeds) are averaged.
    b: the same images.
    seed: of the resampling.
    resamples: number of bootstrap samples.
    confidence: of the interval.

  Returns:
    The mean difference and the percentile interval over images.
  """
  differences = np.asarray(a, np.float64) - np.asarray(b, np.float64)
  per_image = differences.reshape(-1, differences.shape[-1]).mean(0)
  rng = np.random.default_rng(seed)
  means = [rng.choice(per_image, per_image.size).mean() for _ in range(resamples)]
  low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
  return Difference(float(per_image.mean()), float(low), float(high))
