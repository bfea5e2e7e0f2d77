"""Quantization of whole parameter pytrees, with the layers named by path."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from cnnopt_jax.quant import quantizers
from cnnopt_jax.quant.gaussian import IDENTITY_BITS
from cnnopt_jax.workload import path_string

Params = Any
BitsTree = Any


class Rule(NamedTuple):
  """What happens to the parameters whose path matches.

  Attributes:
    pattern: regular expression, searched for in the leaf's path, such as 'Conv_0/kernel'.
    output_axes: axes that keep a quantization step of their own, () for one step per tensor, or
      `LEAVE_ALONE`.
    bits: bitwidth of these leaves whatever the call says; None for the call's.
  """

  pattern: str
  output_axes: int | tuple[int, ...] | None
  bits: int | None = None


LEAVE_ALONE = None

# Flax stores convolution and dense kernels with the output features last: [H, W, I, O], [I, O].
DEFAULT_RULES = (Rule(r'(^|/)kernel$', -1),)


def quantize_params(
  params: Params, bits: BitsTree, *, rules: Sequence[Rule] = DEFAULT_RULES, **options
) -> Params:
  """Applies `fake_quantize` to the leaves of a parameter pytree that `rules` name.

      model.apply({'params': quantize_params(params, bits)}, x)

  The first rule whose pattern is found in a leaf's path decides; a leaf that no rule matches, and
  whatever is not a floating-point array, passes through.

  Args:
    params: any pytree of arrays (Flax linen or nnx, Equinox, Haiku, a dict).
    bits: one bitwidth, or a pytree of them: of the structure of `params` or a prefix of it; None
      leaves its subtree in float. Ints, or scalar arrays that may be traced.
    rules: in order of precedence.
    **options: `levels`, `step`, `clip_gradient` of `fake_quantize`.

  Returns:
    A pytree like `params`.

  Raises:
    ValueError: if a rule matches no leaf, its axes do not fit a leaf, or an option or a Python int
      among the bits is not allowed.
  """
  quantized = [
    leaf if rule is None else _quantize_leaf(path, leaf, rule, leaf_bits, options)
    for path, leaf, rule, leaf_bits in _ruled_leaves(params, bits, rules)
  ]
  return jax.tree.unflatten(jax.tree.structure(params), quantized)


class Quantizer(NamedTuple):
  """How the weights of every member are quantized; the bitwidth is the member's.

  A member of 32 bits is float throughout: bitwidths that a rule fixes do not apply to it.

  Attributes:
    rules: of `quantize_params`.
    levels: of `fake_quantize`.
    step: of `fake_quantize`.
    clip_gradient: of `fake_quantize`.
  """

  rules: tuple[Rule, ...] = DEFAULT_RULES
  levels: str = 'auto'
  step: str = 'gaussian'
  clip_gradient: bool = False

  def __call__(self, params: Any, bits: chex.Numeric | None) -> Any:
    """The parameters that the network computes with at `bits` bits, a scalar; None for float."""
    if bits is None:
      return params
    quantized = quantize_params(
      params,
      bits,
      rules=self.rules,
      levels=self.levels,
      step=self.step,
      clip_gradient=self.clip_gradient,
    )
    if all(rule.bits is None for rule in self.rules):
      return quantized
    return jax.tree.map(lambda p, q: jnp.where(bits == IDENTITY_BITS, p, q), params, quantized)

  def leaf_bits(self, params: Any, bits: int) -> dict[str, chex.Numeric]:
    """The bitwidth of each leaf of a member of `bits` bits, by path: what `model_size` reads."""
    found = bits_by_path(params, bits, rules=self.rules)
    return dict.fromkeys(found, IDENTITY_BITS) if bits == IDENTITY_BITS else found


def bits_by_path(
  params: Params, bits: BitsTree, *, rules: Sequence[Rule] = DEFAULT_RULES
) -> dict[str, chex.Numeric]:
  """The bitwidth that `quantize_params` gives each leaf, by path; 32 for those left in float.

  Args:
    params: as in `quantize_params`; abstract leaves (`jax.ShapeDtypeStruct`) will do.
    bits: as in `quantize_params`.
    rules: as in `quantize_params`.

  Returns:
    A dict from path to bitwidth, one entry a leaf: what `model_size` reads.

  Raises:
    ValueError: if a rule matches no leaf.
  """
  return {
    path: IDENTITY_BITS if rule is None else leaf_bits
    for path, _, rule, leaf_bits in _ruled_leaves(params, bits, rules)
  }


def _ruled_leaves(params, bits, rules) -> Iterator[tuple[str, Any, Rule | None, Any]]:
  """Yields (path, leaf, rule or None for float, bits) in the order of `jax.tree.leaves`."""
  leaves = [
    (path_string(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]
  ]
  unused = [
    rule.pattern for rule in rules if not any(re.search(rule.pattern, path) for path, _ in leaves)
  ]
  if unused:
    raise ValueError(
      f'rule {unused[0]!r} matches no parameter; the paths are: '
      + ', '.join(path for path, _ in leaves)
    )
  for (path, leaf), leaf_bits in zip(leaves, _broadcast(bits, params)):
    rule = next((rule for rule in rules if re.search(rule.pattern, path)), None)
    if rule is not None and rule.bits is not None:
      leaf_bits = rule.bits
    is_float = hasattr(leaf, 'dtype') and jnp.issubdtype(leaf.dtype, jnp.floating)
    left = rule is None or rule.output_axes is LEAVE_ALONE or leaf_bits is None or not is_float
    yield path, leaf, None if left else rule, leaf_bits


def _broadcast(bits: BitsTree, params: Params) -> list[Any]:
  """One bitwidth for each leaf of `params`."""
  spread: list[Any] = []

  def repeat(leaf_bits, subtree):
    spread.extend([leaf_bits] * len(jax.tree.leaves(subtree)))

  # None is a bitwidth here, not an empty tree.
  jax.tree.map(repeat, bits, params, is_leaf=lambda leaf_bits: leaf_bits is None)
  return spread


def _quantize_leaf(path, leaf, rule: Rule, bits, options) -> jax.Array:
  try:
    return quantizers.fake_quantize(leaf, bits, channel_axis=rule.output_axes, **options)
  except ValueError as error:
    raise ValueError(f'{path} {leaf.shape}: {error}') from None
