"""Negative padding as slices: XLA's CPU backend may read outside the image where it is left to it.

A convolution whose padding is negative on one side gives any number there, another at each run
(openxla/xla 48713; JAX 0.10.2). It comes about where a user asks for it, where a window begins
inside a map, and in gradients: an image's gradient is padded by one less than the kernel's side,
less the convolution's own padding.
"""

from collections.abc import Sequence

import jax
from jax import lax

Pads = tuple[tuple[int, int], ...]


def without_negative(
  image: jax.Array, padding: Sequence[Sequence[int]], axes: Sequence[int], dilation: Sequence[int]
) -> tuple[jax.Array, Pads]:
  """The image and the padding that read the same with nothing negative.

  Args:
    image: with spatial axes anywhere.
    padding: (low, high) of each spatial axis, of the dilated image.
    axes: the spatial axes.
    dilation: of the image, along each.

  Returns:
    What is left of the image, and (low, high) of each axis, none of them below zero.
  """
  left = []
  for (low, high), axis, step in zip(padding, axes, dilation, strict=True):
    size = image.shape[axis]
    # Pixels that are cut off, and zeros of the dilated image that remain before the next one.
    first, last = (-(min(pad, 0) // step) for pad in (low, high))
    if first + last < size or not first + last:
      if first or last:
        image = lax.slice_in_dim(image, first, size - last, axis=axis)
      left.append((low + first * step, high + last * step))
      continue
    length = max(0, (size - 1) * step + 1) + low + high
    if length >= 0:  # Only zeros are left; fewer than none is for lax to refuse.
      image, low, high = lax.slice_in_dim(image, 0, 0, axis=axis), length, 0
    left.append((low, high))
  return image, tuple(left)
