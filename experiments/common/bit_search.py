"""Which bits each layer of a trained network gets, judged on images that it was not trained on."""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from ml_collections import config_dict

from cnnopt_jax import data, models, quant, training
from cnnopt_jax.report import write_atomically
from experiments.common import sweeps
from experiments.common.fields import ConfigError, integer, number, one_of, tuple_of
from experiments.common.sweeps import Member, Plan

# Images that one call of a network sees.
_BATCH_SIZE = 500

SEARCH = 'search.json'  # In a run's folder, what was found.

SENSITIVITIES = ('loss_change', 'hessian', 'first_order')

# What experiments that compare single with mixed bitwidths share, besides how networks train.
SPEC = {
  'held_out': integer(1),
  'bits': tuple_of(one_of(*quant.BITS)),
  'layer_choices': tuple_of(one_of(*quant.BITS)),
  'tolerance': number(0, 1),
  'free_widths': tuple_of(one_of(*quant.BITS), min_length=0),
  'sensitivity': one_of(*SENSITIVITIES),
  'probes': integer(2),
  'accounting': one_of(*quant.ACCOUNTINGS),
  'slack': number(0, 1),
  'seeds': tuple_of(integer(0, 2**31 - 1)),
  'learning_rate': number(0, above=True),
}


def check(config: config_dict.ConfigDict) -> None:
  """What the fields of `SPEC` and of `sweeps.SPEC` say about each other.

  Raises:
    ConfigError: naming the field.
  """
  sweeps.refuse_start(config)
  if config.levels == 'mid_tread' and 1 in config.layer_choices:
    raise ConfigError(
      "config.layer_choices holds 1, which has no 'mid_tread' level but zero; allowed: 2 to 8"
    )
  for bits in config.free_widths:
    if bits not in config.bits:
      raise ConfigError(
        f'config.free_widths holds {bits}; allowed: bitwidths of config.bits={config.bits}'
      )
    if bits < min(config.layer_choices):
      raise ConfigError(
        f'config.free_widths holds {bits}, a width at which config.layer_choices='
        f'{config.layer_choices} are too many bits for the budget; allowed: '
        f'{min(config.layer_choices)} or more, or fewer bits to choose'
      )


class Networks(NamedTuple):
  """Trained networks of one shape, one a seed, whose figures are averaged.

  Attributes:
    model: Flax module.
    plan: how its weights are quantized.
    variables: of each network, in float.
    batches: images [N, B, H, W, C], normalized, and labels [N, B], on which they are judged.
  """

  model: nn.Module
  plan: quant.WeightPlan
  variables: Sequence[Mapping[str, Any]]
  batches: tuple[jax.Array, jax.Array]


def read_networks(
  plan: Plan,
  dataset: data.Dataset,
  batches: tuple[jax.Array, jax.Array],
  workdir: pathlib.Path,
  floats: Sequence[Member],
  found: Sequence[Mapping[str, Any]],
) -> Networks | None:
  """Trained float networks of one width, from a run's folder.

  Args:
    plan: of the run.
    dataset: that they were trained on.
    batches: of `Networks`.
    workdir: of the run.
    floats: the networks.
    found: records of the run, which say what has diverged.

  Returns:
    Those that have not; None if all have.
  """
  diverged = {one['name'] for one in found if one['test_accuracy'] is None}
  floats = [member for member in floats if member.name not in diverged]
  if not floats:
    return None
  model = plan.model(floats[0])
  like = models.abstract_variables(model, dataset.image_shape)
  variables = [
    training.load_saved(training.member_folder(workdir, member.name), like) for member in floats
  ]
  weights = floats[0].match.plan
  if weights.quantizer.learns:  # No step was trained in float: those of least error stand for them.
    weights = weights._replace(quantizer=weights.quantizer._replace(step='mse'))
  return Networks(model, weights, variables, batches)


