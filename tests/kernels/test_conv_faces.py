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


def assert_forms_are_lax_s(image, kernels, settings):
  """Every form of every face, all in one program.

  Args:
    image: shape of the images.
    kernels: shapes of kernels; those with one input channel are depth-wise.
    settings: pairs of strides and padding.
  """
  seen = set()

  def both():
    results = []
    for shape, (strides, padding) in itertools.product(kernels, settings):
      x, w = random(image), random(shape, 1)
      convolution = functools.partial(
        lax.conv_general_dilated,
        window_strides=strides,
        padding=padding,
        dimension_numbers=NHWC,
        feature_group_count=image[3] // shape[2],
      )
      y, transpose = jax.vjp(convolution, x, w)
      g = random(y.shape, 2)
      dx, dw = transpose(g)
      faces_of = {'out': ((x, w), y), 'lhs': ((g, w), dx), 'rhs': ((x, g), dw)}
      for target, (operands, want) in faces_of.items():
        for form in conv.applicable_forms(target, image, shape):
          got = conv.compute_face(form, target, *operands, x, w, strides, padding)
          results.append((got, want))
          seen.add(form)
    return results

  for got, want in jax.jit(both)():
    assert_close(got, want, 7 * 6 * 2 * 9)
  return seen


@pytest.mark.parametrize('channels', [(3, 5), (9, 17)])
@pytest.mark.parametrize('padding', PADDINGS)
def test_every_form_of_every_face_is_lax_s(channels, padding):
  kernels = [(*size, *channels) for size in KERNELS]
  settings = [(strides, padding) for strides in STRIDES]
  seen = assert_forms_are_lax_s((2, 7, 6, channels[0]), kernels, settings)
  assert seen == {'xla', 'padded', 'wide', 'patches', 'rows', 'taps', 'split'}


@pytest.mark.parametrize('size', [(3, 3), (2, 3), (1, 3), (5, 5)])
def test_depthwise_by_shifts_is_lax_s(size):
  """Paddings beyond the kernel and strides that leave a rest among them."""
  settings = [
    ((1, 1), PADDINGS[0]),
    ((1, 2), PADDINGS[1]),
    ((3, 1), PADDINGS[2]),
    ((2, 2), ((6, 5), (0, 7))),
  ]
  assert assert_forms_are_lax_s((2, 7, 6, 3), [(*size, 1, 3)], settings) == {'xla', 'shifts'}


@pytest.mark.parametrize('image', [(1, 5, 3, 2), (3, 70, 2, 2), (4, 14, 3, 2), (5, 4, 9, 2)])
def test_depthwise_rows_come_in_steps(image):
  """Rows of one image, blocks of rows, the last one filled up, and rows of some images."""
  assert_forms_are_lax_s(image, [(3, 2, 1, 2)], [((1, 1), ((1, 1), (0, 1)))])
  assert_forms_are_lax_s(image, [(3, 2, 1, 2)], [((2, 1), ((0, 0), (1, 1)))])


@pytest.mark.parametrize('channels', [(3, 5), (9, 4)])
def test_kernels_of_one_tap_are_products(channels):
  settings = list(itertools.product(STRIDES, (PADDINGS[1], PADDINGS[2])))
  seen = assert_forms_are_lax_s((2, 7, 6, channels[0]), [(1, 1, *channels)], settings)
  assert 'product' in seen and 'shifts' not in seen


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
# Whatever the face and its sizes: [N, H, W, Cin] and a kernel.
BY_KIND = {
  ((8, 14, 14, 13), (3, 3, 1, 13)): 'shifts',
  ((8, 14, 14, 2), (5, 5, 1, 2)): 'shifts',
  ((64, 112, 112, 32), (1, 1, 1, 32)): 'shifts',
  ((8, 14, 14, 1), (1, 1, 1, 1024)): 'product',
  ((8, 14, 14, 64), (1, 1, 64, 128)): 'product',
  ((64, 7, 7, 320), (1, 1, 320, 96)): 'product',
  # Groups of several channels, and several outputs a channel.
  ((8, 14, 14, 4), (3, 3, 2, 4)): 'xla',
  ((8, 14, 14, 4), (1, 1, 1, 8)): 'xla',
}
CASES = [(target, *case) for target, cases in CHOSEN.items() for case in cases.items()]


@pytest.mark.parametrize('target, sizes, form', CASES)
def test_the_choice_follows_from_shapes(target, sizes, form):
  n, h, w, inputs, outputs, stride = sizes
  shapes = (n, h, w, inputs), (3, 3, inputs, outputs)
  assert conv.face_form(target, *shapes, (stride, stride)) == form


@pytest.mark.parametrize('target', conv.FACE_FORMS)
def test_the_choice_for_depthwise_and_for_one_tap(target):
  for (image, kernel), form in BY_KIND.items():
    assert {conv.face_form(target, image, kernel, (stride, 1)) for stride in (1, 2)} == {form}
    assert form in conv.applicable_forms(target, image, kernel)
    if form == 'xla':
      assert conv.applicable_forms(target, image, kernel) == ('xla',)


