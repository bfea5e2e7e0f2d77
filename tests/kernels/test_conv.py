"""The convolution primitive against lax's own, under every transform."""

import functools
import re

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from cnnopt_jax.kernels import conv, platforms
from cnnopt_jax.kernels.conv import api, measured

NHWC = ('NHWC', 'HWIO', 'NHWC')

# name: lhs shape, rhs shape, keyword arguments.
CASES = {
  'plain': ((2, 4, 3, 2), (3, 3, 2, 3), dict(window_strides=(1, 1), padding='SAME')),
  'depthwise': (
    (2, 4, 5, 2),
    (3, 3, 1, 2),
    dict(window_strides=(2, 1), padding='VALID', feature_group_count=2),
  ),
  'grouped': (
    (1, 5, 5, 4),
    (2, 3, 2, 2),
    dict(
      window_strides=(1, 2), padding=((0, 1), (2, 0)), rhs_dilation=(2, 1), feature_group_count=2
    ),
  ),
  'transposed': (
    (2, 3, 3, 2),
    (3, 2, 2, 2),
    dict(window_strides=(1, 1), padding=((1, 2), (1, 1)), lhs_dilation=(2, 2)),
  ),
}


def operands(case, dtype=jnp.float64, members=()):
  lhs_shape, rhs_shape, kwargs = CASES[case]
  rng = np.random.default_rng(0)
  make = lambda shape: jnp.asarray(rng.normal(size=members + shape), dtype)
  ours = functools.partial(conv.conv_general_dilated, dimension_numbers=NHWC, **kwargs)
  theirs = functools.partial(lax.conv_general_dilated, dimension_numbers=NHWC, **kwargs)
  return make(lhs_shape), make(rhs_shape), ours, theirs


def scalar(fn):
  """A loss with nonzero second and third derivatives."""
  return lambda lhs, rhs: jnp.sum(jnp.sin(fn(lhs, rhs)))


def gains_to_means(fn, x, y):
  """A function from a gain per output channel to means per channel: its Jacobian is small."""
  return lambda gains: jnp.sin(fn(x, y * gains)).mean((0, 1, 2))


def hvp(fn, x, y):
  loss = scalar(fn)
  return jax.jvp(jax.grad(loss, (0, 1)), (x, y), (jnp.cos(x), jnp.sin(y)))[1]


def reverse_over_reverse(fn, x, y):
  inner = lambda x, y: jax.tree.reduce(
    lambda a, b: a + jnp.sum(b**2), jax.grad(scalar(fn), (0, 1))(x, y), 0.0
  )
  return jax.grad(inner, (0, 1))(x, y)


TRANSFORMS = {
  'forward': lambda fn, x, y: fn(x, y),
  'jit': lambda fn, x, y: jax.jit(fn)(x, y),
  'grad': lambda fn, x, y: jax.grad(scalar(fn), (0, 1))(x, y),
  'jvp': lambda fn, x, y: jax.jvp(fn, (x, y), (jnp.cos(x), jnp.sin(y))),
  'jacfwd': lambda fn, x, y: jax.jacfwd(gains_to_means(fn, x, y))(jnp.ones(y.shape[-1])),
  'jacrev': lambda fn, x, y: jax.jacrev(gains_to_means(fn, x, y))(jnp.ones(y.shape[-1])),
  'hvp': hvp,
  'reverse_over_reverse': reverse_over_reverse,
  'remat': lambda fn, x, y: jax.grad(scalar(jax.checkpoint(fn)), (0, 1))(x, y),
}

MAPPED = {
  'vmap': lambda fn, x, y: jax.vmap(fn)(x, y),
  'vmap_of_grad': lambda fn, x, y: jax.vmap(jax.grad(scalar(fn), (0, 1)))(x, y),
  'grad_of_vmap': lambda fn, x, y: jax.grad(scalar(jax.vmap(fn)), (0, 1))(x, y),
  'jvp_of_vmap': lambda fn, x, y: jax.jvp(jax.vmap(fn), (x, y), (jnp.cos(x), jnp.sin(y))),
  'vmap_of_hvp': lambda fn, x, y: jax.vmap(functools.partial(hvp, fn))(x, y),
  'vmap_of_remat': lambda fn, x, y: jax.vmap(jax.grad(scalar(jax.checkpoint(fn)), (0, 1)))(x, y),
  'images_only': lambda fn, x, y: jax.vmap(fn, (0, None))(x, y[0]),
  'images_only_grad': lambda fn, x, y: jax.vmap(jax.grad(scalar(fn), (0, 1)), (0, None))(x, y[0]),
  'kernels_only': lambda fn, x, y: jax.vmap(fn, (None, 0))(x[0], y),
  'kernels_only_grad': lambda fn, x, y: jax.vmap(jax.grad(scalar(fn), (0, 1)), (None, 0))(x[0], y),
  'nested': lambda fn, x, y: jax.vmap(jax.vmap(fn, (None, 0)), (0, None))(x, y),
  'nested_grad': lambda fn, x, y: jax.vmap(
    jax.vmap(jax.grad(scalar(fn), (0, 1)), (None, 0)), (0, None)
  )(x, y),
  'odd_axes': lambda fn, x, y: jax.vmap(fn, (2, 4), 1)(
    jnp.moveaxis(x, 0, 2), jnp.moveaxis(y, 0, 4)
  ),
}


