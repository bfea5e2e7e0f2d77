"""Negative padding, given or computed, never reaches XLA's convolution: it is a slice before."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cnnopt_jax.kernels import conv

NHWC = ('NHWC', 'HWIO', 'NHWC')
# Padding, strides, dilation of the image and of the kernel. At one tap every gradient of a padded
# convolution has negative padding; where the last windows do not reach the end, that of the kernel.
CASES = {
  'one side': (((-2, 1), (0, -3)), (1, 1), (1, 1), (1, 1)),
  'strided': (((-1, 2), (2, -4)), (3, 2), (1, 1), (1, 1)),
  'dilated image': (((-1, 3), (-2, -5)), (2, 1), (2, 3), (1, 1)),
  'dilated kernel': (((-1, 3), (4, -2)), (1, 2), (1, 1), (2, 2)),
  'in gradients': (((3, 4), (5, 2)), (3, 2), (1, 1), (1, 1)),
  'nothing left': (((-11, 6), (1, 1)), (1, 1), (1, 1), (1, 1)),
}


def by_slices(x, w, padding, strides, x_dilation, w_dilation):
  """The image dilated, padded and cut, and then convolved without padding."""
  around = ((max(low, 0), max(high, 0), d - 1) for (low, high), d in zip(padding, x_dilation))
  x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *around, (0, 0, 0)))
  rows, columns = (
    slice(max(-low, 0), size - max(-high, 0)) for (low, high), size in zip(padding, x.shape[1:3])
  )
  return lax.conv_general_dilated(
    x[:, rows, columns], w, strides, 'VALID', rhs_dilation=w_dilation, dimension_numbers=NHWC
  )


def both(case):
  padding, strides, x_dilation, w_dilation = CASES[case]
  ours = lambda x, w: conv.conv_general_dilated(
    x, w, strides, padding, x_dilation, w_dilation, dimension_numbers=NHWC
  )
  return ours, lambda x, w: by_slices(x, w, *CASES[case])


def operands(side, channels=8):
  rng = np.random.default_rng(side)
  shapes = (2, 11, 12, channels), (side, side, channels, channels)
  return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def faces(fn, x, w):
  out, transpose = jax.vjp(fn, x, w)
  return out, *transpose(jnp.cos(out))


def grouped(run, x, w):
  """The second of two members whose kernels differ: one grouped convolution."""
  with conv.batching_rule('group'):
    return [leaf[1] for leaf in jax.vmap(run)(jnp.stack([x, x]), jnp.stack([-w, w]))]


@pytest.mark.default_flags
def test_it_cuts_the_image():
  """In float32, where XLA's convolution gave 1e37, or another number at each run."""
  for case in CASES:
    ours, theirs = both(case)
    run = functools.partial(faces, ours)
    for side in (1, 3):
      x, w = operands(side)
      wanted = faces(theirs, x, w)
      for got in (run(x, w), *([grouped(run, x, w)] if side == 1 else [])):
        for found, want in zip(got, wanted, strict=True):
          # Sums of up to 288 products of order one, and of their cosines.
          np.testing.assert_allclose(found, want, rtol=0, atol=1e-4, err_msg=f'{case}, {side}')


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('platform', ['cpu', 'cuda'])
def test_no_program_holds_any(case, platform):
  ours, _ = both(case)
  run = jax.jit(functools.partial(faces, ours))
  text = run.trace(*operands(3)).lower(lowering_platforms=(platform,)).as_text()
  pads = re.findall(r'stablehlo.convolution.* pad = (\[\[.*?\]\])', text)
  assert pads and not [pad for pad in pads if '-' in pad]
