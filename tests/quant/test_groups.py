"""`grouped_fake_quantize` against `fake_quantize` of each group on its own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax import quant
from cnnopt_jax.quant import group_steps

# A step that follows from the weights alone: that of a search may differ by its tolerance.
fake_quantize = functools.partial(quant.fake_quantize, step='gaussian')
grouped_fake_quantize = functools.partial(quant.grouped_fake_quantize, step='gaussian')
STEPS = ('gaussian', 'absmax')

OPTIONS = ('channel_axis', 'levels', 'step', 'clip_gradient')
jitted = jax.jit(grouped_fake_quantize, static_argnames=('group_size', *OPTIONS))
jitted_alone = jax.jit(fake_quantize, static_argnames=OPTIONS)


def weights(shape=(3, 3, 8, 6), seed=0):
  rng = np.random.default_rng(seed)
  # Magnitudes that vary from input to input, so that groups matter.
  scales = np.exp(rng.normal(size=(*shape[:-1], 1)))
  return (scales * rng.standard_t(5, size=shape)).astype(np.float32)


def one_by_one(w, bits, group_size, **options):
  """Channels last; every group quantized apart, in loops."""
  flat = w.reshape(-1, w.shape[-1])
  out = np.empty_like(flat)
  for channel in range(flat.shape[1]):
    for first in range(0, len(flat), group_size):
      place = slice(first, first + group_size), channel
      out[place] = jitted_alone(flat[place], bits, channel_axis=None, **options)
  return out.reshape(w.shape)


@pytest.mark.parametrize('step', STEPS)
@pytest.mark.parametrize('group_size', [8, 31])
def test_each_group_is_quantized_on_its_own(group_size, step):
  """A size that divides the 72 inputs, and one that leaves 10 over."""
  w = weights((3, 3, 8, 2))
  bits = 2 if step == 'absmax' else 4
  found = jitted(w, bits, group_size=group_size, step=step)
  np.testing.assert_allclose(found, one_by_one(w, bits, group_size, step=step), rtol=2e-6)


def test_by_hand():
  """One bit is sign times mean magnitude: groups of two, and one left over."""
  w = jnp.asarray([[1.0], [-3.0], [0.5], [0.25], [-8.0]])
  found = jitted(w, 1, group_size=2)
  np.testing.assert_array_equal(found.ravel(), [2, -2, 0.375, 0.375, -8])
  assert group_steps((5, 1), group_size=2) == 3


def test_a_group_of_all_inputs_is_a_step_per_channel():
  w = weights()
  for bits in (1, 3, 8):
    for group_size in (72, 1000):
      np.testing.assert_allclose(
        jitted(w, bits, group_size=group_size), jitted_alone(w, bits), rtol=1e-6
      )


@pytest.mark.parametrize('channel_axis', [None, 0, 1, (0, -1), (3, 1)])
def test_channel_axes(channel_axis):
  w = weights((3, 4, 5, 6))
  found = jitted(w, 3, group_size=7, channel_axis=channel_axis)
  kept = {None: (), 0: (0,), 1: (1,), (0, -1): (0, 3), (3, 1): (1, 3)}[channel_axis]
  inputs = [axis for axis in range(4) if axis not in kept]
  order = (*inputs, *kept)
  shape = [w.shape[axis] for axis in order]
  fan_in = int(np.prod(shape[: len(inputs)]))
  last = w.transpose(order).reshape(fan_in, -1)
  expected = one_by_one(last, 3, 7).reshape(shape).transpose(np.argsort(order))
  np.testing.assert_allclose(found, expected, rtol=2e-6)
  steps = group_steps(w.shape, group_size=7, channel_axis=channel_axis)
  assert steps == w.size // fan_in * int(np.ceil(fan_in / 7))


def test_steps_are_counted():
  assert group_steps((3, 3, 64, 128), group_size=64) == 9 * 128
  assert group_steps((3, 3, 64, 128), group_size=128) == 5 * 128  # 576 inputs: four and a half.
  assert group_steps((3, 3, 64, 128), group_size=1000) == 128
  assert group_steps((100,), group_size=32, channel_axis=None) == 4
  assert group_steps((100,), group_size=32, channel_axis=0) == 100
  assert group_steps((3, 3, 1, 32), group_size=1) == 288


def test_error_falls_with_smaller_groups():
  w = weights((512, 8))
  errors = [
    float(jnp.mean((jitted(w, 4, group_size=size, step='mse') - w) ** 2)) for size in (16, 64, 512)
  ]
  assert errors == sorted(errors) and errors[0] < 0.8 * errors[-1]


def test_traced_bits():
  w = weights((40, 3))
  fn = jax.jit(functools.partial(grouped_fake_quantize, group_size=16))
  bits = (1, 2, 4, 8, 32)
  swept = jax.vmap(fn, (None, 0))(w, jnp.asarray(bits))
  for row, b in zip(swept, bits, strict=True):
    np.testing.assert_allclose(row, jitted(w, b, group_size=16), rtol=1e-6)
  np.testing.assert_array_equal(swept[-1], w)
  np.testing.assert_array_equal(grouped_fake_quantize(w, 32, group_size=16), w)
  assert np.isnan(fn(w, jnp.int32(9))).all()


@pytest.mark.parametrize('group_size', [16, 25])
def test_gradient_is_straight_through_or_clipped(group_size):
  w, ct = weights((72, 4)), weights((72, 4), seed=1)

  @functools.partial(jax.jit, static_argnames='clip_gradient')
  def gradient(ct, clip_gradient):
    fn = functools.partial(
      grouped_fake_quantize, bits=3, group_size=group_size, clip_gradient=clip_gradient
    )
    return jax.vjp(fn, w)[1](ct)[0]

  np.testing.assert_array_equal(gradient(ct, clip_gradient=False), ct)
  clipped = np.asarray(gradient(ct, clip_gradient=True))
  alone = jax.jit(
    jax.grad(lambda w, ct: jnp.sum(ct * fake_quantize(w, 3, channel_axis=None, clip_gradient=True)))
  )
  for channel in range(4):
    for first in range(0, 72, group_size):
      place = slice(first, first + group_size), channel
      np.testing.assert_array_equal(clipped[place], alone(w[place], ct[place]))
  assert 0 < np.mean(clipped == 0) < 0.2


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16, jnp.float64])
def test_dtypes(dtype):
  with jax.enable_x64(True):
    w = jnp.asarray(weights((40, 3)), dtype)
    found = jitted(w, 4, group_size=16)
    assert found.dtype == dtype
    exact = jitted(w.astype(jnp.float64), 4, group_size=16)
    rtol = float(jnp.finfo(dtype).eps) + 1e-6
    np.testing.assert_allclose(found.astype(jnp.float64), exact, rtol=rtol)


def test_what_is_not_allowed():
  w = weights()
  for group_size in (0, -32, 2.0, True, None):
    with pytest.raises(ValueError, match='group_size=.*allowed: an int of 1 or more'):
      grouped_fake_quantize(w, 2, group_size=group_size)
    with pytest.raises(ValueError, match='group_size=.*allowed: an int of 1 or more'):
      group_steps(w.shape, group_size=group_size)
  with pytest.raises(ValueError, match='channel_axis=4'):
    group_steps(w.shape, group_size=2, channel_axis=4)
  with pytest.raises(ValueError, match='bits=9'):
    grouped_fake_quantize(w, 9, group_size=32)
  with pytest.raises(ValueError, match="step='sigma'"):
    grouped_fake_quantize(w, 2, group_size=32, step='sigma')