def assert_close(ours, theirs, case):
  _, rhs_shape, _ = CASES[case]
  # Sums of up to fan-in (or image) many products of order one, a few of them nested.
  tolerance = 1e3 * np.finfo(np.float64).eps * np.sqrt(np.prod(rhs_shape))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), ours, theirs
  )


def assert_equal_programs(run, ours, theirs, x, y, case):
  assert_close(*(jax.jit(functools.partial(run, fn))(x, y) for fn in (ours, theirs)), case)


@pytest.fixture(autouse=True)
def x64():
  with jax.enable_x64(True):
    yield


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('transform', TRANSFORMS)
def test_equals_lax(case, transform):
  x, y, ours, theirs = operands(case)
  run = TRANSFORMS[transform]
  assert_equal_programs(run, ours, theirs, x, y, case)


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('transform', MAPPED)
def test_mapped_equals_lax(case, transform):
  x, y, ours, theirs = operands(case, members=(3,))
  run = MAPPED[transform]
  assert_equal_programs(run, ours, theirs, x, y, case)


@pytest.mark.parametrize('rule', [None, *conv.BATCHING_RULES])
def test_every_batching_rule_agrees(rule):
  x, y, ours, theirs = operands('grouped', members=(3,))
  with conv.batching_rule(rule):
    for run in (MAPPED['vmap_of_hvp'], MAPPED['kernels_only_grad'], MAPPED['nested']):
      assert_equal_programs(run, ours, theirs, x, y, 'grouped')


def mapped_program(x, y, ours):
  """A new function, so that what was traced under another rule is not taken for it."""
  return jax.jit(lambda x, y: jax.vmap(ours)(x, y)).lower(x, y).as_text()


@pytest.mark.parametrize(
  'options, groups',
  [
    (dict(form='unroll'), [1, 1, 1]),
    (dict(platform='cpu'), [1, 1, 1]),
    (dict(form='group'), [3]),
    (dict(form='lax'), [3]),
    (dict(platform='cuda'), [3]),
    (dict(form='unroll', platform='cuda'), [1, 1, 1]),
  ],
)
def test_the_default_is_stated_and_nothing_is_timed(options, groups):
  x, y, ours, _ = operands('plain', members=(3,))
  before = conv.measured_forms()
  with conv.batching_rule(**options):
    text = mapped_program(x, y, ours)
    found = [int(n) for n in re.findall(r'feature_group_count = (\d+)', text)]
    jaxpr = jax.make_jaxpr(ours)(x[0], y[0])
  assert found == groups
  assert conv.measured_forms() == before
  lax_s_own = options.get('form') == 'lax'
  assert [eqn.primitive is lax.conv_general_dilated_p for eqn in jaxpr.eqns] == [lax_s_own]


def test_a_convolution_keeps_the_rule_it_was_called_under():
  """Later transformations, made where another rule holds, do not change it."""
  x, y, ours, _ = operands('plain', members=(3,))
  with conv.batching_rule('group'):
    grouped = jax.make_jaxpr(ours)(x[0], y[0])
  run = jax.jit(jax.vmap(jax.extend.core.jaxpr_as_fun(grouped)))
  text = run.lower(x, y).as_text()
  assert text.count('stablehlo.convolution') == 1 and 'feature_group_count = 3' in text


def test_rules_and_platforms_by_name():
  assert conv.default_batching_rule('cpu') == 'unroll'
  assert {conv.default_batching_rule(name) for name in ('gpu', 'cuda', 'rocm', 'tpu')} == {'group'}
  with pytest.raises(ValueError, match="form='grouped'; allowed: None, unroll, group"):
    with conv.batching_rule('grouped'):
      pass
  for wrong in (lambda: conv.default_batching_rule('CPU'), lambda: platforms.is_cpu('CPU')):
    with pytest.raises(ValueError, match="platform='CPU'; allowed: cpu, gpu, cuda"):
      wrong()


@pytest.mark.default_flags
def test_unrolled_members_are_bit_identical_to_single_runs():
  x, y, ours, _ = operands('plain', jnp.float32, members=(4,))
  fn = jax.grad(scalar(ours), (0, 1))
  single = jax.jit(fn)
  together = jax.jit(jax.vmap(fn))(x, y)
  for member in range(4):
    one = single(x[member], y[member])
    for a, b in zip(one, together):
      np.testing.assert_array_equal(a, b[member])


