"""How a convolution with mapped operands runs: folded, unrolled or grouped."""

import contextlib
import contextvars
import functools
import time
from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnnopt_jax.kernels import backend

FORMS = ('unroll', 'group')
RULES = (None, *FORMS, 'measured', 'lax')

_MEASURED_RUNS = 10
_chosen: contextvars.ContextVar[str | None] = contextvars.ContextVar('conv_rule', default=None)
_measured: dict[tuple, str] = {}


@contextlib.contextmanager
def batching_rule(rule: str | None) -> Iterator[None]:
  """Says how convolutions whose kernels are mapped by `jax.vmap` run, where they are traced inside.

  It acts while a function is traced: a compiled function keeps the rule that it was traced under.

  Args:
    rule: 'unroll', the members one after the other; 'group', one grouped convolution; 'measured',
      the faster of the two for each shape, timed while tracing and recorded (`measured_forms`), so
      that two processes may differ in the last bits; 'lax', no rule of ours: the convolution is
      `jax.lax`'s own, as a contender in benchmarks; None, `default_form` of the platform.

  Raises:
    ValueError: for another name.
  """
  if rule not in RULES:
    raise ValueError(f'{rule=}; allowed: {", ".join(map(repr, RULES))}')
  token = _chosen.set(rule)
  try:
    yield
  finally:
    _chosen.reset(token)


def current_rule() -> str | None:
  """What `batching_rule` says here."""
  return _chosen.get()


def default_form(platform: str | None = None) -> str:
  """The form taken where nobody says which: a fixed choice for each platform.

  XLA's CPU backend has no fast grouped convolution: unrolled members take a training step 3.5 times
  as fast there (`conv_rule_vs_plain_vmap` of experiments/sweep_bench.py). Elsewhere the form is
  XLA's own for a mapped kernel; nothing is known to be faster.

  Args:
    platform: 'cpu', 'gpu', ...; None for JAX's default backend.

  Returns:
    One of `FORMS`.
  """
  return 'unroll' if backend.resolve(platform) == 'cpu' else 'group'


def measured_forms() -> dict[tuple, str]:
  """What the rule 'measured' has chosen in this process.

  Returns:
    The form by (types of the two operands, their mapped axes, target); empty if nothing was timed.
  """
  return {(key[1], key[2], dict(key[3])['target']): form for key, form in _measured.items()}


def batched(
  bind: Callable, compute: Callable, operands: Mapping[str, tuple[str, str]], args, dims, **params
):
  """Batching rule of the convolution primitive in `api.py`.

  Args:
    bind: binds the primitive.
    compute: the same function in terms of lax.
    operands: for each target, the roles of the two operands.
    args: the two operands.
    dims: the mapped axis of each, or None.
    **params: of the primitive.

  Returns:
    The result and its mapped axis.
  """
  target = params['target']
  mapped = [role for role, dim in zip(operands[target], dims) if dim is not None]
  batch_roles = {'out': ['lhs'], 'lhs': ['out']}
  if mapped == batch_roles.get(target) and params['batch_group_count'] == 1:
    return _folded(bind, args, dims, mapped[0], **params)
  args = [x if dim is None else jnp.moveaxis(x, dim, 0) for x, dim in zip(args, dims)]
  axes = tuple(None if dim is None else 0 for dim in dims)
  members = next(x.shape[0] for x, axis in zip(args, axes) if axis == 0)
  if _form(compute, args, axes, params) == 'group':
    return jax.vmap(functools.partial(compute, **params), in_axes=axes)(*args), 0
  outs = [
    bind(
      *(
        x if axis is None else lax.index_in_dim(x, member, keepdims=False)
        for x, axis in zip(args, axes)
      ),
      **params,
    )
    for member in range(members)
  ]
  return jnp.stack(outs), 0


def _folded(bind, args, dims, role: str, *, target: str, lhs_type, dimension_numbers, **params):
  """Members as more images: one convolution with the kernel that they share."""
  batch_axis = {'lhs': dimension_numbers.lhs_spec[0], 'out': dimension_numbers.out_spec[0]}
  position = 0 if dims[0] is not None else 1
  x = jnp.moveaxis(args[position], dims[position], batch_axis[role])
  members = x.shape[batch_axis[role]]
  shape = list(x.shape)
  shape[batch_axis[role] : batch_axis[role] + 2] = [-1]
  args = list(args)
  args[position] = x.reshape(shape)
  many = list(lhs_type.shape)
  many[batch_axis['lhs']] *= members
  out = bind(
    *args,
    target=target,
    lhs_type=jax.ShapeDtypeStruct(tuple(many), lhs_type.dtype),
    dimension_numbers=dimension_numbers,
    **params,
  )
  axis = batch_axis[target]
  return out.reshape(*out.shape[:axis], members, -1, *out.shape[axis + 1 :]), axis


def _form(compute: Callable, args, axes, params) -> str:
  """The form that the rule in force gives for these operands."""
  rule = _chosen.get() or default_form()
  if rule == 'lax':  # Bound outside the context, batched inside: what lax would have done.
    return 'group'
  if rule != 'measured':
    return rule
  types = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in args)
  key = compute, types, tuple(axes), tuple(sorted(params.items(), key=str))
  if key not in _measured:
    _measured[key] = _faster_form(*key)
  return _measured[key]


def _faster_form(compute, types, axes, params) -> str:
  one = functools.partial(compute, **dict(params))
  members = next(t.shape[0] for t, axis in zip(types, axes) if axis == 0)

  def unrolled(*args):
    return jnp.stack(
      [one(*(x if axis is None else x[m] for x, axis in zip(args, axes))) for m in range(members)]
    )

  seconds = {}
  # This runs while a caller is being traced: step out of the trace to execute.
  with jax.ensure_compile_time_eval():
    args = [jnp.zeros(t.shape, t.dtype) for t in types]
    for form, fn in (('unroll', unrolled), ('group', jax.vmap(one, in_axes=axes))):
      fn = jax.jit(fn)
      jax.block_until_ready(fn(*args))
      runs = []
      for _ in range(_MEASURED_RUNS):
        start = time.perf_counter()
        jax.block_until_ready(fn(*args))
        runs.append(time.perf_counter() - start)
      seconds[form] = np.median(runs)
  return min(seconds, key=seconds.get)
