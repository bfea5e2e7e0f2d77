"""`interp2x`: the interpolation that a virtual map stands for."""

import jax

from cnnopt_jax.kernels import dispatch, linear
from cnnopt_jax.kernels.interp2x import mosaic, reference
from cnnopt_jax.kernels.interp2x.tuned import TILES


def interp2x(
  samples: jax.Array, size: tuple[int, int], *, implementation: str | None = None
) -> jax.Array:
  """Interpolates the samples of a virtual map to the whole map (ViP, arXiv 1906.07912).

  Per axis, `out[2i] = x[i]` and `out[2i + 1] = (x[i] + x[i + 1]) / 2`; where the size is even the
  last position repeats the last sample. This is not half-pixel bilinear resizing.

  Args:
    samples: floating `[N, h, w, C]`, with `h = ceil(H / 2)` and `w = ceil(W / 2)`.
    size: `(H, W)`, static.
    implementation: 'xla'; 'mosaic', the GPU kernel, which raises where it cannot run; or None, the
      kernel where it can run and XLA elsewhere.

  Returns:
    `[N, H, W, C]` in the samples' type, added up in float32 at least.

  Raises:
    ValueError: on arguments that do not fit, or a kernel that cannot run.
  """
  size = dispatch.check_samples('samples', samples, size)
  tile = dispatch.choose(
    implementation, samples, size, tuned=TILES, op=interp2x, position_bytes=mosaic.POSITION_BYTES
  )
  if tile is None:
    return linear.apply(reference.OP, (samples,), size=size)[0]
  return linear.apply(mosaic.OP, (samples,), size=size, tile=tile)[0]
