"""`border_pad`: the border that makes a folded convolution exact."""

import jax

from cnnopt_jax.kernels import dispatch, linear
from cnnopt_jax.kernels.border_pad import mosaic, reference
from cnnopt_jax.kernels.border_pad.tuned import TILES


def border_pad(
  samples: jax.Array, size: tuple[int, int], *, implementation: str | None = None
) -> jax.Array:
  """Pads samples so that a VALID convolution reads through the interpolation, borders included.

  A 3x3 convolution with stride 2 and padding 1 of the interpolated map equals the 3x3 convolution
  with stride 1, 'VALID', of what this returns, with the kernel `A^T W A`, A the rows
  (.5, .5, 0), (0, 1, 0), (0, .5, .5). The zero that the map is padded with is the mean of a sample
  and its negative; past an even size the last position repeats the last sample. Per axis the border
  is `-first` before, and `last` (even size) or `-last` (odd size) after; corners take both signs.

  Args:
    samples: floating `[N, h, w, C]`, with `h = ceil(H / 2)` and `w = ceil(W / 2)`.
    size: `(H, W)` of the map that they stand for, static.
    implementation: 'xla'; 'mosaic', the GPU kernel, which raises where it cannot run; or None, the
      kernel where it can run and XLA elsewhere.

  Returns:
    `[N, h + 2, w + 2, C]` in the samples' type.

  Raises:
    ValueError: on arguments that do not fit, or a kernel that cannot run.
  """
  size = dispatch.check_samples('samples', samples, size)
  tile = dispatch.choose(
    implementation, samples, size, tuned=TILES, op=border_pad, position_bytes=mosaic.POSITION_BYTES
  )
  if tile is None:
    return linear.apply(reference.OP, (samples,), size=size)[0]
  return linear.apply(mosaic.OP, (samples,), size=size, tile=tile)[0]
