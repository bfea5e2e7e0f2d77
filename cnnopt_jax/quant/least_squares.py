"""The minimum-MSE step of a symmetric uniform quantizer: a search that leaves nothing out.

The squared error of a channel x at step D,

    E(D) = min over codes c of |x - D c|^2,    c_i in {-n, ..., n}, one apart,

is continuous in D but goes from one parabola to the next wherever some |x_i| changes its code, and
has hundreds of local minima. Descent from a few starts ends in one of them. A grid, to be sure of a
minimum that narrow, takes thousands of steps. But most steps can be ruled out by their neighbours:

At the best step D* the residual x - D* c* is orthogonal to c*, so |D* c*|^2 = |x|^2 - E(D*). The
same codes c* may be used at any other step D, and E(D) is at most what they give there:

    E(D) <= |x - D c*|^2 = E(D*) + (D/D* - 1)^2 (|x|^2 - E(D*)).

Read backwards, one evaluation at D says how far away a step of error at most e must be:

    |D/D* - 1| >= q(D) = sqrt((E(D) - e) / |x|^2)    if E(D*) <= e,

that is, 1/D* is not within (1 - q)/D and (1 + q)/D. Once such intervals cover all steps, with e the
least error found over 1 + _SLACK, no step is better than e. They are wide where E is large, and E
grows away from its minimum, so few do: for weights about Gaussian some 30 evaluations at 2 bits,
50 at 4 and 150 at 8, whatever the size of the channel, and up to 400 where magnitudes are alike.
"""

import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import lax

# The error is at most 1 + _SLACK times the least; the rest up to 1.001 is left for rounding.
_SLACK = 9e-4
# The share of the last evaluation's q that the next one is expected to have at least. More of it
# would leave more gaps, each to be evaluated again closer by; less of it, more overlap.
_REACH = 0.65
# Intervals of 1/D that are worked on at the same time, per channel; a power of two.
_WORKERS = 4
# Channels searched together: of more, the slowest would hold up more and the sums leave the cache.
_CHANNELS = 256
# Sums that a CPU adds to at the same time, see `_errors_by_row`.
_ROW = 1024


