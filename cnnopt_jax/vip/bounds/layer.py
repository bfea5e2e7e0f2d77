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

import chex
import jax
import jax.numpy as jnp

# All of them nondecreasing and without slopes above one, which is what the proofs need.
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
  'relu': jax.nn.relu,
  'relu6': jax.nn.relu6,
  'identity': lambda z: z,
}
_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')


class LayerBound(NamedTuple):
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


class LayerError(NamedTuple):
  """What the bounds are compared with; it takes the dense layer.

  Attributes:
    error: Euclidean norm of virtual - dense output, [N].
    error_max: largest magnitude in it, [N].
    output: norm of the dense output, [N].
    trivial: sum of the norms of both outputs, [N].
  """

  error: jax.Array
  error_max: jax.Array
  output: jax.Array
  trivial: jax.Array


def interpolate(samples: jax.Array, size: tuple[int, int]) -> jax.Array:
  """Restores a map from its even rows and columns.

  Per axis out[2i] = a[i], out[2i + 1] = (a[i] + a[i + 1]) / 2, and the last sample is repeated.

  Args:
    samples: [N, ceil(H / 2), ceil(W / 2), C].
    size: (H, W).

  Returns:
    Map [N, H, W, C].
  """
  for axis, length in zip((1, 2), size, strict=True):
    after = jnp.concatenate(
      [
        jax.lax.slice_in_dim(samples, 1, None, axis=axis),
        jax.lax.slice_in_dim(samples, -1, None, axis=axis),
      ],
      axis,
    )
    pairs = jnp.stack([samples, (samples + after) / 2], axis + 1)
    shape = samples.shape[:axis] + (-1,) + samples.shape[axis + 1 :]
    samples = jax.lax.slice_in_dim(pairs.reshape(shape), 0, length, axis=axis)
  return samples


def interpolation_defect(full: jax.Array) -> jax.Array:
  """Interpolation of a map's even rows and columns minus the map, [N, H, W, C]: 0 at samples."""
  return interpolate(full[:, ::2, ::2], full.shape[1:3]) - full


def second_differences(
  x: jax.Array, tap: jax.Array, *, kernel_size: tuple[int, int], stride: int, padding: int
) -> jax.Array:
  """What one tap of the kernel sees of D, the differences of the zero-extended input.

  Args:
    x: input [N, H, W, C].
    tap: its row and column in the kernel, int [2]; may be traced.
    kernel_size: rows and columns of the kernel.
    stride: of the dense layer.
    padding: zeros on each side.

  Returns:
    D at that tap, [N, rows of the output, columns of the output, C].
  """
  padded = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
  spans = [length - size + 1 for length, size in zip(padded.shape[1:3], kernel_size, strict=True)]
  seen = jax.lax.dynamic_slice(padded, (0, tap[0], tap[1], 0), (x.shape[0], *spans, x.shape[3]))
  return interpolation_defect(seen[:, ::stride, ::stride])


_STATIC = ('stride', 'padding', 'groups', 'activation')


