"""The batching rule 'measured': times both forms of a mapped convolution, and keeps a record."""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_RUNS = 10


class MappedConv(NamedTuple):
  """A convolution, or a transpose of one, with operands mapped over members.

  Attributes:
    target: 'out', 'lhs' or 'rhs': what is computed, see `api.py`.
    types: shape and dtype of both operands; where mapped, the members are axis 0.
    mapped: whether each operand is mapped.
    options: strides, padding and all else that lax's convolution takes, as sorted pairs.
  """

  target: str
  types: tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]
  mapped: tuple[bool, bool]
  options: tuple[tuple[str, Any], ...]


class MeasuredForm(NamedTuple):
  """What was measured for a `MappedConv`.

  Attributes:
    form: 'unroll' or 'group', the faster.
    unroll_s: median seconds of the members one after the other.
    group_s: median seconds of the grouped convolution.
  """

  form: str
  unroll_s: float
  group_s: float


_record: dict[MappedConv, MeasuredForm] = {}


def measured_forms() -> dict[MappedConv, MeasuredForm]:
  """What the rule 'measured' has chosen in this process so far, in the order it was asked."""
  return dict(_record)


def fastest_form(
  bind: Callable[..., jax.Array],
  compute: Callable[..., jax.Array],
  args,
  axes,
  params: dict[str, Any],
) -> str:
  """The faster form for these shapes, measured on the default device once a process.

  A measured choice can differ between two processes, and with it the last bits of the result.

  Args:
    bind: function of two arrays and `params`, what each member is computed by.
    compute: the same function in terms of lax, which has a batching rule that groups.
    args: operands, or anything with their shape and dtype; members on axis 0 where mapped.
    axes: 0 or None for each operand.
    params: static keyword arguments of both, 'target' among them.

  Returns:
    'unroll' or 'group'.
  """
  x, y = args
  options = {name: value for name, value in params.items() if name != 'target'}
  key = MappedConv(
    params['target'],
    (jax.ShapeDtypeStruct(x.shape, x.dtype), jax.ShapeDtypeStruct(y.shape, y.dtype)),
    tuple(axis == 0 for axis in axes),
    tuple(sorted(options.items())),
  )
  if key not in _record:
    _record[key] = _measure(
      functools.partial(bind, **params),
      functools.partial(compute, **params),
      key.types,
      tuple(axes),
    )
  return _record[key].form


def _measure(one, groupable, types, axes) -> MeasuredForm:
  members = next(t.shape[0] for t, axis in zip(types, axes) if axis == 0)

  def unrolled(*args):
    return jnp.stack(
      [one(*(x if axis is None else x[m] for x, axis in zip(args, axes))) for m in range(members)]
    )

  # This runs while a caller is being traced: step out of the trace to execute.
  with jax.ensure_compile_time_eval():
    args = [jnp.zeros(t.shape, t.dtype) for t in types]
    unroll_s = _median_seconds(jax.jit(unrolled), args)
    group_s = _median_seconds(jax.jit(jax.vmap(groupable, in_axes=axes)), args)
  return MeasuredForm('unroll' if unroll_s <= group_s else 'group', unroll_s, group_s)


def _median_seconds(fn, args) -> float:
  jax.block_until_ready(fn(*args))  # Compiles.
  seconds = []
  for _ in range(_RUNS):
    start = time.perf_counter()
    jax.block_until_ready(fn(*args))
    seconds.append(time.perf_counter() - start)
  return float(np.median(seconds))
