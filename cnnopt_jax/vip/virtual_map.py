"""The feature map that is known at every other position."""

from collections.abc import Callable
from typing import Any

import jax
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
  if len(shape) != 4 or min(x.size) < 1:
    raise ValueError(
      f'samples of shape {shape} and size={x.size}; allowed: {allowed} and a size '
      'of at least (1, 1)'
    )
  if shape[1:3] != tuple(-(-n // 2) for n in x.size):
    raise ValueError(
      f'samples of shape {shape} do not make a map of size {x.size}; allowed: {allowed}'
    )


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
