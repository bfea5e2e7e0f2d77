"""`interp2x_max_pool`: max-pooling of a map that is never written."""

import functools

import jax

from cnnopt_jax.kernels import dispatch, linear
from cnnopt_jax.kernels.interp2x_max_pool import mosaic, reference
from cnnopt_jax.kernels.interp2x_max_pool.tuned import TILES


def interp2x_max_pool(
  samples: jax.Array, size: tuple[int, int], *, implementation: str | None = None
) -> jax.Array:
  """2x2 max-pooling with stride 2 of the interpolated map, read from its samples.

  Equals `flax.linen.max_pool(interp2x(samples, size), (2, 2), (2, 2))`: the maximum of a sample,
  its two means with its neighbours and the mean of four. The derivative goes to the first maximum.

  Args:
    samples: floating `[N, h, w, C]`, with `h = ceil(H / 2)` and `w = ceil(W / 2)`.
    size: `(H, W)` of the map that they stand for, static.
    implementation: 'xla'; 'mosaic', the GPU kernel, which raises where it cannot run; or None, the
      kernel where it can run and XLA elsewhere.

  Returns:
    `[N, H // 2, W // 2, C]` in the samples' type.

  Raises:
    ValueError: on arguments that do not fit, or a kernel that cannot run.
  """
  size = dispatch.check_samples('samples', samples, size)
  tile = dispatch.choose(
    implementation,
    samples,
    size,
    tuned=TILES,
    op=interp2x_max_pool,
    position_bytes=mosaic.POSITION_BYTES,
  )
  return _max_pool(samples, size, tile)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _max_pool(samples, size, tile):
  if tile is None:
    return linear.call(reference.max_pool, samples, size=size)[0]
  return linear.call(mosaic.max_pool, samples, size=size, tile=tile)[0]


@_max_pool.defjvp
def _max_pool_jvp(size, tile, primals, tangents):
  out = _max_pool(*primals, size, tile)
  if tile is None:
    return out, linear.apply(reference.OP, tangents, primals, size=size)[0]
  return out, linear.apply(mosaic.OP, tangents, primals, size=size, tile=tile)[0]
