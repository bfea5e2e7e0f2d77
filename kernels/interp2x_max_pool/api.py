"""`interp2x_max_pool`: max-pooling of a map that is never written."""

import functools

import jax

from cnnopt_jax.kernels import dispatch, linear
from cnnopt_jax.kernels.interp2x_max_pool import reference


def interp2x_max_pool(samples: jax.Array, size: tuple[int, int], *,
                      implementation: str | None = None) -> jax.Array:
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
  dispatch.choose(implementation, lambda: 'the kernel is not written yet')
  return _max_pool(samples, size)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _max_pool(samples, size):
  return linear.call(reference.max_pool, samples, size=size)[0]


@_max_pool.defjvp
def _max_pool_jvp(size, primals, tangents):
  out = _max_pool(*primals, size)
  return out, linear.apply(reference.OP, tangents, primals, size=size)[0]