@functools.partial(jax.jit, static_argnames=(*_STATIC, 'rank'))
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
) -> LayerBound:
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
  _check(x, kernel, stride, padding, groups, activation)
  rows, columns, depth, outputs = kernel.shape
  full_rank = min(rows * columns * depth, outputs // groups)
  rank = full_rank // 4 if rank is None else rank
  if not 0 <= rank <= full_rank:
    raise ValueError(
      f'rank={rank}; allowed: 0 to {full_rank} for a kernel {kernel.shape} in {groups} groups'
    )
  act = ACTIVATIONS[activation]
  convolve = functools.partial(_convolve, padding=padding, groups=groups)
  # Samples only: the dense layer is evaluated nowhere below.
  samples = convolve(x, kernel, stride=2 * stride) + bias
  size = tuple(
    (length + 2 * padding - k) // stride + 1
    for length, k in zip(x.shape[1:3], (rows, columns), strict=True)
  )
  virtual, before = interpolate(act(samples), size), interpolate(samples, size)

  grouped = lambda a: a.reshape(*a.shape[:3], groups, -1)
  # [groups, taps x channels, outputs of a group].
  matrix = jnp.moveaxis(kernel.reshape(rows * columns * depth, groups, -1), 1, 0)
  taps = jnp.stack(jnp.meshgrid(jnp.arange(rows), jnp.arange(columns), indexing='ij'), -1).reshape(
    -1, 2
  )
  differences = lambda tap: grouped(
    second_differences(x, tap, kernel_size=(rows, columns), stride=stride, padding=padding)
  )

  energy = jax.lax.map(lambda tap: (differences(tap) ** 2).sum((0, 1, 2)), taps)
  energy = jnp.moveaxis(energy, 1, 0).reshape(groups, -1)
  scale = _scale(jnp.sqrt(energy), jnp.linalg.norm(matrix, axis=-1))

  def weighted_energy(carry, step):
    tap, weight = step
    squares = differences(tap) ** 2
    return (carry[0] + squares.sum(-1), carry[1] + (squares * weight).sum(-1)), None

  weights = jnp.moveaxis((1 / scale**2).reshape(groups, rows * columns, depth), 1, 0)
  zeros = jnp.zeros((*virtual.shape[:3], groups), x.dtype)
  (plain, scaled), _ = jax.lax.scan(weighted_energy, (zeros, zeros), (taps, weights))

  left, values, right = jnp.linalg.svd(scale[..., None] * matrix, full_matrices=False)
  filters = jnp.moveaxis(left[..., :rank] / scale[..., None], 0, 1)
  filters = filters.reshape(rows, columns, depth, groups * rank)
  inside = (
    grouped(interpolation_defect(convolve(x, filters, stride=stride)))
    if rank
    else (jnp.zeros((*zeros.shape, 0), x.dtype))
  )
  mixing = values[:, :rank, None] * right[:, :rank]
  outside = values[:, rank:, None] * right[:, rank:]
  # The difference of two sums is uncertain by their rounding, which must not make the bound small.
  slack = 4 * matrix.shape[1] * jnp.finfo(x.dtype).eps * scaled
  distance = jnp.sqrt(jnp.maximum(scaled - (inside**2).sum(-1), 0.0) + slack)
  virtual, before = grouped(virtual), grouped(before)
  predicted = before - jnp.einsum('nhwgr,gro->nhwgo', inside, mixing)
  spread = distance[..., None] * jnp.linalg.norm(outside, axis=1)
  entries = jnp.maximum(
    jnp.abs(virtual - act(predicted + spread)), jnp.abs(virtual - act(predicted - spread))
  )
  remainder = jnp.max(values[:, rank:], axis=1, initial=0.0) * distance
  # Predicted and remaining change are orthogonal, as the decomposition's outputs are.
  change = jnp.hypot(jnp.linalg.norm(predicted - before, axis=-1), remainder)
  within = functools.partial(_worst_norm, virtual, act)
  positions = jnp.minimum(
    jnp.minimum(within(predicted, remainder), within(before, change)),
    jnp.linalg.norm(entries, axis=-1),
  )

  gap = _norm(virtual - act(before))
  difference = jnp.sqrt(plain.sum((1, 2, 3)))
  kernel_norm = jnp.linalg.norm(matrix, 2, axis=(1, 2)).max()
  return LayerBound(
    gap,
    difference,
    kernel_norm,
    kernel_norm * difference + gap,
    _norm(positions),
    entries.max((1, 2, 3, 4)),
  )


@functools.partial(jax.jit, static_argnames=_STATIC)
def layer_error(
  x: jax.Array,
  kernel: jax.Array,
  bias: jax.Array | float = 0.0,
  *,
  stride: int = 1,
  padding: int = 0,
  groups: int = 1,
  activation: str = 'relu',
) -> LayerError:
  """True error of a virtual layer, and the trivial bound ||virtual|| + ||dense||.

  Args:
    x: input [N, H, W, Cin].
    kernel: [rows, columns, Cin / groups, Cout].
    bias: [Cout] or a number.
    stride: of the dense layer.
    padding: zeros on each side.
    groups: number of channel groups.
    activation: one of `ACTIVATIONS`.

  Returns:
    Error and norms of each image.

  Raises:
    ValueError: if the activation is unknown or the groups do not divide the channels.
  """
  _check(x, kernel, stride, padding, groups, activation)
  dense = ACTIVATIONS[activation](
    _convolve(x, kernel, stride=stride, padding=padding, groups=groups) + bias
  )
  error = interpolation_defect(dense)
  return LayerError(
    _norm(error), jnp.abs(error).max((1, 2, 3)), _norm(dense), _norm(dense + error) + _norm(dense)
  )


def _check(x, kernel, stride, padding, groups, activation):
  chex.assert_rank([x, kernel], 4)
  for name, value, least in (('stride', stride, 1), ('padding', padding, 0), ('groups', groups, 1)):
    if value < least:
      raise ValueError(f'{name}={value}; allowed: {least} or more')
  if activation not in ACTIVATIONS:
    raise ValueError(f'activation={activation!r}; allowed: {", ".join(ACTIVATIONS)}')
  if kernel.shape[2] * groups != x.shape[3] or kernel.shape[3] % groups:
    raise ValueError(
      f'groups={groups}; allowed: a divisor of the outputs with input channels '
      f'{x.shape[3]} = groups * {kernel.shape[2]}, for a kernel {kernel.shape}'
    )
  if min(x.shape[1:3]) + 2 * padding < max(kernel.shape[:2]):
    raise ValueError(
      f'padding={padding}; allowed: enough for a kernel {kernel.shape} to fit into '
      f'an input {x.shape}'
    )


def _convolve(x, kernel, *, stride, padding, groups):
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    ((padding, padding),) * 2,
    dimension_numbers=_DIMENSIONS,
    feature_group_count=groups,
    precision=jax.lax.Precision.HIGHEST,
  )


def _worst_norm(virtual, act, z, radius):
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


def _scale(differences, weights):
  """S of the module's proof, [groups, taps x channels], from norms along each input."""
  floor = lambda a, share: jnp.maximum(a, share * a.max()) + jnp.where(a.max() > 0, 0.0, 1.0)
  # Floors, so that an input without differences or weights keeps S positive and finite.
  return jnp.sqrt(floor(differences, 1e-6) / floor(weights, 1e-3))


def _norm(a):
  return jnp.sqrt((a**2).sum(tuple(range(1, a.ndim))))
