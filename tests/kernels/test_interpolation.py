"""The XLA forms of the interpolation ops: values, derivatives, batching, refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.test_util import check_grads

from cnnopt_jax.kernels import linear
from cnnopt_jax.kernels.border_pad import border_pad
from cnnopt_jax.kernels.interp2x import interp2x
from cnnopt_jax.kernels.interp2x_add_relu import interp2x_add_relu
from cnnopt_jax.kernels.interp2x_max_pool import interp2x_max_pool
from tests.kernels.interpolation import OPS, operands

SIZES = [(6, 8), (5, 7), (4, 3), (1, 2), (2, 1), (1, 1)]
# bfloat16 rounds once, to 8 bits; float32 adds up to four terms and rounds each time.
TOLERANCE = {'bfloat16': 2.0**-8, 'float32': 2.0**-21, 'float64': 2.0**-50}


@pytest.fixture(autouse=True)
def x64():
  with jax.enable_x64(True):
    yield


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('name', OPS)
def test_equals_brute_force(name, dtype):
  op, brute_force, _ = OPS[name]
  for size in SIZES:
    arrays = operands(name, 2, size, 3, dtype)
    out = jax.jit(functools.partial(op, size=size))(*arrays)
    assert out.dtype == dtype
    expected = brute_force(*(a.astype(np.float64) for a in arrays), size)
    np.testing.assert_allclose(
      out.astype(np.float64), expected, TOLERANCE[dtype], TOLERANCE[dtype], err_msg=f'{size}'
    )


def test_is_not_half_pixel_resizing():
  x = jnp.arange(4.0).reshape(1, 2, 2, 1)
  np.testing.assert_array_equal(
    interp2x(x, (4, 4))[0, :, :, 0],
    [[0, 0.5, 1, 1], [1, 1.5, 2, 2], [2, 2.5, 3, 3], [2, 2.5, 3, 3]],
  )
  assert not np.allclose(interp2x(x, (4, 4)), jax.image.resize(x, (1, 4, 4, 1), 'linear'))


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('op', [interp2x, border_pad])
def test_transpose_is_the_adjoint(op, size):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, *(-(-n // 2) for n in size), 3))
  y, pull = jax.vjp(functools.partial(op, size=size), jnp.asarray(x))
  cotangent = rng.normal(size=y.shape)
  np.testing.assert_allclose(
    np.vdot(y, cotangent), np.vdot(x, pull(jnp.asarray(cotangent))[0]), rtol=1e-13
  )


@pytest.mark.parametrize('size', [(6, 8), (5, 7), (5, 8)])
def test_gradients_equal_those_of_materialised_ops(size):
  """Where samples are zero, values tie; the first of the window takes the gradient."""
  full = functools.partial(interp2x, size=size)
  plain = {
    'max_pool': lambda x: nn.max_pool(full(x), (2, 2), (2, 2)),
    'add_relu': lambda x, y: jax.nn.relu(full(x) + full(y)),
    'add_relu_map': lambda x, y: jax.nn.relu(full(x) + y),
  }
  for name, reference in plain.items():
    arrays = [jnp.asarray(a) for a in operands(name, 2, size, 3, 'float64')]
    loss = lambda fn, *a: jnp.sum(
      jnp.sin(1 + jnp.arange(fn(*a).size).reshape(fn(*a).shape)) * fn(*a)
    )
    every = tuple(range(len(arrays)))
    ours = jax.grad(functools.partial(loss, functools.partial(OPS[name][0], size=size)), every)
    theirs = jax.grad(functools.partial(loss, reference), every)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-14),
      jax.jit(ours)(*arrays),
      jax.jit(theirs)(*arrays),
    )


@pytest.mark.parametrize('size', [(4, 6), (5, 3)])
@pytest.mark.parametrize('name', OPS)
def test_forward_and_reverse_mode_to_second_order(name, size):
  op, _, kinds = OPS[name]
  rng = np.random.default_rng(1)
  shapes = {'s': tuple(-(-n // 2) for n in size), 'm': size}
  arrays = [rng.normal(size=(1, *shapes[kind], 2)) for kind in kinds]
  check_grads(
    lambda *a: jnp.sin(op(*a, size=size)), arrays, order=2, eps=1e-6, atol=1e-4, rtol=1e-4
  )


@pytest.mark.parametrize('size', [(6, 4), (5, 7)])
def test_border_pad_makes_the_folded_convolution_exact(size):
  rng = np.random.default_rng(2)
  x = jnp.asarray(rng.normal(size=(2, *(-(-n // 2) for n in size), 3)))
  kernel = rng.normal(size=(3, 3, 3, 4))
  fold = np.array([[0.5, 0.5, 0], [0, 1, 0], [0, 0.5, 0.5]])
  folded = np.einsum('ai,bj,abcd->ijcd', fold, fold, kernel)
  conv = functools.partial(jax.lax.conv_general_dilated, dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  np.testing.assert_allclose(
    conv(border_pad(x, size), folded, (1, 1), 'VALID'),
    conv(interp2x(x, size), kernel, (2, 2), ((1, 1), (1, 1))),
    atol=1e-13,
  )


@pytest.mark.parametrize('name', OPS)
def test_vmap_joins_the_batch(name):
  op = functools.partial(OPS[name][0], size=(5, 6))
  members = [operands(name, 2, (5, 6), 3, 'float64', seed) for seed in range(3)]
  stacked = [jnp.stack(arrays, 1) for arrays in zip(*members)]
  mapped = jax.vmap(jax.value_and_grad(lambda *a: jnp.sum(op(*a) ** 2)), 1)
  values, gradients = mapped(*stacked)
  for i, arrays in enumerate(members):
    value, gradient = jax.value_and_grad(lambda *a: jnp.sum(op(*a) ** 2))(*map(jnp.asarray, arrays))
    np.testing.assert_allclose(values[i], value)
    np.testing.assert_allclose(gradients[i], gradient)
  calls = [
    eqn
    for eqn in equations(jax.make_jaxpr(jax.vmap(op, 1))(*stacked).jaxpr)
    if eqn.primitive in (linear.linear_p, linear.call_p)
  ]
  assert [eqn.invars[0].aval.shape[0] for eqn in calls] == [6]
  shared = jax.vmap(op, (1,) + (None,) * (len(stacked) - 1))(stacked[0], *members[0][1:])
  np.testing.assert_allclose(shared[0], op(*members[0]))


def equations(jaxpr):
  """All equations, those of nested programs included."""
  for eqn in jaxpr.eqns:
    yield eqn
    for value in eqn.params.values():
      inner = getattr(value, 'jaxpr', value)
      if hasattr(inner, 'eqns'):
        yield from equations(inner)


@pytest.mark.parametrize('a_virtual', [True, False])
def test_operands_of_the_sum_may_swap(a_virtual):
  x, y = operands('add_relu_map', 2, (5, 6), 3)
  a, b = (x, y) if a_virtual else (y, x)
  np.testing.assert_array_equal(
    interp2x_add_relu(a, b, (5, 6), a_virtual=a_virtual, b_virtual=not a_virtual),
    interp2x_add_relu(x, y, (5, 6), b_virtual=False),
  )
  np.testing.assert_array_equal(
    interp2x_add_relu(y, -2 * y, (5, 6), a_virtual=False, b_virtual=False), np.maximum(-y, 0)
  )


def test_a_nan_shows():
  x = np.zeros((1, 3, 3, 1), np.float32)
  x[0, 1, 1] = np.nan
  out = interp2x_max_pool(jnp.asarray(x), (6, 6))[0, :, :, 0]
  np.testing.assert_array_equal(np.isnan(out), [[1, 1, 0], [1, 1, 0], [0, 0, 0]])


@pytest.mark.parametrize(
  'call, words',
  [
    (lambda x: interp2x(x, (4, 5)), 'samples.shape=.*allowed: .N, 2, 3, C.'),
    (lambda x: interp2x(x, (0, 4)), r'size=\(0, 4\); allowed'),
    (lambda x: interp2x(x[0], (4, 4)), 'samples is float32.*allowed: floating'),
    (lambda x: border_pad(x.astype(int), (4, 4)), 'samples is int'),
    (lambda x: interp2x(x, (4, 4), implementation='triton'), "implementation='triton'; allowed"),
    (lambda x: interp2x_add_relu(x, x, (4, 4), b_virtual=False), 'b.shape=.*allowed: .N, 4, 4, C.'),
    (lambda x: interp2x_add_relu(x, x[:1], (4, 4)), 'allowed: one type, one batch size'),
  ],
)
def test_bad_arguments_are_named(call, words):
  with pytest.raises(ValueError, match=words):
    call(jnp.zeros((2, 2, 2, 16), jnp.float32))
