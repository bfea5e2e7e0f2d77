"""Error bounds of a chain of virtual layers, and a report of bounds layer by layer.

With dense layers F_l, virtual ones G_l, x_l = F_l(x_(l-1)), y_l = G_l(y_(l-1)) and x_0 = y_0,

  ||y_l - x_l|| <= ||G_l(y_(l-1)) - F_l(y_(l-1))|| + ||F_l(y_(l-1)) - F_l(x_(l-1))||
                <= bound of layer l at the input y_(l-1) + Lip(F_l) ||y_(l-1) - x_(l-1)||.

So the virtual network alone bounds its distance to the dense one, but the Lipschitz constants
multiply where true errors hardly grow: after a few layers the figure is far above the trivial
||y_l|| + ||x_l||. It compares equal weights only, like the layers' bounds.
"""

import functools
import math
from collections.abc import Iterable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from cnnopt_jax.vip.bounds.layer import layer_bound, layer_error

POOLS = ('max', 'average')
# To stand under every printed report.
REPORT_NOTE = (
  'The bounds compare a virtual and a dense layer of equal weights on one input; '
  'they say nothing about accuracy, nor about weights changed by fine-tuning.'
)


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
  wave = lambda frequency, k, block: jnp.exp(
    -2j * jnp.pi / (block * stride) * (frequency[..., None] * jnp.arange(k))
  )
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


class BoundedLayer(NamedTuple):
  """A layer and its input, as `layer_bound` takes them.

  Attributes:
    name: of the layer.
    x: input [N, H, W, Cin].
    kernel: [rows, columns, Cin / groups, Cout].
    bias: [Cout] or a number.
    stride: of the dense layer.
    padding: zeros on each side.
    groups: number of channel groups.
    activation: one of `bound.ACTIVATIONS`.
  """

  name: str
  x: jax.Array
  kernel: jax.Array
  bias: jax.Array | float = 0.0
  stride: int = 1
  padding: int = 0
  groups: int = 1
  activation: str = 'relu'


class BoundRow(NamedTuple):
  """One layer of a report. All ratios are medians over the images with an error, but the worst.

  Attributes:
    layer: name.
    images: number of images with an error.
    error: true error over the norm of the dense output.
    a_priori: a-priori bound over true error.
    a_posteriori: a-posteriori bound over true error.
    trivial: ||virtual|| + ||dense|| over true error.
    ratio: the smallest of the three over true error.
    worst: largest such ratio of an image.
    ratio_max: a-posteriori bound over true error, both in the largest magnitude.
    violations: number of images and bounds where a bound lies below the error; 0 by the theorem.
  """

  layer: str
  images: int
  error: float
  a_priori: float
  a_posteriori: float
  trivial: float
  ratio: float
  worst: float
  ratio_max: float
  violations: int


def bound_report(layers: Iterable[BoundedLayer], *, rank: int | None = None) -> list[BoundRow]:
  """Compares the bounds of layers with their true errors, in float64.

  Args:
    layers: in the order of the report; a generator keeps one input in memory at a time.
    rank: of the a-posteriori form, see `layer_bound`; clipped to each kernel's own.

  Returns:
    One row a layer.
  """
  return [_row(layer, rank) for layer in layers]


def _row(layer, rank):
  depth = math.prod(layer.kernel.shape[:3])
  if rank is not None:
    rank = min(rank, depth, layer.kernel.shape[3] // layer.groups)
  options = layer._asdict()
  name = options.pop('name')
  arrays = [options.pop(key) for key in ('x', 'kernel', 'bias')]
  with jax.enable_x64(True):
    arrays = [jnp.asarray(a, jnp.float64) for a in arrays]
    bound = jax.tree.map(np.asarray, layer_bound(*arrays, rank=rank, **options))
    truth = jax.tree.map(np.asarray, layer_error(*arrays, **options))
  # What is left of an exact interpolation is rounding, and no ratio.
  erring = truth.error > 1e-12 * truth.output
  truth, (a_priori, a_posteriori, largest) = jax.tree.map(
    lambda a: a[erring], (truth, (bound.a_priori, bound.a_posteriori, bound.a_posteriori_max))
  )
  median = lambda a: float(np.median(a)) if a.size else math.nan
  smallest = np.minimum(np.minimum(a_priori, a_posteriori), truth.trivial) / truth.error
  below = lambda found, error: int((found < error * (1 - 1e-9)).sum())
  return BoundRow(
    name,
    int(erring.sum()),
    median(truth.error / truth.output),
    median(a_priori / truth.error),
    median(a_posteriori / truth.error),
    median(truth.trivial / truth.error),
    median(smallest),
    float(smallest.max(initial=-math.inf)) if smallest.size else math.nan,
    median(largest / truth.error_max),
    below(a_priori, truth.error)
    + below(a_posteriori, truth.error)
    + below(largest, truth.error_max)
    + below(truth.trivial, truth.error),
  )
