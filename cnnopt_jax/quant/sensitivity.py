"""What each layer's weights at each bitwidth cost a network: three estimates, from dear to cheap.

`loss_change` quantizes one leaf at a time and runs the network. `first_order_sensitivity` and
`hessian_sensitivity` are terms of the loss's Taylor series at the float weights w. With
e = Q(w, b) - w and the gradient g and Hessian H of the loss,

    loss(w + e) - loss(w) = <g, e> + <e, H e> / 2 + ...

All are in units of the loss, and so may be compared, added, and handed to `allocate`. `loss` is any
JAX function of a parameter tree: `loss(params)`, or `loss(params, batch)` where batches are given,
whose mean over batches is meant. Each call compiles one program, of which the bitwidth is data.

Three arguments are the same throughout. `plan` says how a leaf is quantized. `paths` names leaves
as `path_string` writes them; None stands for those that the plan quantizes at no fixed bitwidth.
`batches` is a pytree of arrays [N, ...] that hold N batches; None for a loss of `params` alone.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnnopt_jax.quant import quantizers, tree
from cnnopt_jax.quant.gaussian import IDENTITY_BITS
from cnnopt_jax.quant.plan import WeightPlan
from cnnopt_jax.workload import path_string, refuse_prepared

Params = Any
Batches = Any
Loss = Callable[..., jax.Array]
Put = Callable[[Sequence[jax.Array]], Params]


class BitwidthCosts(NamedTuple):
  """What each of L leaves costs at each of B bitwidths while all others stay in float.

  Attributes:
    paths: of the leaves, [L].
    bits: the bitwidths, [B].
    values: costs in units of the loss, [L, B]; may be negative.
    errors: their standard errors, [L, B], of what each function says; None where there are none.
  """

  paths: tuple[str, ...]
  bits: tuple[int, ...]
  values: jax.Array
  errors: jax.Array | None


class HessianTraces(NamedTuple):
  """Estimated traces of the diagonal blocks of a loss's Hessian, a block for each of L leaves.

  Attributes:
    paths: of the leaves, [L].
    sizes: number of elements of each leaf, [L].
    traces: sum of the second derivatives of the loss by each element, loss per squared weight, [L].
    errors: standard errors over probes, [L]; of the given data, not of a population of it.
  """

  paths: tuple[str, ...]
  sizes: tuple[int, ...]
  traces: jax.Array
  errors: jax.Array


def losses_at_bits(
  loss: Loss,
  params: Params,
  plan: WeightPlan,
  bits: Any,
  *,
  paths: Sequence[str] | None = None,
  batches: Batches = None,
  at_once: int = 1,
) -> jax.Array:
  """The loss, or any other figure such as an accuracy, at given bitwidths of each leaf.

      accuracies = jax.jit(lambda bits: losses_at_bits(accuracy, params, plan, bits).mean(1))
      fewest_bits(accuracies, sizes, (2, 3, 4, 6, 8), 0.0)

  Args:
    loss: see the module.
    params: the weights.
    plan: see the module.
    bits: ints [C, L], a bitwidth for each of L leaves in each of C candidates; traced or not. One
      that is not allowed gives NaN.
    paths: see the module. All other leaves stay in float.
    batches: see the module.
    at_once: candidates computed side by side; memory grows with it. One at a time also skips the
      quantizer of leaves at 32 bits.

  Returns:
    The loss of each candidate on each batch, [C, N]; [C, 1] without batches.

  Raises:
    ValueError: if a leaf stays in float or `bits` has another number of columns.
  """
  paths, _, quantize = _quantizers(plan, paths)
  leaves, put = _chosen(params, paths)
  bits = jnp.asarray(bits)
  if bits.ndim != 2 or bits.shape[1] != len(paths):
    raise ValueError(f'bits of shape {bits.shape}; allowed: [candidates, {len(paths)}]')

  @jax.jit
  def run(leaves, bits, batches):
    def candidate(row):
      quantized = [
        lax.cond(b == IDENTITY_BITS, lambda w, _: w, q, w, b)
        for q, w, b in zip(quantize, leaves, row)
      ]
      return _each(lambda batch: _call(loss, put(quantized), batch), batches)

    return _map(candidate, bits, at_once)

  return run(leaves, bits, batches)


def loss_change(
  loss: Loss,
  params: Params,
  plan: WeightPlan,
  bits: Sequence[int],
  *,
  paths: Sequence[str] | None = None,
  batches: Batches = None,
  at_once: int = 1,
) -> BitwidthCosts:
  """The change of the loss when one leaf alone is quantized: what the other two estimate.

  Runs the loss L B + 1 times a batch. A loss in float32 resolves changes of about 1e-7 of itself.

  Args:
    loss, params, plan, paths, batches, at_once: as in `losses_at_bits`.
    bits: bitwidths of the columns, each 1 to 8 or 32; at 32 the change is zero.

  Returns:
    Costs; their standard errors are over batches, of differences batch by batch, None for fewer
    than two.

  Raises:
    ValueError: if a leaf stays in float or a bitwidth is not allowed.
  """
  paths, bits, _ = _quantizers(plan, paths, bits)
  rows = np.full((len(paths), len(bits), len(paths)), IDENTITY_BITS)
  for leaf in range(len(paths)):
    rows[leaf, :, leaf] = bits
  rows = np.concatenate([np.full((1, len(paths)), IDENTITY_BITS), rows.reshape(-1, len(paths))])
  losses = losses_at_bits(loss, params, plan, rows, paths=paths, batches=batches, at_once=at_once)
  changes = (losses[1:] - losses[0]).T
  return BitwidthCosts(paths, bits, *_moments(changes.reshape(-1, len(paths), len(bits))))


def first_order_sensitivity(
  loss: Loss,
  params: Params,
  plan: WeightPlan,
  bits: Sequence[int],
  *,
  paths: Sequence[str] | None = None,
  batches: Batches = None,
) -> BitwidthCosts:
  """The first term of the Taylor series, <gradient of leaf l, Q(w_l, b) - w_l>, with its sign.

  Signed, because that is the term: those of several leaves add up to that of all, and its mean over
  batches has no bias, while a mean of magnitudes grows with the noise. Use `abs(values)` to rank
  leaves by it. At a minimum of the loss it vanishes and the second term is what is left.

  Holds the quantization errors of all bitwidths at once, B times the leaves in memory: give fewer
  bitwidths a call where that is too much.

  Args:
    loss, params, plan, bits, paths, batches: as in `loss_change`.

  Returns:
    Costs; their standard errors are over batches, None for fewer than two.

  Raises:
    ValueError: if a leaf stays in float or a bitwidth is not allowed.
  """
  paths, bits, quantize = _quantizers(plan, paths, bits)
  leaves, put = _chosen(params, paths)

  @jax.jit
  def products(leaves, bits, batches):
    errors = lax.map(lambda b: [q(w, b) - w for q, w in zip(quantize, leaves)], bits)

    def one(batch):
      gradient = jax.grad(lambda leaves: _call(loss, put(leaves), batch))(leaves)
      return jnp.stack([jax.vmap(_inner, (None, 0))(g, e) for g, e in zip(gradient, errors)])

    return _moments(_each(one, batches))

  return BitwidthCosts(paths, bits, *products(leaves, jnp.asarray(bits), batches))


def hessian_traces(
  loss: Loss,
  params: Params,
  paths: Sequence[str],
  key: jax.Array,
  samples: int,
  *,
  batches: Batches = None,
  joint: bool = True,
  at_once: int = 1,
) -> HessianTraces:
  """Estimates the trace of the Hessian's block of each leaf (Hutchinson 1989).

  A probe v has independent entries of +1 or -1 in all leaves at once. Then v_l . (H v)_l is, leaf
  by leaf, an unbiased estimate of the trace of H_ll: E[v_l v_l'] is the identity, and the blocks
  H_lm between two leaves drop out since E[v_l v_m'] = 0. They add to its variance, which is

      2 |H_ll - diag(H_ll)|^2 + sum over m != l of |H_lm|^2        (Frobenius norms)

  With `joint=False` each leaf has probes of its own, zero elsewhere, which drops the sum and takes
  L times the work: worth it where the sum exceeds L - 1 times the first term. It does by far in
  deep networks before they are trained, and in trained ones for some leaves: compare the errors of
  a few samples each way. Products H v are forward over reverse, about two gradients of work and
  memory; no Hessian is formed. Each batch has probes of its own, at no cost.

  Args:
    loss: see the module; twice differentiable.
    params: any pytree; only the leaves of `paths` are differentiated and take part in a probe.
    paths: of the leaves, quantized or not; floating point.
    key: of the probes.
    samples: number of probes, at least 2 for a standard error, which falls as 1 / sqrt(samples).
    batches: see the module.
    joint: whether a probe serves all leaves.
    at_once: probes computed side by side; memory grows with it.

  Returns:
    The estimates and their standard errors.

  Raises:
    ValueError: if a path is not one of a leaf or `samples` is less than 2.
  """
  if samples < 2:
    raise ValueError(f'samples={samples}; allowed: 2 or more, for a standard error')
  leaves, put = _chosen(params, paths)
  count = 1 if batches is None else len(jax.tree.leaves(batches)[0])

  def probe(leaves, key, batch):
    keys = jax.random.split(key, len(leaves))
    v = [jax.random.rademacher(k, w.shape, w.dtype) for k, w in zip(keys, leaves)]
    gradient = jax.grad(lambda leaves: _call(loss, put(leaves), batch))

    def blocks(v):
      _, hv = jax.jvp(gradient, (leaves,), (v,))
      return jnp.stack([_inner(a, b) for a, b in zip(v, hv)])

    if joint:
      return blocks(v)

    def of_one_leaf(mask):
      return blocks([m.astype(x.dtype) * x for m, x in zip(mask, v)])

    # Row l holds the products with the probe that is zero outside leaf l.
    return jnp.diagonal(lax.map(of_one_leaf, jnp.eye(len(v))))

  @jax.jit
  def estimate(leaves, key, batches):
    def sample(key):
      keys = jax.random.split(key, count)
      return jnp.mean(_each(lambda batch, key: probe(leaves, key, batch), batches, keys), 0)

    return _moments(_map(sample, jax.random.split(key, samples), at_once))

  sizes = tuple(math.prod(leaf.shape) for leaf in leaves)
  return HessianTraces(tuple(paths), sizes, *estimate(leaves, key, batches))


def hessian_sensitivity(
  traces: HessianTraces, params: Params, plan: WeightPlan, bits: Sequence[int]
) -> BitwidthCosts:
  """The second term of the Taylor series, with errors spread evenly over a leaf's directions.

      trace(H_ll) / size_l * |Q(w_l, b) - w_l|^2 / 2

  is E[<e, H_ll e>] / 2 over errors e of that norm in a random direction. It is half the metric of
  HAWQ-V2 (Dong et al., NeurIPS 2020, arXiv 1911.03852; as recalled, average trace times squared
  error, without the 1/2 of Taylor's series), which ranks alike; with it the value is a loss. An
  estimated trace may be negative, and then its row is.

  Args:
    traces: from `hessian_traces`; its paths are those of the result.
    params: the weights to quantize.
    plan: see the module.
    bits: bitwidths of the columns, each 1 to 8 or 32.

  Returns:
    Costs; their standard errors are those of the traces.

  Raises:
    ValueError: if a leaf stays in float or a bitwidth is not allowed.
  """
  paths, bits, quantize = _quantizers(plan, traces.paths, bits)
  leaves, _ = _chosen(params, paths)

  @jax.jit
  def squares(leaves, bits):
    def at(b):
      errors = [q(w, b) - w for q, w in zip(quantize, leaves)]
      return jnp.stack([_inner(e, e) for e in errors])

    return lax.map(at, bits).T

  factor = squares(leaves, jnp.asarray(bits)) / (2 * jnp.asarray(traces.sizes)[:, None])
  values, errors = (column[:, None] * factor for column in (traces.traces, traces.errors))
  return BitwidthCosts(paths, bits, values, errors)


def _chosen(params: Params, paths: Sequence[str]) -> tuple[list[jax.Array], Put]:
  """The leaves of some paths, and a function that puts others in their places."""
  refuse_prepared(params, tree.QUANTIZE_FIRST)
  flat, structure = jax.tree_util.tree_flatten_with_path(params)
  index = {path_string(path): i for i, (path, _) in enumerate(flat)}
  for path in paths:
    if path not in index:
      raise ValueError(f'path {path!r} is no leaf; the paths are: {", ".join(index)}')

  def put(replacements):
    leaves = [leaf for _, leaf in flat]
    for path, leaf in zip(paths, replacements):
      leaves[index[path]] = leaf
    return jax.tree.unflatten(structure, leaves)

  return [jnp.asarray(flat[index[path]][1]) for path in paths], put


def _quantizers(
  plan: WeightPlan, paths: Sequence[str] | None, bits: Sequence[int] = ()
) -> tuple[tuple[str, ...], tuple[int, ...], list[Callable[..., jax.Array]]]:
  """The paths, the bitwidths as ints, and a quantizer of (w, bits) for each path; all checked."""
  entries = {leaf.path: leaf for leaf in plan.quantized}
  if paths is None:
    paths = [path for path, leaf in entries.items() if leaf.bits is None]
  for path in paths:
    if path not in entries:
      raise ValueError(f'the plan does not quantize {path!r}; it does: {", ".join(entries)}')
  if plan.quantizer.learns:
    raise ValueError(
      "step='learned' of networks that were not trained with their steps; allowed: "
      + ', '.join(quantizers.STEPS)
    )
  quantize: Any = functools.partial(quantizers.fake_quantize, **plan.quantizer.options)
  for b in bits:  # As they are: traced ones would give NaN.
    jax.eval_shape(functools.partial(quantize, bits=b), jnp.zeros(1))
  return (
    tuple(paths),
    tuple(int(b) for b in bits),
    [
      functools.partial(tree.quantize_leaf, leaf=entries[path], quantizer=plan.quantizer)
      for path in paths
    ],
  )


def _inner(a: jax.Array, b: jax.Array) -> jax.Array:
  """Inner product, summed in at least float32."""
  dtype = jnp.promote_types(a.dtype, jnp.float32)
  return jnp.sum(a.astype(dtype) * b.astype(dtype))


def _call(loss: Loss, params: Params, batch: Any) -> jax.Array:
  return loss(params) if batch is None else loss(params, batch)


def _each(function: Callable[..., Any], batches: Batches, *others: jax.Array) -> Any:
  """What a function gives for each batch, stacked; `others` hold further arguments a batch."""
  if batches is None:
    return function(None, *(x[0] for x in others))[None]
  return lax.map(lambda args: function(*args), (batches, *others))


def _map(function: Callable[[Any], Any], xs: Any, at_once: int) -> Any:
  # A batch size of 1 would still be a vmap, under which both branches of a condition run.
  return lax.map(function, xs, batch_size=None if at_once == 1 else at_once)


def _moments(samples: jax.Array) -> tuple[jax.Array, jax.Array | None]:
  """Mean over the leading axis and its standard error, None for a single sample."""
  count = len(samples)
  mean = jnp.mean(samples, 0)
  return mean, None if count < 2 else jnp.std(samples, 0, ddof=1) / math.sqrt(count)