@pytest.mark.parametrize(
  'run, convolutions, groups',
  [
    (lambda fn, x, y: jax.vmap(fn)(x, y), 3, 1),
    (lambda fn, x, y: jax.vmap(fn, (None, 0))(x[0], y), 3, 1),
    (lambda fn, x, y: jax.vmap(fn, (0, None))(x, y[0]), 1, 1),
  ],
)
def test_mapped_kernels_unroll_and_mapped_images_fold(run, convolutions, groups):
  x, y, ours, _ = operands('plain', members=(3,))
  lowered = jax.jit(functools.partial(run, ours)).lower(x, y).as_text()
  assert lowered.count('stablehlo.convolution') == convolutions
  assert lowered.count('feature_group_count = 1 ') == convolutions


def test_measured_forms_are_measured_once_and_recorded():
  x, y, ours, theirs = operands('plain', members=(3,))
  before = conv.measured_forms()
  run = lambda: jax.jit(lambda x, y: jax.vmap(ours)(x, y))(x, y)
  with conv.batching_rule('measured'):
    assert_close(run(), jax.vmap(theirs)(x, y), 'plain')
    found = conv.measured_forms()
    run()
  assert conv.measured_forms() == found  # Seconds included: not measured again.
  (key,) = found.keys() - before.keys()
  assert key.target == 'out' and key.mapped == (True, True)
  assert [t.shape for t in key.types] == [x.shape, y.shape]
  assert dict(key.options)['window_strides'] == (1, 1)
  chosen = found[key]
  assert chosen.form == ('unroll' if chosen.unroll_s <= chosen.group_s else 'group')
  assert min(chosen.unroll_s, chosen.group_s) > 0


def test_the_faster_form_is_taken():
  """A function that is slow for one form only, by far."""
  slow = lambda x: jax.lax.fori_loop(0, 2000, lambda _, x: jnp.sin(x), x)
  x = jnp.ones((2, 64))

  @jax.custom_batching.custom_vmap
  def slow_if_grouped(a):
    return a

  slow_if_grouped.def_vmap(lambda size, batched, a: (slow(a), True))

  @jax.custom_batching.custom_vmap
  def slow_if_unrolled(a):
    return slow(a)

  slow_if_unrolled.def_vmap(lambda size, batched, a: (a, True))
  for function, faster in ((slow_if_grouped, 'unroll'), (slow_if_unrolled, 'group')):
    compute = lambda a, b, *, target, function=function: function(a) + b
    params = dict(target=faster)  # Tells the two apart in the record.
    assert measured.fastest_form(compute, compute, (x, x), (0, 0), params) == faster


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16, jnp.float32])
def test_dtypes(dtype):
  x, y, ours, theirs = operands('depthwise', dtype)
  out = ours(x, y)
  assert out.dtype == dtype
  # In float32 the nine products are added in another order; others are left to lax.
  rounding = 9 * np.finfo(np.float32).eps * 8 if dtype == jnp.float32 else 0
  np.testing.assert_allclose(
    out.astype(np.float32), theirs(x, y).astype(np.float32), rtol=0, atol=rounding
  )
  grads = jax.grad(lambda x, y: jnp.sum(ours(x, y)), (0, 1))(x, y)
  assert [g.dtype for g in grads] == [dtype, dtype]


def test_flax_passes_everything_through():
  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 9, 9, 4)), jnp.float32)
  options = dict(strides=2, kernel_dilation=2, feature_group_count=2, padding='SAME')
  ours = nn.Conv(6, (3, 3), conv_general_dilated=conv.conv_general_dilated, **options)
  theirs = nn.Conv(6, (3, 3), **options)
  variables = theirs.init(jax.random.key(0), x)
  np.testing.assert_array_equal(ours.apply(variables, x), theirs.apply(variables, x))


def test_wrong_operands_are_refused():
  x, y, ours, _ = operands('plain')
  with pytest.raises(TypeError):
    ours(x, y.astype(jnp.float32))
  with pytest.raises(ValueError):
    ours(x, y[:, :, :1])
  with pytest.raises(ValueError, match='lhs_dilation'):
    conv.conv_general_dilated(x, y, (1, 1), 'SAME', lhs_dilation=(2, 2), dimension_numbers=NHWC)


def test_the_primitive_is_named_in_the_jaxpr():
  x, y, ours, _ = operands('plain')
  assert [eqn.primitive for eqn in jax.make_jaxpr(ours)(x, y).eqns] == [api.conv_p]


@pytest.mark.skipif(jax.default_backend() != 'cpu', reason='of XLA on a CPU')
def test_convolutions_in_loops_are_laid_out_for_xla():
  """XLA itself does so outside loops alone, and is slow for other layouts."""
  x, w = jnp.ones((2, 8, 8, 12)), jnp.ones((3, 3, 12, 15))

  def loss(x, w):
    y = conv.conv_general_dilated(x, w, (2, 2), 'SAME', dimension_numbers=NHWC)
    return jnp.square(y).sum()

  def steps(x, w):
    return jax.lax.fori_loop(0, 3, lambda _, arrays: jax.grad(loss, (0, 1))(*arrays), (x, w))

  text = jax.jit(steps).lower(x, w).compile().as_text()
  layouts = re.findall(r' convolution\(.*dim_labels=([^,\s]+)', text)
  assert len(layouts) >= 3 and set(layouts) == {'b01f_01io->b01f'}
