"""How a convolution with mapped operands runs: folded, unrolled or grouped."""

import functools
import time
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

FORMS = ('unroll', 'group')

# XLA's CPU backend has no fast grouped convolution: unrolled members take a training step 3.5 times
# as fast there (`conv_rule_vs_plain_vmap` of experiments/sweep_bench.py). Other platforms are
# measured.
_KNOWN_FORMS = {'cpu': 'unroll'}
_MEASURED_RUNS = 10


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
  if fastest_form(jax.default_backend(), compute, args, axes, params) == 'group':
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


def fastest_form(platform: str, compute: Callable, args, axes, params) -> str:
  """The faster of `FORMS` for these shapes: known for a CPU, measured elsewhere, once a process.

  A measured choice can differ between two processes, and with it the last bits of the result.

  Args:
    platform: as `jax.default_backend()` names it.
    compute: function of two arrays and `params`.
    args: operands, or anything with their shape and dtype; members on axis 0 where mapped.
    axes: 0 or None for each operand.
    params: static keyword arguments of `compute`.

  Returns:
    'unroll' or 'group'.
  """
  if platform in _KNOWN_FORMS:
    return _KNOWN_FORMS[platform]
  types = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in args)
  return _measured_form(compute, types, tuple(axes), tuple(sorted(params.items(), key=str)))


@functools.cache
def _measured_form(compute, types, axes, params) -> str:
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
