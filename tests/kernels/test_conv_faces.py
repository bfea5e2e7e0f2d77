"""The forms of a convolution and of its transposes against lax's own, and which one is chosen."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cnnopt_jax.kernels import conv
from cnnopt_jax.kernels.conv import api, faces

NHWC = ('NHWC', 'HWIO', 'NHWC')

KERNELS = ((3, 3), (2, 3), (1, 3), (3, 1))
STRIDES = ((1, 1), (2, 2), (1, 2), (3, 1))
PADDINGS = (((1, 1), (1, 1)), ((0, 2), (3, 0)), ((0, 0), (0, 0)))


def random(shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def assert_close(got, want, terms):
  """Sums of `terms` products of order one, rounded in two orders."""
  scale = 8 * np.finfo(np.float32).eps * terms
  np.testing.assert_allclose(got, want, rtol=0, atol=scale)


@pytest.mark.parametrize('channels', [(3, 5), (9, 17)])
@pytest.mark.parametrize('padding', PADDINGS)
def test_every_form_of_every_face_is_lax_s(channels, padding):
  settings = list(itertools.product(KERNELS, STRIDES))

  def both():
    results = []
    for kernel_size, strides in settings:
      x, w = random((2, 7, 6, channels[0])), random((*kernel_size, *channels), 1)
      y, transpose = jax.vjp(
        lambda x, w, s=strides: lax.conv_general_dilated(x, w, s, padding, dimension_numbers=NHWC),
        x,
        w,
      )
      g = random(y.shape, 2)
      dx, dw = transpose(g)
      faces_of = {'out': ((x, w), y), 'lhs': ((g, w), dx), 'rhs': ((x, g), dw)}
      for target, (operands, want) in faces_of.items():
        for form in conv.FACE_FORMS[target]:
          got = conv.compute_face(form, target, *operands, x, w, strides, padding)
          results.append((got, want))
    return results

  for got, want in jax.jit(both)():
    assert_close(got, want, 7 * 6 * 2 * 9)


CHOSEN = {
  'out': {
    (8, 14, 14, 1, 8, 1): 'wide',
    (8, 14, 14, 2, 64, 1): 'xla',
    (8, 14, 14, 8, 13, 1): 'rows',
    (8, 14, 14, 3, 64, 1): 'xla',
    (512, 56, 56, 8, 13, 1): 'xla',
    (8, 14, 14, 8, 13, 2): 'patches',
    (8, 14, 14, 13, 17, 1): 'padded',
    (8, 14, 14, 16, 24, 1): 'xla',
    (8, 14, 14, 53, 64, 1): 'xla',
  },
  'lhs': {
    (8, 14, 14, 13, 17, 1): 'rows',
    (8, 14, 14, 8, 13, 1): 'rows',
    (64, 28, 28, 8, 13, 1): 'rows',
    (1024, 28, 28, 8, 13, 1): 'padded',
    (8, 14, 14, 8, 13, 2): 'xla',
    (8, 14, 14, 8, 65, 1): 'taps',
    (8, 14, 14, 16, 16, 1): 'xla',
    (8, 14, 14, 16, 24, 1): 'xla',
    (8, 14, 14, 24, 32, 2): 'taps',
    (512, 28, 28, 24, 32, 2): 'xla',
    (64, 28, 28, 13, 17, 1): 'padded',
    (64, 28, 28, 16, 24, 1): 'xla',
    (64, 28, 28, 20, 28, 1): 'xla',
  },
  'rhs': {
    (8, 14, 14, 13, 9, 1): 'padded',
    (8, 14, 14, 13, 17, 1): 'padded',
    (8, 14, 14, 13, 8, 1): 'xla',
    (8, 14, 14, 13, 32, 1): 'xla',
    (8, 14, 14, 13, 65, 1): 'xla',
    (64, 14, 14, 14, 21, 1): 'split',
    (64, 28, 28, 16, 16, 1): 'xla',
  },
}
CASES = [(target, *case) for target, cases in CHOSEN.items() for case in cases.items()]


@pytest.mark.parametrize('target, sizes, form', CASES)
def test_the_choice_follows_from_shapes(target, sizes, form):
  n, h, w, inputs, outputs, stride = sizes
  shapes = (n, h, w, inputs), (3, 3, inputs, outputs)
  assert conv.face_form(target, *shapes, (stride, stride)) == form


def test_every_form_is_chosen_somewhere_and_others_are_refused():
  for target, forms in conv.FACE_FORMS.items():
    assert set(CHOSEN[target].values()) == set(forms)
  x, w = random((2, 5, 6, 3)), random((3, 3, 3, 5), 1)
  with pytest.raises(ValueError, match="target='in'; allowed: out, lhs, rhs"):
    conv.face_form('in', x.shape, w.shape, (1, 1))
  with pytest.raises(ValueError, match="form='taps'; allowed for target='out': xla, padded, wide"):
    conv.compute_face('taps', 'out', x, w, x, w, (1, 1), ((1, 1), (1, 1)))


def chosen(x, w):
  return conv.conv_general_dilated(x, w, (1, 1), 'SAME', dimension_numbers=NHWC)


def lax_s(x, w):
  return lax.conv_general_dilated(x, w, (1, 1), 'SAME', dimension_numbers=NHWC)


def loss(fn, x, w):
  return jnp.sum(jnp.sin(fn(x, w)))


def hvp(fn, x, w):
  gradient = jax.grad(functools.partial(loss, fn), (0, 1))
  return jax.jvp(gradient, (x, w), (jnp.cos(x), jnp.sin(w)))[1]


TRANSFORMS = {
  'forward': lambda fn, x, w: fn(x, w),
  'grad': lambda fn, x, w: jax.grad(functools.partial(loss, fn), (0, 1))(x, w),
  'jvp': lambda fn, x, w: jax.jvp(fn, (x, w), (jnp.cos(x), jnp.sin(w))),
  'hvp': hvp,
  'vmap_of_hvp': lambda fn, x, w: jax.vmap(functools.partial(hvp, fn))(x[None], w[None]),
}


@pytest.mark.parametrize('transform', TRANSFORMS)
@pytest.mark.parametrize('channels', [(3, 5), (8, 9), (9, 17), (13, 16)])
def test_all_transforms_of_the_chosen_forms(transform, channels):
  x, w = random((2, 5, 6, channels[0])), random((3, 3, *channels), 1)
  got, want = (
    jax.jit(functools.partial(TRANSFORMS[transform], fn))(x, w) for fn in (chosen, lax_s)
  )
  terms = 9 * channels[0] * channels[1]
  jax.tree.map(lambda a, b: assert_close(a, b, terms), got, want)


def lowered(fn, platform='cpu'):
  x, w = random((2, 5, 6, 3)), random((3, 3, 3, 5), 1)
  both = lambda x, w: jax.vjp(fn, x, w)[1](jnp.ones((2, 5, 6, 5)))
  return jax.jit(both).trace(x, w).lower(lowering_platforms=(platform,)).as_text()


def test_forms_are_of_the_cpu_and_can_be_turned_off():
  assert lowered(lambda x, w: chosen(x, w)).count('stablehlo.dot_general') == 1
  assert 'dot_general' not in lowered(lambda x, w: chosen(x, w), 'cuda')
  with conv.forms('xla'):
    assert 'dot_general' not in lowered(lambda x, w: chosen(x, w))
    kept = jax.make_jaxpr(lambda x, w: chosen(x, w))(random((2, 5, 6, 3)), random((3, 3, 3, 5)))
  (eqn,) = kept.eqns
  assert eqn.params['forms'] == 'xla'
  with pytest.raises(ValueError, match="which='fast'; allowed: chosen, xla"):
    with conv.forms('fast'):
      pass


def test_forms_apply_to_plain_two_dimensional_float32_alone():
  x, w = random((2, 5, 6, 4)), random((3, 3, 4, 5), 1)

  def applies(x, w, *args, **kwargs):
    convolution = lambda x, w: conv.conv_general_dilated(
      x, w, *args, dimension_numbers=NHWC, **kwargs
    )
    (eqn,) = jax.make_jaxpr(convolution)(x, w).eqns
    assert eqn.primitive is api.conv_p
    return faces.applies(eqn.params, eqn.params['lhs_type'], eqn.params['rhs_type'])

  same = ((1, 1), 'SAME')
  assert applies(x, w, *same)
  assert not applies(x, w[:1, :1], *same)
  assert not applies(x, random((3, 3, 2, 6)), *same, feature_group_count=2)
  assert not applies(x, w, (1, 1), ((-1, 1), (0, 0)))
  assert not applies(x, w, *same, rhs_dilation=(2, 1))
  assert not applies(x, w, (1, 1), ((1, 1), (1, 1)), lhs_dilation=(2, 2))
  assert not applies(x, w, *same, precision='highest')
  assert not applies(x.astype(jnp.bfloat16), w.astype(jnp.bfloat16), *same)


def test_a_weight_gradient_by_groups_of_images():
  """Twelve images are three groups of four."""
  x, w, g = random((12, 7, 6, 9)), random((3, 3, 9, 17), 1), random((12, 4, 3, 17), 2)
  got, want = (
    conv.compute_face(form, 'rhs', x, g, x, w, (2, 2), ((1, 1), (1, 1)))
    for form in ('split', 'xla')
  )
  assert_close(got, want, 12 * 4 * 3)
