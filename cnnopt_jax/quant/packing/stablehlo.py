"""Networks with packed weights as StableHLO programs, which JAX runs without this library."""

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import export as jax_export
from jax import lax

from cnnopt_jax.quant.packing.params import PackedParams, unpack


def export(
  apply: Callable[..., Any],
  packed: PackedParams,
  example_inputs: Sequence[Any],
  *,
  platforms: Sequence[str] | None = None,
) -> bytes:
  """Serializes a network together with its packed weights.

  The program holds codes and steps as constants and unpacks them each time it runs:

      jax.export.deserialize(bytearray(serialized)).call(*inputs)

  Args:
    apply: the network, `apply(params, *inputs)`, of what `jax.export` can export.
    packed: its parameters.
    example_inputs: one tree of arrays or `jax.ShapeDtypeStruct` for each input: only shapes and
      types count, and shapes may be symbolic (`jax.export.symbolic_shape`).
    platforms: 'cpu', 'cuda', ... that it is to run on; None for the one at hand.

  Returns:
    The serialized program.

  Raises:
    ImportError: if `flatbuffers`, which JAX needs for it, is not installed.
  """
  if importlib.util.find_spec('flatbuffers') is None:
    raise ImportError("jax.export needs flatbuffers; pip install 'cnnopt-jax[export]'")

  def program(*inputs):
    # Without the first barrier the compiler may unpack constants into the compiled program, without
    # the second it may merge unpacking with the network and round otherwise.
    params = lax.optimization_barrier(unpack(lax.optimization_barrier(packed)))
    return apply(params, *inputs)

  specs = jax.tree.map(_spec, tuple(example_inputs))
  return bytes(jax_export.export(jax.jit(program), platforms=platforms)(*specs).serialize())


def _spec(x: Any) -> jax.ShapeDtypeStruct:
  if isinstance(x, jax.ShapeDtypeStruct):
    return x
  x = jnp.asarray(x)
  return jax.ShapeDtypeStruct(x.shape, x.dtype)
