"""Error bound of a chain of virtual layers.

With dense layers F_l, virtual ones G_l, x_l = F_l(x_(l-1)), y_l = G_l(y_(l-1)) and x_0 = y_0,

  ||y_l - x_l|| <= ||G_l(y_(l-1)) - F_l(y_(l-1))|| + ||F_l(y_(l-1)) - F_l(x_(l-1))||
                <= bound of layer l at the input y_(l-1) + Lip(F_l) ||y_(l-1) - x_(l-1)||.

So the virtual network alone bounds its distance to the dense one, but the Lipschitz constants
multiply where true errors hardly grow: after a few layers the figure is far above the trivial
||y_l|| + ||x_l||. It compares equal weights only, like the layers' bounds.
"""

import functools
import math

import chex
import jax
import jax.numpy as jnp

POOLS = ('max', 'average')


@functools.partial(jax.jit, static_argnames=('size', 'stride', 'groups'))
def conv_norm(
  kernel: jax.Array, size: tuple[int, int], *, stride: int = 1, groups: int = 1
) -> jax.Array:
  """Bounds the spectral norm of a zero-padded convolution on maps of a size, any padding.

  On a torus that holds the map and its full convolution the padded one is a part of the circular
  one. That is block diagonal over frequencies; a stride sums the `stride^2` frequencies that alias.
  The largest singular value over all blocks bounds the norm, where power iteration would approach
  it from below. Also a Lipschitz constant of convolution, bias and activation together.

  Args:
    kernel: [rows, columns, Cin / groups, Cout].
    size: (H, W) of the input.
    stride: of the convolution.
    groups: number of channel groups.

  Returns:
    The bound, scalar.
  """
  chex.assert_rank(kernel, 4)
  rows, columns, depth, outputs = kernel.shape
  blocks = [-(-(length + k - 1) // stride) for length, k in zip(size, (rows, columns), strict=True)]
  weights = kernel.reshape(rows, columns, depth, groups, outputs // groups)
  aliases = jnp.arange(stride)

  def wave(frequency, k, block):
    return jnp.exp(-2j * jnp.pi / (block * stride) * (frequency[..., None] * jnp.arange(k)))

  across = wave(jnp.arange(blocks[1])[:, None] + blocks[1] * aliases, columns, blocks[1])

  def largest(frequency):
    down = wave(frequency + blocks[0] * aliases, rows, blocks[0])
    response = jnp.einsum('ah,qbw,hwdgo->qgoabd', down, across, weights)
    response = response.reshape(*response.shape[:3], -1)
    adjoint = jnp.conj(jnp.swapaxes(response, -1, -2))
    wide = response.shape[-2] <= response.shape[-1]
    return jnp.linalg.eigvalsh(response @ adjoint if wide else adjoint @ response).max()

  # A real kernel has the same norm at a frequency and its negative.
  return jnp.sqrt(jax.lax.map(largest, jnp.arange(blocks[0] // 2 + 1)).max()) / stride


def pool_norm(window: int, stride: int, kind: str = 'max') -> float:
  """Lipschitz constant of pooling in the Euclidean norm.

  A window's result moves by at most the norm of the change inside it, over `window` if it is an
  average; each pixel lies in at most ceil(window / stride)^2 windows.

  Args:
    window: rows and columns of the window.
    stride: in both directions.
    kind: one of `POOLS`.

  Returns:
    The constant.

  Raises:
    ValueError: if the kind is unknown.
  """
  if kind not in POOLS:
    raise ValueError(f'kind={kind!r}; allowed: {", ".join(POOLS)}')
  return math.ceil(window / stride) / (window if kind == 'average' else 1)


def network_bound(local: jax.Array, lipschitz: jax.Array) -> jax.Array:
  """Bounds the distance of a virtual chain to the dense one after every layer.

  Args:
    local: bounds of each layer at the virtual network's input to it, [L, N].
    lipschitz: constant of each layer together with what lies between it and the layer before, such
      as `conv_norm` times `pool_norm`; [L], the first one is not used.

  Returns:
    Bounds [L, N].
  """
  chex.assert_rank([local, lipschitz], [2, 1])
  chex.assert_equal_shape_prefix([local, lipschitz], 1)

  def step(distance, layer):
    distance = layer[1] * distance + layer[0]
    return distance, distance

  return jax.lax.scan(step, jnp.zeros_like(local[0]), (local, lipschitz))[1]
