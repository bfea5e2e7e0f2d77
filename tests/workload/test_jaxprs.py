"""Equations and abstract values through programs within programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cnnopt_jax.workload import jaxprs

X = jax.ShapeDtypeStruct((3,), jnp.float32)


def _names(program):
  return [(eqn.primitive.name, scopes) for eqn, scopes in jaxprs.equations(program)]


def test_equations_have_the_scopes_around_the_programs_that_hold_them():
  @jax.jit
  def inner(x):
    with jax.named_scope('inner'):
      return jnp.sin(x)

  def outer(x):
    with jax.named_scope('outer'):
      return jnp.cos(inner(x))

  found = _names(jax.make_jaxpr(outer)(X))
  assert found == [('jit', ('outer',)), ('sin', ('outer', 'inner')), ('cos', ('outer',))]


def test_equations_of_loops_and_branches_are_listed_once():
  def f(x):
    x, _ = lax.scan(lambda c, _: (jnp.sin(c), None), x, None, 5)
    x = lax.while_loop(lambda c: c[0] < 1, jnp.cos, x)
    return lax.cond(x[0] > 0, jnp.tan, jnp.tanh, x)

  names = [name for name, _ in _names(jax.make_jaxpr(f)(X))]
  for name in ('scan', 'sin', 'while', 'cos', 'cond', 'tan', 'tanh'):
    assert names.count(name) == 1, name
  assert names.index('scan') < names.index('sin') < names.index('while')


def test_inner_programs():
  program = jax.make_jaxpr(lambda x: lax.cond(x[0] > 0, jnp.tan, jnp.tanh, x))(X)
  of = {eqn.primitive.name: jaxprs.inner_programs(eqn) for eqn, _ in jaxprs.equations(program)}
  assert len(of['cond']) == 2 and of['tan'] == []
  assert all(jaxprs.opened(inner).eqns for inner in of['cond'])


@pytest.mark.parametrize('wrap', [lambda f: f, jax.jit, jax.checkpoint, jax.named_call])
def test_interpret_runs_calls_in_place(wrap):
  """With real numbers for values it is JAX's own evaluation."""
  table = np.arange(3, dtype=np.float32)  # A constant of the program, no literal.

  @wrap
  def f(x, y):
    return jnp.sin(x) * table + 2.0, x - y

  names = []

  def evaluate(eqn, operands, scopes):
    names.append(eqn.primitive.name)
    results = eqn.primitive.bind(*operands, **eqn.params)
    return results if eqn.primitive.multiple_results else [results]

  x, y = jnp.array([1.0, 2.0, 3.0]), jnp.array([4.0, 5.0, 6.0])
  closed = jax.make_jaxpr(f)(x, y)
  constants = dict(zip(closed.jaxpr.constvars, closed.consts))

  def constant(atom):
    return atom.val if hasattr(atom, 'val') else constants.get(atom, table)

  found = jaxprs.interpret(closed, [x, y], evaluate, constant=constant)
  for a, b in zip(found, f(x, y), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-6)
  assert not set(names) & {'jit', 'remat2', 'closed_call'}


def test_interpret_wants_a_value_for_every_input():
  program = jax.make_jaxpr(lambda x, y: x + y)(X, X)
  with pytest.raises(ValueError, match='zip'):
    jaxprs.interpret(program, [0], lambda *_: [0], constant=lambda _: 0)
