"""How far a virtual layer can be from the dense one: a bound for each layer and each input.

A layer maps x to o = f(z), z = W * x + b, with zero padding and stride s; f is ReLU, ReLU6 or the
identity. The virtual layer computes a = z at even rows and columns only and returns v = I f(a),
where I is linear interpolation to the size of z, the last row and column repeated where that size
is even. At a skipped position let P be the patch of the zero-extended x that the kernel reads
there, and D = I P - P, the same interpolation applied to the patches themselves: half the second
difference of x at lag s between two samples, the first difference on the repeated last row and
column, and x at the centre of four samples against their mean.

Theorem. For every kernel W' of the shape of W, at every position and with t = I a,

  |e - e'| <= |(W - W') D|,    e = v - o,    e' = v - f(t - W' D).

Proof. z is an affine function of the patch, and interpolation weights sum to one, so that b
cancels: t - z = I z - z = W D. Hence o = f(t - W D). As f does not expand distances, e - e' =
f(t - W' D) - f(t - W D) is at most |(W - W') D|. QED.

With W' = 0, e' = I f(a) - f(I a) is the gap g between f before and after interpolation. It needs
samples only; for ReLU it is min(p, n), p and n the weighted sums of the positive and the negative
parts of the samples, hence at most a quarter of the difference of two; for the identity it is 0.
The triangle inequality over the whole map gives the *a-priori* form

  ||e|| <= ||W|| ||D|| + ||g||,

||W|| the spectral norm of the kernel as a matrix [taps x channels, outputs]. Without g it is false.

The *a-posteriori* form lets the input choose W'. Let S be a positive diagonal matrix and take for
W' the first r terms of the singular value decomposition of S W, sum_i u_i s_i v_i', over S. So a
layer of r filters, a fraction of the dense one's, is computed at the skipped positions, and only
the rest is estimated: ||(W - W') D|| <= R = s_(r+1) ||(1 - U U') D / S||. Every S is allowed; were
there one output only, S^2 proportional to (norm of D) / (norm of W) along each input would be best.
Three bounds hold at each position, and the smallest is taken:

  - ||e||^2 <= ||e'||^2 + 2 e'.(e - e') + R^2, where f limits how far e - e' can go in the direction
    of e': not at all where f is flat, as ReLU is below zero;
  - the same for W' = 0, e' = g, and hypot(||W' D||, R) for R, as W' D and the rest are orthogonal;
  - output by output, with the norm of its column of the rest for s_(r+1).

The bound compares the two layers with equal weights on one input. It says nothing about the
accuracy of a network, least of all after fine-tuning, which changes the weights.

It is a statement about real numbers. Computed figures are off by rounding, of the order of
eps sqrt(taps x channels) ||z||, which in float32 can exceed a small true error: use float64.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cnnopt_jax.vip.bounds.differences import (
  ACTIVATIONS,
  STATIC_OPTIONS,
  convolve,
  interpolate,
  interpolation_defect,
  map_norm,
  second_differences,
  validate_layer,
)

# An input without differences or weights keeps S positive and finite: shares of the largest norm.
_LEAST_DIFFERENCE, _LEAST_WEIGHT = 1e-6, 1e-3


class ErrorBounds(NamedTuple):
  """Bounds on e = virtual - dense output of one layer, image by image.

  Norms are Euclidean over the map [H, W, C] of an image, or the largest magnitude in it (`_max`).

  Attributes:
    gap: norm of the gap g of the activation before interpolation, [N].
    difference: norm of the differences D of the input's patches, [N].
    kernel_norm: spectral norm of the kernel; the largest over groups, scalar.
    a_priori: kernel_norm * difference + gap, [N].
    a_posteriori: with a kernel of low rank and the samples themselves, [N].
    a_posteriori_max: bound on the largest |e|, [N].
  """

  gap: jax.Array
  difference: jax.Array
  kernel_norm: jax.Array
  a_priori: jax.Array
  a_posteriori: jax.Array
  a_posteriori_max: jax.Array


class _SplitKernel(NamedTuple):
  """The decomposition of S W after r terms, group by group.

  Attributes:
    filters: u_i / S as a kernel [rows, columns, Cin / groups, groups * r].
    mixing: s_i v_i' of the first r terms, [groups, r, outputs].
    outside: s_i v_i' of the others, [groups, terms, outputs].
    next_value: s_(r+1), [groups]; 0 where there are no others.
  """

  filters: jax.Array
  mixing: jax.Array
  outside: jax.Array
  next_value: jax.Array


@functools.partial(jax.jit, static_argnames=(*STATIC_OPTIONS, 'rank'))
def layer_bound(
  x: jax.Array,
  kernel: jax.Array,
  bias: jax.Array | float = 0.0,
  *,
  stride: int = 1,
  padding: int = 0,
  groups: int = 1,
  activation: str = 'relu',
  rank: int | None = None,
) -> ErrorBounds:
  """Bounds the error of a virtual layer without the dense one; see the module for the proof.

  An inference-time affine norm is folded first: its scale into the kernel, its shift into the bias.

  Args:
    x: input [N, H, W, Cin].
    kernel: [rows, columns, Cin / groups, Cout].
    bias: [Cout] or a number.
    stride: of the dense layer; the virtual one has twice as much.
    padding: zeros on each side, of both layers.
    groups: number of channel groups.
    activation: one of `ACTIVATIONS`.
    rank: filters per group that the a-posteriori form computes, r in the module's proof; None for
      a quarter of the kernel's rank. At full rank it is the true error, at the dense layer's cost.

  Returns:
    Bounds for each image.

  Raises:
    ValueError: if the activation is unknown, the groups do not divide the channels, or the rank is
      out of range.
  """
  validate_layer(x, kernel, stride, padding, groups, activation)
  rank = _resolve_rank(rank, kernel.shape, groups)
  act, by_group = ACTIVATIONS[activation], functools.partial(_by_group, groups=groups)
  rows, columns, depth, _ = kernel.shape
  virtual, before = map(by_group, _from_samples(x, kernel, bias, act, stride, padding, groups))

  def differences(tap):
    return by_group(
      second_differences(x, tap, kernel_size=(rows, columns), stride=stride, padding=padding)
    )

  # [groups, taps x channels, outputs of a group].
  matrix = jnp.moveaxis(kernel.reshape(rows * columns * depth, groups, -1), 1, 0)
  taps = jnp.indices((rows, columns)).reshape(2, -1).T
  scale = _input_scale(differences, taps, matrix)
  plain, scaled = _position_energies(differences, taps, 1 / scale**2, virtual[..., 0])
  split = _split_kernel(matrix, scale, rank, kernel.shape)
  inside = jnp.zeros((*scaled.shape, 0), x.dtype)
  if rank:
    inside = by_group(
      interpolation_defect(
        convolve(x, split.filters, stride=stride, padding=padding, groups=groups)
      )
    )
  # The difference of two sums is uncertain by their rounding, which must not make the bound small.
  slack = 4 * matrix.shape[1] * jnp.finfo(x.dtype).eps * scaled
  distance = jnp.sqrt(jnp.maximum(scaled - (inside**2).sum(-1), 0.0) + slack)
  positions, entries = _position_bounds(virtual, before, act, inside, split, distance)

  gap = map_norm(virtual - act(before))
  difference = jnp.sqrt(plain.sum((1, 2, 3)))
  kernel_norm = jnp.linalg.norm(matrix, 2, axis=(1, 2)).max()
  return ErrorBounds(
    gap,
    difference,
    kernel_norm,
    kernel_norm * difference + gap,
    map_norm(positions),
    entries.max((1, 2, 3, 4)),
  )


def _resolve_rank(rank: int | None, kernel_shape, groups: int) -> int:
  rows, columns, depth, outputs = kernel_shape
  full_rank = min(rows * columns * depth, outputs // groups)
  rank = full_rank // 4 if rank is None else rank
  if not 0 <= rank <= full_rank:
    raise ValueError(
      f'rank={rank}; allowed: 0 to {full_rank} for a kernel {kernel_shape} in {groups} groups'
    )
  return rank


def _from_samples(x, kernel, bias, act, stride, padding, groups) -> tuple[jax.Array, jax.Array]:
  """I f(a) and I a at every position, [N, H, W, Cout]: the dense layer is evaluated nowhere."""
  samples = convolve(x, kernel, stride=2 * stride, padding=padding, groups=groups) + bias
  size = tuple(
    (length + 2 * padding - k) // stride + 1
    for length, k in zip(x.shape[1:3], kernel.shape[:2], strict=True)
  )
  return interpolate(act(samples), size), interpolate(samples, size)


def _by_group(a: jax.Array, groups: int) -> jax.Array:
  """[N, H, W, C] as [N, H, W, groups, C / groups]."""
  return a.reshape(*a.shape[:3], groups, -1)


def _input_scale(
  differences: Callable[[jax.Array], jax.Array], taps: jax.Array, matrix: jax.Array
) -> jax.Array:
  """S of the module's proof, from the norms of D and W along each input.

  Args:
    differences: D at a tap, [N, H, W, groups, depth].
    taps: [taps, 2].
    matrix: [groups, taps x channels, outputs].

  Returns:
    [groups, taps x channels].
  """
  energy = jax.lax.map(lambda tap: (differences(tap) ** 2).sum((0, 1, 2)), taps)
  energy = jnp.moveaxis(energy, 1, 0).reshape(matrix.shape[0], -1)
  weights = jnp.linalg.norm(matrix, axis=-1)
  return jnp.sqrt(
    _with_floor(jnp.sqrt(energy), _LEAST_DIFFERENCE) / _with_floor(weights, _LEAST_WEIGHT)
  )


def _with_floor(norms: jax.Array, share: float) -> jax.Array:
  """At least a share of the largest, and 1 where all are zero."""
  return jnp.maximum(norms, share * norms.max()) + jnp.where(norms.max() > 0, 0.0, 1.0)


def _position_energies(
  differences: Callable[[jax.Array], jax.Array],
  taps: jax.Array,
  weights: jax.Array,
  like: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """||D||^2 and the weighted ||D||^2 at every position; a tap at a time, as all of D is large.

  Args:
    differences: D at a tap, [N, H, W, groups, depth].
    taps: [taps, 2].
    weights: of the squares, [groups, taps x channels].
    like: [N, H, W, groups], for its shape and type.

  Returns:
    Two of [N, H, W, groups].
  """

  def add(carry, step):
    tap, weight = step
    squares = differences(tap) ** 2
    return (carry[0] + squares.sum(-1), carry[1] + (squares * weight).sum(-1)), None

  by_tap = jnp.moveaxis(weights.reshape(weights.shape[0], len(taps), -1), 1, 0)
  zeros = jnp.zeros_like(like)
  return jax.lax.scan(add, (zeros, zeros), (taps, by_tap))[0]


def _split_kernel(matrix: jax.Array, scale: jax.Array, rank: int, kernel_shape) -> _SplitKernel:
  left, values, right = jnp.linalg.svd(scale[..., None] * matrix, full_matrices=False)
  filters = jnp.moveaxis(left[..., :rank] / scale[..., None], 0, 1)
  return _SplitKernel(
    filters.reshape(*kernel_shape[:3], matrix.shape[0] * rank),
    values[:, :rank, None] * right[:, :rank],
    values[:, rank:, None] * right[:, rank:],
    jnp.max(values[:, rank:], axis=1, initial=0.0),
  )


def _position_bounds(
  virtual: jax.Array,
  before: jax.Array,
  act: Callable[[jax.Array], jax.Array],
  inside: jax.Array,
  split: _SplitKernel,
  distance: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """The three bounds of the a-posteriori form at each position.

  Args:
    virtual: v, [N, H, W, groups, outputs].
    before: t, interpolated before the activation, of the same shape.
    act: f.
    inside: what the first r filters give, [N, H, W, groups, r].
    split: the kernel's decomposition.
    distance: ||(1 - U U') D / S||, [N, H, W, groups].

  Returns:
    The smallest bound on the norm of each position [N, H, W, groups], and bounds on the magnitude
    of each output [N, H, W, groups, outputs].
  """
  predicted = before - jnp.einsum('nhwgr,gro->nhwgo', inside, split.mixing)
  spread = distance[..., None] * jnp.linalg.norm(split.outside, axis=1)
  entries = jnp.maximum(
    jnp.abs(virtual - act(predicted + spread)), jnp.abs(virtual - act(predicted - spread))
  )
  remainder = split.next_value * distance
  # Predicted and remaining change are orthogonal, as the decomposition's outputs are.
  change = jnp.hypot(jnp.linalg.norm(predicted - before, axis=-1), remainder)
  positions = jnp.minimum(
    jnp.minimum(
      worst_norm(virtual, act, predicted, remainder), worst_norm(virtual, act, before, change)
    ),
    jnp.linalg.norm(entries, axis=-1),
  )
  return positions, entries


def worst_norm(
  virtual: jax.Array, act: Callable[[jax.Array], jax.Array], z: jax.Array, radius: jax.Array
) -> jax.Array:
  """Largest norm of virtual - act(z - change) over changes of norm up to `radius`, or more.

  With e = virtual - act(z) the square is |e|^2 + 2 e.d + |d|^2, |d| <= radius, and each output of d
  can have the sign of e only as far as act goes on falling or rising: not at all where it is flat.
  In 2 e.d an output may be counted by that reach or by its share of the radius; both are allowed.

  Args:
    virtual: [..., outputs].
    act: nondecreasing, without slopes above one.
    z: [..., outputs].
    radius: [...].

  Returns:
    [...].
  """
  error = virtual - act(z)
  far = jnp.asarray(jnp.finfo(z.dtype).max / 4, z.dtype)
  reach = jnp.where(error > 0, act(z) - act(-far), act(far) - act(z))
  size = jnp.linalg.norm(error, axis=-1)
  near = reach * size[..., None] <= radius[..., None] * jnp.abs(error)
  cross = radius * jnp.linalg.norm(jnp.where(near, 0.0, error), axis=-1) + jnp.where(
    near, jnp.abs(error) * reach, 0.0
  ).sum(-1)
  return jnp.sqrt(size**2 + 2 * cross + radius**2)