def batches_of(split: data.Split, mean, std) -> tuple[jax.Array, jax.Array]:
  """All images of a split in batches of one size, normalized; what is left over is dropped."""
  size = min(_BATCH_SIZE, len(split))
  images, labels = split.get(np.arange(len(split) // size * size).reshape(-1, size))
  return data.normalize(jnp.asarray(images), mean, std), jnp.asarray(labels)


def fewest_bits(
  networks: Networks, sizes: quant.LeafSizes, tolerance: float
) -> tuple[dict[str, int], quant.FewestBits]:
  """The fewest bits in each layer with no accuracy lost: `quant.fewest_bits` over all networks.

  What is to be kept is the accuracy in float, or with the most bits where that is less: as they are
  quantized without training, a noisy network may lose more than the tolerance even to them.

  Args:
    networks: in float; they are quantized as they are, without training.
    sizes: of their layers at the bitwidths that these may have, in the unit that is to be saved.
    tolerance: mean accuracy that may be lost.

  Returns:
    Bits by path, and the search; its `reference` is the accuracy in float.
  """

  @jax.jit
  def accuracies(variables, bits):
    def right(params, batch):
      images, labels = batch
      logits = networks.model.apply({**variables, 'params': params}, images)
      return jnp.mean(jnp.argmax(logits, -1) == labels)

    params, rest = variables['params'], dict(paths=sizes.paths, batches=networks.batches)
    return quant.losses_at_bits(right, params, networks.plan, bits, **rest).mean(1)

  def evaluate(bits):
    # All are begun before the first is waited for.
    return np.mean(jax.device_get([accuracies(v, bits) for v in networks.variables]), 0)

  # As many rows as every call of the search has, so that it all compiles once.
  rows = np.full((max(len(sizes.paths), 2), len(sizes.paths)), max(sizes.bits))
  rows[0] = quant.IDENTITY_BITS
  in_float, most = evaluate(rows)[:2].tolist()
  found = quant.fewest_bits(
    evaluate, sizes.sizes, sizes.bits, tolerance, reference=min(in_float, most)
  )
  return dict(zip(sizes.paths, map(int, found.bits))), found._replace(reference=in_float)


def sensitivities(
  networks: Networks, choices: Sequence[int], kind: str, probes: int
) -> quant.BitwidthCosts:
  """What each layer at each bitwidth costs, in loss, on average over the networks.

  Args:
    networks: in float.
    choices: bitwidths that a layer may have.
    kind: one of `SENSITIVITIES`.
    probes: of 'hessian'.

  Returns:
    Costs; their standard errors are over the networks, None for one of them.
  """
  plan, batches = networks.plan, networks.batches
  paths = tuple(leaf.path for leaf in plan.quantized if leaf.bits is None)

  @jax.jit
  def values_of(variables, seed):
    params = variables['params']

    def loss(params, batch):
      images, labels = batch
      logits = networks.model.apply({**variables, 'params': params}, images)
      return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    match kind:
      case 'loss_change':
        costs = quant.loss_change(loss, params, plan, choices, batches=batches)
      case 'first_order':
        costs = quant.first_order_sensitivity(loss, params, plan, choices, batches=batches)
      case _:
        key = jax.random.key(seed)
        traces = quant.hessian_traces(loss, params, paths, key, probes, batches=batches)
        costs = quant.hessian_sensitivity(traces, params, plan, choices)
    return costs.values

  each = [values_of(variables, seed) for seed, variables in enumerate(networks.variables)]
  values = np.stack(jax.device_get(each))
  errors = values.std(0, ddof=1) / len(values) ** 0.5 if len(values) > 1 else None
  return quant.BitwidthCosts(paths, tuple(choices), values.mean(0), errors)


def allocated(
  costs: quant.BitwidthCosts, sizes: quant.LeafSizes, budget: int
) -> tuple[dict[str, int], quant.Allocation]:
  """The bits of least summed cost within a budget.

  Args:
    costs: of layers.
    sizes: of the same layers at the same bitwidths, in the budget's unit.
    budget: of the whole network.

  Returns:
    Bits by path, and the allocation.

  Raises:
    ValueError: if the fewest bits take more.
  """
  found = quant.allocate(costs.values, sizes.sizes, budget - sizes.rest)
  return {path: costs.bits[i] for path, i in zip(costs.paths, found.choices)}, found


def of_search(bits: Mapping[str, int], found: quant.FewestBits) -> dict[str, Any]:
  """The search for the fewest bits, as JSON."""
  paths = list(bits)
  return {
    'bits': dict(bits),
    'accuracy': found.accuracy,
    'float_accuracy': found.reference,
    'evaluations': found.evaluations,
    'lowered': [
      {'path': paths[one.layer], 'bits': one.bits, 'accuracy': one.accuracy, 'size': one.size}
      for one in found.lowered
    ],
  }


def of_allocation(
  bits: Mapping[str, int], costs: quant.BitwidthCosts, found: quant.Allocation
) -> dict[str, Any]:
  """An allocation and what it stands on, as JSON."""
  return {
    'bits': dict(bits),
    'cost': found.cost,
    'bound': found.bound,
    'choices': list(costs.bits),
    'costs': dict(zip(costs.paths, np.asarray(costs.values).tolist())),
    'errors': None
    if costs.errors is None
    else dict(zip(costs.paths, np.asarray(costs.errors).tolist())),
  }


def read_searches(workdir: pathlib.Path) -> dict[str, dict[str, Any]]:
  """What the searches of a run have found so far, by name.

  Raises:
    ConfigError: if the file is damaged.
  """
  path = workdir / SEARCH
  if not path.exists():
    return {}
  try:
    found = json.loads(path.read_text())
    if all('bits' in one for one in found.values()):
      return found
  except (ValueError, TypeError, AttributeError):
    pass
  raise ConfigError(f'{path}: damaged; allowed: that file deleted, so that its searches are redone')


def kept(workdir: pathlib.Path, name: str, find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
  """What a search found, read from the run's folder where it is there already."""
  found = read_searches(workdir)
  if name not in found:
    found[name] = find()
    write_atomically(workdir / SEARCH, json.dumps(found, indent=1) + '\n')
  return found[name]
