"""The feature map that is known at every other position."""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from cnnopt_jax.kernels.interp2x import interp2x
from cnnopt_jax.workload import jaxprs

# Around every full map that is written; `written_maps` looks for it.
SCOPE = 'vip_materialize'


@struct.dataclass
class VirtualMap:
  """A feature map of which every other row and column was computed; linear interpolation is meant.

  With samples s and one spatial axis of size H, the map v that it stands for is

      v[2i] = s[i];  v[2i+1] = (s[i] + s[i+1]) / 2;  v[H-1] = s[-1] where H is even,

  and two axes are interpolated one after the other (ViP, arXiv 1906.07912). It has no arithmetic
  and never turns into an array by itself: the functions of `cnnopt_jax.vip` read through it.

  Attributes:
    samples: [N, h, w, C].
    size: (H, W), static, with h == ceil(H / 2) and w == ceil(W / 2).
  """

  samples: jax.Array
  size: tuple[int, int] = struct.field(pytree_node=False)

  @property
  def shape(self) -> tuple[int, int, int, int]:
    """Shape of the map that is meant, [N, H, W, C]."""
    return (self.samples.shape[0], *self.size, self.samples.shape[3])

  @property
  def ndim(self) -> int:
    """Rank of the map that is meant, 4."""
    return self.samples.ndim

  @property
  def dtype(self):
    """Type of the samples, and of the map that is meant."""
    return self.samples.dtype

  def astype(self, dtype) -> 'VirtualMap':
    """The map that samples of another floating type stand for.

    A narrower type rounds the samples and not the means between them, which are rounded anew.

    Raises:
      ValueError: if the type is not floating: means of integers are none.
    """
    if not jnp.issubdtype(dtype, jnp.floating):
      raise ValueError(f'dtype={dtype}; allowed: floating types, or materialize() before astype')
    return VirtualMap(self.samples.astype(dtype), self.size)

  def materialize(self) -> jax.Array:
    """Writes the map, [N, H, W, C], in the samples' dtype."""
    validate(self)
    with jax.named_scope(SCOPE):
      return interp2x(self.samples, self.size)

  def __array__(self, *args, **kwargs):
    raise TypeError('a VirtualMap does not turn into an array by itself; call materialize()')


def validate(x: VirtualMap) -> None:
  """Checks that samples and size belong together.

  Raises:
    ValueError: if they do not.
  """
  shape = tuple(x.samples.shape)
  allowed = '[N, ceil(H / 2), ceil(W / 2), C]'
  if len(shape) != 4 or not _is_size(x.size):
    raise ValueError(
      f'samples of shape {shape} and size={x.size}; allowed: {allowed} and a size of two integers, '
      'at least (1, 1)'
    )
  if shape[1:3] != tuple(-(-n // 2) for n in x.size):
    raise ValueError(
      f'samples of shape {shape} do not make a map of size {x.size}; allowed: {allowed}'
    )


def _is_size(size: Any) -> bool:
  try:
    height, width = map(operator.index, size)
  except (TypeError, ValueError):
    return False
  return min(height, width) >= 1


def materialize(x: jax.Array | VirtualMap) -> jax.Array:
  """The map as an array, [N, H, W, C]; an array is returned as it is."""
  return x.materialize() if isinstance(x, VirtualMap) else x


def written_maps(fn: Callable[..., Any], *args: Any) -> tuple[tuple[int, ...], ...]:
  """Shapes of the virtual maps that a function writes in full; nothing is computed.

  Args:
    fn: the function.
    *args: of the function; arrays may be `jax.ShapeDtypeStruct`.

  Returns:
    A shape [N, H, W, C] for each map, in the program's order.
  """
  # An equation with programs in it, such as a jitted function, is what they write.
  return tuple(
    tuple(jaxprs.array_type(var).shape)
    for equation, scopes in jaxprs.equations(jax.make_jaxpr(fn)(*args))
    if SCOPE in scopes and not jaxprs.inner_programs(equation)
    for var in equation.outvars
  )
