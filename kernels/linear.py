"""Primitives for ops written by hand in both directions, that fold `jax.vmap` into the batch.

`apply` is for functions that are linear in some operands and given with their transpose: forward
mode, reverse mode and any nesting of them follow, so no op built on it gives one of them up, as a
`jax.custom_vjp` would. `call` is for the others, which pair it with `jax.custom_jvp`. Every array
of both has the batch first.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import ad, batching, mlir

from cnnopt_jax.kernels import sharding


class Linear(NamedTuple):
  """A function that is linear in its first operands, and its transpose.

  Attributes:
    forward: `(*operands, *residuals, **static) -> tuple of results`.
    transpose: `(*cotangents of the results, *residuals, **static) -> tuple of cotangents of the
      operands`.
  """

  forward: Callable[..., tuple[jax.Array, ...]]
  transpose: Callable[..., tuple[jax.Array, ...]]


linear_p = core.Primitive('cnnopt_linear')
call_p = core.Primitive('cnnopt_call')


def apply(
  op: Linear, operands: tuple[jax.Array, ...], residuals: tuple[jax.Array, ...] = (), **static: Any
) -> tuple[jax.Array, ...]:
  """`op.forward(*operands, *residuals, **static)`, differentiable in the operands.

  Args:
    op: named at module level, so that it is the same object in every call.
    operands: arrays `[N, ...]` that the function is linear in.
    residuals: arrays `[N, ...]` held constant: no derivative goes to them.
    **static: hashable options of both directions.

  Returns:
    The results, `[N, ...]` each.
  """
  residuals = tuple(jax.lax.stop_gradient(r) for r in residuals)
  return tuple(
    linear_p.bind(
      *sharding.alike(*operands, *residuals),
      op=op,
      linear=len(operands),
      static=tuple(sorted(static.items())),
    )
  )


def call(
  function: Callable[..., tuple[jax.Array, ...]], *operands: jax.Array, **static: Any
) -> tuple[jax.Array, ...]:
  """`function(*operands, **static)` with the folding of `apply` and no derivative."""
  return tuple(
    call_p.bind(*sharding.alike(*operands), function=function, static=tuple(sorted(static.items())))
  )


def _compute_linear(*args, op: Linear, linear: int, static):
  return _varying_as(args, op.forward(*args, **dict(static)))


def _compute_call(*args, function, static):
  return _varying_as(args, function(*args, **dict(static)))


def _varying_as(args, outs):
  """Results marked as the operands are, which a kernel does not do."""
  return sharding.alike(*outs, args[0])[:-1]


@functools.cache
def _compiled(compute, **params):
  return jax.jit(functools.partial(compute, **params))


def _abstract_eval(compute, *args, **params):
  program = jax.make_jaxpr(functools.partial(compute, **params))(*args)
  # Effects are those of an interpreted kernel, whose callbacks come in order.
  return program.out_avals, program.effects


def _jvp(primals, tangents, *, linear: int, **params):
  if any(type(t) is not ad.Zero for t in tangents[linear:]):
    raise NotImplementedError('cnnopt_linear: its residuals have no derivative')
  bind = functools.partial(linear_p.bind, linear=linear, **params)
  tangents = [ad.instantiate_zeros(t) for t in tangents[:linear]]
  return bind(*primals), bind(*tangents, *primals[linear:])


def _transpose(cotangents, *args, op: Linear, linear: int, static):
  residuals = args[linear:]
  if all(type(ct) is ad.Zero for ct in cotangents):
    return [ad.Zero(x.aval) for x in args[:linear]] + [None] * len(residuals)
  cotangents = [ad.instantiate_zeros(ct) for ct in cotangents]
  outs = linear_p.bind(
    *cotangents,
    *residuals,
    op=Linear(op.transpose, op.forward),
    linear=len(cotangents),
    static=static,
  )
  return list(outs) + [None] * len(residuals)


def _batched(primitive, args, dims, **params):
  """The mapped axis joins the batch: one call, whatever the number of members."""
  members = next(x.shape[dim] for x, dim in zip(args, dims) if dim is not None)
  folded = []
  for x, dim in zip(args, dims):
    x = jnp.broadcast_to(x, (members, *x.shape)) if dim is None else jnp.moveaxis(x, dim, 0)
    folded.append(x.reshape(members * x.shape[1], *x.shape[2:]))
  outs = primitive.bind(*folded, **params)
  outs = [out.reshape(members, out.shape[0] // members, *out.shape[1:]) for out in outs]
  return outs, [0] * len(outs)


for _primitive, _compute in ((linear_p, _compute_linear), (call_p, _compute_call)):
  _primitive.multiple_results = True
  _primitive.def_impl(
    lambda *args, _compute=_compute, **params: _compiled(_compute, **params)(*args)
  )
  _primitive.def_effectful_abstract_eval(functools.partial(_abstract_eval, _compute))
  mlir.register_lowering(_primitive, mlir.lower_fun(_compute, multiple_results=True))
  batching.primitive_batchers[_primitive] = functools.partial(_batched, _primitive)
ad.primitive_jvps[linear_p] = _jvp
ad.primitive_transposes[linear_p] = _transpose