def least_squares_step(
  x: jax.Array,
  half_range: chex.Numeric,
  mid_rise: chex.Numeric,
  axes: tuple[int, ...],
  start: jax.Array | None = None,
) -> jax.Array:
  """The step that minimises the squared error of each channel of `x`, to within 0.1 % of the error.

  The quantizers are those of `fake_quantize`: D clip(round(x/D), -n, n) with a level at zero
  (mid-tread), or D sign(x) min(floor(|x/D|) + 1/2, n) without (mid-rise). What rounding leaves,
  about (10 eps)^2 |x|^2, comes on top of the 0.1 %, and matters to channels that fit a grid.

  Args:
    x: float32 or float64, any shape; max|x| is 1 in each channel, or 0 in a channel of zeros.
    half_range: n, the outermost level over the step, []; may be traced. NaN gives NaN. With
      b bits (2**b - 2)/2 if mid-tread, b > 1, and (2**b - 1)/2 if mid-rise.
    mid_rise: bool [], whether zero is a decision edge rather than a level; may be traced.
    axes: the axes within a channel; the others tell channels apart.
    start: steps to try first, of the result's shape: its error is at most theirs. Nor is it ever
      above that of 1 / half_range.

  Returns:
    Steps, of the shape of `x` but 1 on `axes`; without a gradient. A channel of zeros has
    1 / half_range. At n = 1/2 (1 bit) the step is exactly 2 mean|x|.
  """
  inside = sorted(axis % x.ndim for axis in axes)
  outside = [axis for axis in range(x.ndim) if axis not in inside]
  shape = [1 if axis in inside else size for axis, size in enumerate(x.shape)]
  half_range = jnp.asarray(half_range, x.dtype)
  if x.size == 0:
    return jnp.broadcast_to(1 / half_range, shape)
  channels = math.prod(shape)
  x = lax.stop_gradient(x).transpose(inside + outside).reshape(-1, channels)
  first = jnp.full((1, channels), half_range)
  if start is not None:
    start = lax.stop_gradient(start).astype(x.dtype).reshape(1, channels)
    first = jnp.concatenate([first, jnp.where(start > 0, 1 / start, half_range)])

  blocks = -(-channels // _CHANNELS)
  width = -(-channels // blocks)

  def search_block(block, steps):
    # The last block overlaps the one before it rather than being narrower.
    begin = jnp.minimum(block * width, channels - width)
    block_x, block_first = (lax.dynamic_slice_in_dim(a, begin, width, 1) for a in (x, first))
    found = _search(jnp.abs(block_x), block_first, half_range, mid_rise)
    return lax.dynamic_update_slice_in_dim(steps, found, begin, 0)

  if blocks == 1:
    steps = _search(jnp.abs(x), first, half_range, mid_rise)
  else:
    steps = lax.fori_loop(0, blocks, search_block, jnp.zeros(channels, x.dtype))
  return steps.reshape(shape)


class _Workers(NamedTuple):
  """A round of the search. Points and ends of intervals are values of v = 1/D.

  Attributes:
    begin, end: the interval that is still to be searched, empty if begin >= end,
      [workers, channels].
    reach: how far above `begin` the next point is, relative to it, [workers, channels].
    point: the next point, [workers, channels].
    best, error: the best point so far and the squared error there, [workers, channels].
    round: how many rounds are over, [].
  """

  begin: jax.Array
  end: jax.Array
  reach: jax.Array
  point: jax.Array
  best: jax.Array
  error: jax.Array
  round: jax.Array


def _search(
  x: jax.Array, first: jax.Array, half_range: jax.Array, mid_rise: chex.Numeric
) -> jax.Array:
  """The best steps [channels] for magnitudes `x` [size, channels].

  In every round each worker evaluates a point a little above the low end of its interval: if what
  that rules out goes down to the low end, the interval shrinks, and otherwise the next point will
  be closer to the low end.

  Args:
    x: magnitudes, [size, channels].
    first: points to begin with, [trials, channels], at most as many as there are workers.
    half_range: as in `least_squares_step`.
    mid_rise: as in `least_squares_step`.
  """
  size, channels = x.shape
  eps = jnp.finfo(x.dtype).eps
  total, square = jnp.sum(x, 0), jnp.sum(jnp.square(x), 0)
  divisor = jnp.where(square == 0, 1, square)
  # The error of a perfect fit whose step is off by a few units in the last place.
  rounding = square * (8 * eps) ** 2

  # Mid-tread codes twice as large, or mid-rise codes three times as large, fit D/2 or D/3 as well:
  # if they are levels, D need not be searched. This is where those of max|x| = 1 are not any more.
  low = jnp.where(mid_rise, jnp.floor((half_range + 1.5) / 3), jnp.floor(half_range / 2) + 0.5)
  low = jnp.maximum(low, 0.25).astype(x.dtype)

  def high(error):
    # With the outermost level at t = n D the largest magnitude alone has an error of (1 - t)^2 or
    # more. And at the best step |x|^2 - E = <x, D c>, which is at most t sum|x|. The last of the
    # three is what is left of that with all on one level; 0.999 is for the rounding of the sums.
    t = jnp.maximum((square - error) / jnp.where(total == 0, 1, total), total / size)
    return half_range / jnp.maximum(0.999 * t, 1 - jnp.sqrt(error))

  # The least error before any is known: at D = 1/n all are within D/2 of a level, and one pair of
  # levels alone leaves |x|^2 - (sum|x|)^2 / size.
  bound = jnp.maximum(square - jnp.square(total) / size, 0) + 1e-4 * square
  bound = jnp.minimum(bound, size / (4 * half_range**2))
  edge = jnp.linspace(0, 1, _WORKERS + 1, dtype=x.dtype)[:, None]
  edge = low * jnp.maximum(high(bound) / low, 1) ** edge
  reach = jnp.broadcast_to(_REACH * jnp.sqrt(bound / divisor), (_WORKERS, channels))
  point = edge[:-1] * (1 + reach)
  order = jnp.arange(_WORKERS)

  def unfinished(now):
    return jnp.any(now.begin < now.end)

  def advance(now):
    error = _errors(x, now.point, half_range, mid_rise)
    best = jnp.where(error < now.error, now.point, now.best)
    least_of_each = jnp.where(error < now.error, error, now.error)
    least = jnp.min(least_of_each, 0)
    excess = jnp.maximum(error - least / (1 + _SLACK), 0)
    # Made smaller by what the rounding of the error and of the interval's ends may add to it.
    q = jnp.sqrt((excess + rounding) / divisor) * (1 - 64 * eps) - 4 * eps
    closed = now.point * (1 - q) <= now.begin
    begin = jnp.where(closed, jnp.maximum(now.begin, now.point * (1 + q)), now.begin)
    reach = jnp.where(closed, _REACH * q / (1 - jnp.minimum(_REACH * q, 0.5)), now.reach / 2)
    end = jnp.where(least <= rounding, 0, jnp.minimum(now.end, high(least)))

    # Those who are done take the upper half from their partner of this round.
    partner = order ^ (1 + now.round % (_WORKERS - 1))
    its_begin, its_end, its_reach = begin[partner], end[partner], reach[partner]
    gives = (end > begin * (1 + reach)) & (its_begin >= its_end)
    takes = (its_end > its_begin * (1 + its_reach)) & (begin >= end)
    middle = jnp.sqrt(jnp.where(takes, its_begin * its_end, begin * end))
    begin = jnp.where(takes, middle, begin)
    end = jnp.where(gives, middle, jnp.where(takes, its_end, end))
    reach = jnp.where(takes, its_reach, reach)
    point = jnp.minimum(begin * (1 + reach), end)
    return _Workers(begin, end, reach, point, best, least_of_each, now.round + 1)

  now = _Workers(
    begin=edge[:-1],
    end=edge[1:],
    reach=reach,
    point=jnp.concatenate([first, point[len(first) :]]),
    best=jnp.full_like(point, half_range),
    error=jnp.full_like(point, jnp.inf),
    round=jnp.int32(0),
  )
  now = lax.while_loop(unfinished, advance, now)
  best = jnp.take_along_axis(now.best, jnp.argmin(now.error, 0, keepdims=True), 0)[0]
  return jnp.where(half_range == 0.5, 2 * total / size, 1 / best)


def _errors(
  x: jax.Array, point: jax.Array, half_range: jax.Array, mid_rise: chex.Numeric
) -> jax.Array:
  """Squared errors [workers, channels] of magnitudes `x` [size, channels] at the steps 1/point."""
  return lax.platform_dependent(
    x, point, half_range, mid_rise, cpu=_errors_by_row, default=_errors_at_once
  )


def _errors_at_once(x, point, half_range, mid_rise):
  return jnp.sum(_squares(x, point[:, None], half_range, mid_rise), 1)


def _errors_by_row(x, point, half_range, mid_rise):
  """`_errors_at_once`, one row at a time.

  On a CPU, XLA sums over that axis in a scalar loop with all of the quantizer in it. Adding row to
  row takes vector instructions, and a tenth of the time or less.
  """
  size, channels = x.shape
  workers = len(point)
  # A row has several elements of each channel if channels are few; each has a sum of its own.
  lanes = max(1, min(_ROW // (workers * channels), size))
  lanes = 1 << (lanes.bit_length() - 1)
  whole = size - size % lanes
  point = point[:, None]
  sums = jnp.zeros((workers, lanes, channels), x.dtype)
  if whole < size:
    rest = _squares(x[whole:], point, half_range, mid_rise)
    sums = sums.at[:, : size - whole].set(rest)

  def add(sums, row):
    return sums + _squares(row, point, half_range, mid_rise), None

  sums, _ = lax.scan(add, sums, x[:whole].reshape(-1, lanes, channels))
  return jnp.sum(sums, 1)


def _squares(x, point, half_range, mid_rise):
  shift = jnp.where(mid_rise, 0, 0.5).astype(x.dtype)
  code = jnp.minimum(jnp.floor(x * point + shift) + (0.5 - shift), half_range)
  return jnp.square(x - code * (1 / point))
