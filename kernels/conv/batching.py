"""How a convolution with mapped operands runs: folded, unrolled or grouped."""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax import lax

from cnnopt_jax.kernels.conv import measured


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
    **params: of the primitive; 'rule' is 'unroll', 'group' or 'measured'.

  Returns:
    The result and its mapped axis.
  """
  target = params['target']
  mapped = [role for role, dim in zip(operands[target], dims) if dim is not None]
  batch_roles = {'out': ['lhs'], 'lhs': ['out']}
  # Whatever the rule: members that share a kernel are more images of one convolution.
  if mapped == batch_roles.get(target) and params['batch_group_count'] == 1:
    return _folded(bind, args, dims, mapped[0], **params)
  args = [x if dim is None else jnp.moveaxis(x, dim, 0) for x, dim in zip(args, dims)]
  axes = tuple(None if dim is None else 0 for dim in dims)
  form = params['rule']
  if form == 'measured':
    form = measured.fastest_form(bind, compute, args, axes, params)
  if form == 'group':
    return jax.vmap(functools.partial(compute, **params), in_axes=axes)(*args), 0
  return _unrolled(functools.partial(bind, **params), args, axes), 0


def _unrolled(bind, args, axes):
  """The members one after the other, stacked."""
  members = next(x.shape[0] for x, axis in zip(args, axes) if axis == 0)
  outs = [
    bind(
      *(
        x if axis is None else lax.index_in_dim(x, member, keepdims=False)
        for x, axis in zip(args, axes)
      )
    )
    for member in range(members)
  ]
  return jnp.stack(outs)


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
