"""`interp2x_add_relu`: the tail of a residual block."""

import functools

import jax

from cnnopt_jax.kernels import dispatch, linear
from cnnopt_jax.kernels.interp2x_add_relu import mosaic, reference
from cnnopt_jax.kernels.interp2x_add_relu.tuned import TILES


def interp2x_add_relu(
  a: jax.Array,
  b: jax.Array,
  size: tuple[int, int],
  *,
  a_virtual: bool = True,
  b_virtual: bool = True,
  implementation: str | None = None,
) -> jax.Array:
  """`relu(full(a) + full(b))` in one pass, where virtual operands are read through.

  Args:
    a: floating: samples `[N, h, w, C]` if virtual, else a map `[N, H, W, C]`.
    b: as `a`, of the same type.
    size: `(H, W)`, static.
    a_virtual: whether `a` holds samples; static.
    b_virtual: whether `b` holds samples; static.
    implementation: 'xla'; 'mosaic', the GPU kernel, which raises where it cannot run; or None, the
      kernel where it can run and XLA elsewhere.

  Returns:
    The map `[N, H, W, C]` in the operands' type. Its derivative at 0 is 0.

  Raises:
    ValueError: on arguments that do not fit, or a kernel that cannot run.
  """
  for name, x, is_virtual in (('a', a, a_virtual), ('b', b, b_virtual)):
    if is_virtual:
      size = dispatch.check_samples(name, x, size)
    else:
      size = dispatch.check_map(name, x, size, full=True)
  if a.dtype != b.dtype or (a.shape[0], a.shape[3]) != (b.shape[0], b.shape[3]):
    raise ValueError(
      f'a is {a.dtype}{list(a.shape)}, b is {b.dtype}{list(b.shape)}; '
      'allowed: one type, one batch size and one number of channels'
    )
  if not (a_virtual or b_virtual):
    if implementation == 'mosaic':
      raise ValueError("implementation='mosaic': neither operand is virtual; allowed: 'xla', None")
    return jax.nn.relu(a + b)
  virtual, other = (a, b) if a_virtual else (b, a)
  tile = dispatch.choose(
    implementation, virtual, size, tuned=TILES, op=_probed, position_bytes=mosaic.POSITION_BYTES
  )
  return _add_relu(virtual, other, size, a_virtual and b_virtual, tile)


def _probed(samples, size, implementation):
  """Both of its kernels in one function of one array."""
  tail = functools.partial(interp2x_add_relu, size=size, implementation=implementation)
  return tail(samples, tail(samples, -2 * samples), b_virtual=False)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def _add_relu(virtual, other, size, other_virtual, tile):
  if tile is None:
    return linear.call(reference.add_relu, virtual, other, size=size, other_virtual=other_virtual)[
      0
    ]
  return linear.call(
    mosaic.add_relu, virtual, other, size=size, other_virtual=other_virtual, tile=tile
  )[0]


@_add_relu.defjvp
def _add_relu_jvp(size, other_virtual, tile, primals, tangents):
  out = _add_relu(*primals, size, other_virtual, tile)
  if tile is None:
    # A byte a position instead of the map: what the transpose reads nine times is small.
    return out, linear.apply(
      reference.OP, tangents, (out > 0,), size=size, other_virtual=other_virtual
    )[0]
  return out, linear.apply(
    mosaic.OP, tangents, (out,), size=size, other_virtual=other_virtual, tile=tile
  )[0]