def test_every_form_is_chosen_somewhere_and_others_are_refused():
  for target, forms in conv.FACE_FORMS.items():
    assert {*CHOSEN[target].values(), 'product', 'shifts'} == set(forms)
  x, w = random((2, 5, 6, 3)), random((3, 3, 3, 5), 1)
  for refused in (
    lambda: conv.face_form('in', x.shape, w.shape, (1, 1)),
    lambda: conv.applicable_forms('in', x.shape, w.shape),
  ):
    with pytest.raises(ValueError, match="target='in'; allowed: out, lhs, rhs"):
      refused()
  for form, allowed in (('taps', 'xla, padded, wide'), ('product', 'xla'), ('shifts', 'xla')):
    with pytest.raises(
      ValueError, match=f"form='{form}'; allowed for target='out' of these shapes: {allowed}"
    ):
      conv.compute_face(form, 'out', x, w, x, w, (1, 1), ((1, 1), (1, 1)))


def same_padded(convolution, x, w):
  groups = x.shape[3] // w.shape[2]
  return convolution(x, w, (1, 1), 'SAME', dimension_numbers=NHWC, feature_group_count=groups)


def chosen(x, w):
  return same_padded(conv.conv_general_dilated, x, w)


def lax_s(x, w):
  return same_padded(lax.conv_general_dilated, x, w)


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
  'vmap_of_grad': lambda fn, x, w: jax.vmap(jax.grad(functools.partial(loss, fn), (0, 1)))(
    jnp.stack([x, -x]), jnp.stack([w, 2 * w])
  ),
  'vmap_of_hvp': lambda fn, x, w: jax.vmap(functools.partial(hvp, fn))(x[None], w[None]),
}


def in_scan(fn, x, w):
  """A sum of gradients by two kernels, one after the other."""
  gradient = jax.grad(functools.partial(loss, fn), (0, 1))

  def step(total, w):
    return jax.tree.map(jnp.add, total, gradient(x, w)), None

  return lax.scan(step, (jnp.zeros_like(x), jnp.zeros_like(w)), jnp.stack([w, -w]))[0]


def in_cond(fn, x, w):
  gradient = jax.grad(functools.partial(loss, fn), (0, 1))
  return lax.cond(w[0, 0, 0, 0] < 9, gradient, lambda x, w: (x, w), x, w)


@pytest.mark.parametrize('transform', TRANSFORMS)
@pytest.mark.parametrize('channels', [(3, 5), (8, 9), (9, 17), (13, 16)])
def test_all_transforms_of_the_chosen_forms(transform, channels):
  assert_chosen_is_lax_s(TRANSFORMS[transform], (3, 3, *channels), channels[0])


@pytest.mark.parametrize('transform', [*TRANSFORMS.values(), in_scan, in_cond])
@pytest.mark.parametrize('kernel, inputs', [((3, 2, 1, 5), 5), ((1, 1, 3, 5), 3)])
def test_all_transforms_of_depthwise_and_of_one_tap(transform, kernel, inputs):
  assert_chosen_is_lax_s(transform, kernel, inputs)


def assert_chosen_is_lax_s(transform, kernel, inputs):
  x, w = random((2, 5, 6, inputs)), random(kernel, 1)
  got, want = (jax.jit(functools.partial(transform, fn))(x, w) for fn in (chosen, lax_s))
  terms = np.prod(kernel[:2]) * inputs * kernel[3]
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
    eqn = jax.make_jaxpr(convolution)(x, w).eqns[-1]
    assert eqn.primitive is api.conv_p
    return faces.applies(eqn.params, eqn.params['lhs_type'], eqn.params['rhs_type'])

  same = ((1, 1), 'SAME')
  assert applies(x, w, *same)
  assert applies(x, w[:1, :1], *same)
  assert applies(x, random((5, 5, 1, 4)), *same, feature_group_count=4)
  assert not applies(x, random((5, 5, 4, 5)), *same)
  assert not applies(x, random((5, 6, 1, 4)), *same, feature_group_count=4)
  assert not applies(x, random((3, 3, 1, 8)), *same, feature_group_count=4)
  assert not applies(x, random((3, 3, 2, 6)), *same, feature_group_count=2)
  assert not applies(x[:, :2], w, (1, 1), 'VALID')
  assert applies(x, w, (1, 1), ((-1, 1), (0, 0)))  # Cut before.
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


@pytest.mark.parametrize('kernel, groups', [((3, 3, 3, 5), 1), ((3, 3, 1, 3), 3)])
def test_empty_results_are_lax_s(kernel, groups):
  x, w = random((2, 2, 6, 3)), random(kernel, 1)
  options = dict(dimension_numbers=NHWC, feature_group_count=groups)
  for convolution in (conv.conv_general_dilated, lax.conv_general_dilated):
    convolve = functools.partial(convolution, window_strides=(1, 1), padding='VALID', **options)
    y, transpose = jax.vjp(convolve, x, w)
    assert y.shape == (2, 0, 4, kernel[3])
    assert not any(map(np.any, transpose(y)))
