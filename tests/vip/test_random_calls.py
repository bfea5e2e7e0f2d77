"""Random convolutions of virtual maps, as users run them, against NumPy loops over the full map.

In float32, with XLA's default flags. More of them than the tests have time for:

    CNNOPT_RANDOM_CALLS=1000 python -m pytest -n 0 tests/vip/test_random_calls.py
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax import vip
from tests.vip import oracle
from tests.vip.maps import full

CALLS = int(os.environ.get('CNNOPT_RANDOM_CALLS', 40))
# Of so many calls one has gradients. Each is a program of its own: among others in one program a
# convolution with negative padding was right.
WITH_GRADIENTS = 6
NO_PADDING = ((0, 0), (0, 0))


def random_call(rng):
  """A virtual map, a kernel and options that give one window at least."""
  groups, inputs, outputs = 1, *(int(n) for n in rng.choice([1, 2, 3, 8, 16], 2))
  if rng.random() < 0.3:
    groups = int(rng.choice([2, 4]))
    inputs, outputs = groups * inputs, groups * outputs
  elif rng.random() < 0.1:  # Depth-wise.
    groups = outputs = inputs
  while True:
    # Two in three small; of the others many are read by 'phases' without being told.
    size = tuple(
      int(n) for n in (rng.integers(1, 20, 2) if rng.random() < 2 / 3 else rng.integers(39, 48, 2))
    )
    sides = [int(n) for n in rng.choice([1, 1, 2, 3, 3, 3, 4, 5, 7], 2)]
    sides = [sides[0]] * 2 if rng.random() < 0.6 else sides
    stride = tuple(int(n) for n in rng.integers(1, 6, 2))
    dilation = tuple(int(n) for n in rng.integers(1, 4, 2)) if rng.random() < 0.2 else 1
    padding = [
      tuple(tuple(int(p) for p in rng.integers(-3, 5, 2)) for _ in sides),
      int(rng.integers(0, 4)),
      str(rng.choice(['SAME', 'VALID', 'SAME_LOWER'])),
      tuple((side // 2,) * 2 for side in sides),
    ][rng.integers(0, 4)]
    options = dict(
      stride=stride[0] if rng.random() < 0.6 else stride,
      padding=padding,
      dilation=dilation,
      groups=groups,
      virtual=bool(rng.random() < 0.4),
    )
    spanned, _, pads, _ = in_pairs(size, sides, **options)
    if all(n + sum(pad) >= k for n, k, pad in zip(size, spanned, pads)):
      break
  samples = rng.normal(size=(2, *(-(-n // 2) for n in size), inputs)).astype(np.float32)
  kernel = rng.normal(size=(*sides, inputs // groups, outputs)).astype(np.float32)
  x = vip.VirtualMap(samples, size)
  return x, kernel, {**options, 'form': random_form(rng, x, kernel, options)}


def random_form(rng, x, kernel, options):
  """What `conv` chooses, or any form that is allowed."""
  if rng.random() < 0.4:
    return None
  spanned, stride, padding, dilation = in_pairs(x.size, kernel.shape[:2], **options)
  steps = [step * (2 if options['virtual'] else 1) for step in stride]
  shape = (*spanned, *kernel.shape[2:])
  padding = tuple(map(tuple, padding))
  forms = vip.conv_forms(x, shape, steps, padding, options['groups'], dilated=dilation != (1, 1))
  return str(rng.choice(forms))


def in_pairs(size, sides, *, stride, padding, dilation, **_):
  """Sides of the kernel with its gaps, strides, padding and dilation, all in pairs."""
  stride, dilation = (v if isinstance(v, tuple) else (v, v) for v in (stride, dilation))
  spanned = [(k - 1) * d + 1 for k, d in zip(sides, dilation)]
  if padding in ('SAME', 'SAME_LOWER'):
    zeros = [max(0, (-(-n // s) - 1) * s + k - n) for n, s, k in zip(size, stride, spanned)]
    low = [(z + (padding == 'SAME_LOWER')) // 2 for z in zeros]
    padding = [(p, z - p) for p, z in zip(low, zeros)]
  elif not isinstance(padding, tuple):
    padding = ((0 if padding == 'VALID' else padding,) * 2,) * 2
  return spanned, stride, padding, dilation


def expected(x, kernel, options):
  """By the oracle, in float64; where padding is negative, the map is cut, and zeros beside it."""
  spanned, stride, padding, dilation = in_pairs(x.size, kernel.shape[:2], **options)
  taps = np.zeros((*spanned, *kernel.shape[2:]))
  taps[:: dilation[0], :: dilation[1]] = kernel
  image = full(x)
  for axis, (low, high) in enumerate(padding, 1):
    places = np.arange(-low, x.size[axis - 1] + high)
    inside = (0 <= places) & (places < x.size[axis - 1])
    image = np.take(image, np.where(inside, places, 0), axis)
    image *= np.expand_dims(inside, [a for a in range(4) if a != axis])
  y = oracle.conv(image, taps, 1, NO_PADDING, options['groups'])[:, :: stride[0], :: stride[1]]
  return y[:, ::2, ::2] if options['virtual'] else y


def computed(x, kernel, options, weights=None):
  """The result; and, where weights are given, the gradients of its product with those."""

  def result(x, kernel):
    y = vip.conv(x, kernel, **options)
    return y.samples if options['virtual'] else y

  def product(x, kernel):
    y = result(x, kernel)
    return jnp.vdot(y, weights), y

  if weights is None:
    return jax.jit(result)(x, kernel), None
  (_, y), slopes = jax.jit(jax.value_and_grad(product, (0, 1), has_aux=True))(x, kernel)
  return y, slopes


@pytest.mark.default_flags
def test_random_calls():
  with jax.enable_x64(False):
    rng = np.random.default_rng(0)
    wrong = []
    for i in range(CALLS):
      x, kernel, options = random_call(rng)
      want = expected(x, kernel, options)
      weights = rng.normal(size=want.shape).astype(np.float32)
      found = computed(x, kernel, options, weights if i % WITH_GRADIENTS == 0 else None)
      if not is_close(x, kernel, want, weights, *found):
        wrong.append((x.size, kernel.shape, options))
    assert not wrong, f'{len(wrong)} of {CALLS}: {wrong[:5]}'


def is_close(x, kernel, want, weights, y, slopes):
  # Sums of so many products of order one, each rounded a few times.
  if y.shape != want.shape or not np.abs(y - want).max() <= 2e-5 * kernel[..., 0].size ** 0.5:
    return False
  # What is linear in the samples and in the kernel is its gradient by each times it.
  total, size = np.vdot(want, weights), np.linalg.norm(want) * np.linalg.norm(weights)
  pairs = [] if slopes is None else [(x.samples, slopes[0].samples), (kernel, slopes[1])]
  return all(
    abs(np.vdot(np.float64(array), np.float64(slope)) - total) <= 1e-5 * (size + 1)
    for array, slope in pairs
  )
