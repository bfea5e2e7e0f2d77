"""Model size in bits, and the width multiplier that meets a size."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from cnnopt_jax.quant.gaussian import IDENTITY_BITS
from cnnopt_jax.quant.plan import LeafPlan, Quantizer, WeightPlan, plan_weights
from cnnopt_jax.quant.tree import bits_by_path
from cnnopt_jax.workload import LayerTable

_FLOAT_BITS = 32
# Sizes that count as equal: the largest is at most this much larger than the smallest.
EQUAL_SIZE_SLACK = 0.02

# What can be matched: its name in a sentence, and its unit.
COSTS = {'size': ('size', 'bits'), 'bit_operations': ('cost', 'bit operations')}

# Where the search ends for a network that hardly grows with its width multiplier.
_WIDEST = 1000


class Accounting(NamedTuple):
  """What counts towards a model's size, in bits a number.

  Weights, and whatever else is quantized, always count at their bitwidth.

  Running statistics of a batch norm never count: at inference they fold into its scale and shift.

  Attributes:
    scale_bits: quantization step.
    other_bits: bias, norm parameter or embedding in float; of a complex number each half.
    folds: whether steps that a norm takes cost nothing, as those of which nobody knows whether one
      does (`LeafPlan.folds`).
  """

  scale_bits: int
  other_bits: int
  folds: bool = False


ACCOUNTINGS = {
  # Everything a deployed model stores.
  'stored': Accounting(scale_bits=_FLOAT_BITS, other_bits=_FLOAT_BITS),
  # The same where norms have taken the steps of the layers before them (`models.fold_steps`): only
  # a layer without a norm, such as the classifier, or with steps of groups still has its own. A
  # bare trace does not tell norms: there every layer counts as followed by one.
  'folded': Accounting(scale_bits=_FLOAT_BITS, other_bits=_FLOAT_BITS, folds=True),
  # Weights alone, as most papers count.
  'weights': Accounting(scale_bits=0, other_bits=0),
}


class ModelSize(NamedTuple):
  """Size of a model by what it is made of, all in bits."""

  weights: int
  scales: int
  biases: int
  norms: int
  others: int

  @property
  def total(self) -> int:
    return sum(self)


class BudgetError(ValueError):
  """No width multiplier meets the budget."""


class WidthMatch(NamedTuple):
  """A width multiplier that meets a size budget.

  Attributes:
    width: the width multiplier.
    layers: the network's layers at that width.
    plan: how its weights are quantized.
    size: its size.
    cost: what was matched, its size in bits or its bit operations.
  """

  width: float
  layers: LayerTable
  plan: WeightPlan
  size: ModelSize
  cost: int


def model_size(plan: WeightPlan, bits: Any, accounting: str = 'stored') -> ModelSize:
  """Counts the bits that a network's parameters take.

  Args:
    plan: of the network; its leaves are what is counted, each once.
    bits: as in `quantize_params`.
    accounting: a name from `ACCOUNTINGS`.

  Returns:
    The size in bits, by term.

  Raises:
    ValueError: if the accounting is unknown, or as `quantize_params`.
  """
  if accounting not in ACCOUNTINGS:
    raise ValueError(f'accounting={accounting!r}; allowed: {", ".join(ACCOUNTINGS)}')
  counted = ACCOUNTINGS[accounting]
  found = bits_by_path(plan, bits)
  terms = dict.fromkeys(ModelSize._fields, 0)
  for leaf in plan.leaves:
    term = _TERMS.get(leaf.role, 'others')
    numbers, scales = _leaf_size(leaf, found[leaf.path], counted, plan.quantizer.levels)
    terms[term] += numbers
    terms['scales'] += scales
  return ModelSize(**terms)


class LeafSizes(NamedTuple):
  """What each of L leaves takes at each of B bitwidths: what `allocate` weighs.

  Attributes:
    paths: of the leaves that are quantized at the call's bits, [L].
    bits: the bitwidths, [B].
    sizes: bits of size, steps included, int64 [L, B].
    rest: bits that all other leaves take.
  """

  paths: tuple[str, ...]
  bits: tuple[int, ...]
  sizes: np.ndarray
  rest: int


def leaf_sizes(plan: WeightPlan, bits: Sequence[int], accounting: str = 'stored') -> LeafSizes:
  """The size of each leaf that a plan quantizes, leaf by leaf and bitwidth by bitwidth.

      found = leaf_sizes(plan, (2, 4))
      model_size(plan, dict.fromkeys(found.paths, 4)).total == found.rest + found.sizes[:, 1].sum()

  Args:
    plan: of the network.
    bits: bitwidths, 1 to 8 or 32.
    accounting: as in `model_size`.

  Returns:
    The sizes.

  Raises:
    ValueError: as `model_size`.
  """
  counted, levels = ACCOUNTINGS[accounting], plan.quantizer.levels
  leaves = [leaf for leaf in plan.quantized if leaf.bits is None]
  sizes = [[sum(_leaf_size(leaf, b, counted, levels)) for b in bits] for leaf in leaves]
  paths = tuple(leaf.path for leaf in leaves)
  total = model_size(plan, dict.fromkeys(paths, bits[0]), accounting).total
  table = np.asarray(sizes, np.int64).reshape(len(leaves), len(bits))
  return LeafSizes(paths, tuple(bits), table, total - int(table[:, 0].sum()))


def packed_bits(count: int, bits: int, levels: str) -> int:
  """Bits that codes take: `bits` each; of three levels, log2(3) = 1.58, five to a byte: 1.6."""
  is_ternary = bits == 2 and levels == 'mid_tread'
  return 8 * -(-count // 5) if is_ternary else count * bits


_TERMS = {'weight': 'weights', 'bias': 'biases', 'norm': 'norms'}


def _leaf_size(leaf: LeafPlan, bits, accounting: Accounting, levels: str) -> tuple[int, int]:
  """Bits of a leaf's numbers and of its steps."""
  in_float = _FLOAT_BITS if leaf.role == 'weight' else accounting.other_bits
  in_float *= 2 if 'complex' in leaf.dtype else 1
  if not leaf.quantized:
    return leaf.size * in_float, 0
  each = np.ravel(bits)  # One, or one for each layer of a stack.
  few = each != IDENTITY_BITS
  slice_size = leaf.size // len(each)
  numbers = sum(
    slice_size * in_float if one == IDENTITY_BITS else packed_bits(slice_size, int(one), levels)
    for one in each
  )
  count, layer = (len(each), leaf.layer) if np.ndim(bits) else (1, leaf)
  steps = count * (layer.kept_steps if accounting.folds else layer.steps)
  return numbers, round(steps * float(np.mean(few))) * accounting.scale_bits


def bit_operations(
  layers: LayerTable, plan: WeightPlan, bits: Any, activation_bits: int = _FLOAT_BITS
) -> int:
  """Multiply-accumulates of one call, each times the bits of its weight and of its activation.

  Args:
    layers: of the network.
    plan: of the network.
    bits: as in `quantize_params`. A product of two activations has `activation_bits` for both.
    activation_bits: of all activations.

  Returns:
    The number.

  Raises:
    ValueError: as `quantize_params`.
  """
  found = bits_by_path(plan, bits)
  each = layers.join({path: float(np.mean(b)) for path, b in found.items()}, activation_bits)
  return round(float(each @ layers.column('macs')) * activation_bits)


def leaf_operations(
  layers: LayerTable,
  plan: WeightPlan,
  bits: Sequence[int],
  activation_bits: int = _FLOAT_BITS,
) -> LeafSizes:
  """`leaf_sizes` in bit operations: what each leaf's layers cost at each bitwidth.

      found = leaf_operations(layers, plan, (2, 4))
      chosen = allocate(costs, found.sizes, budget - found.rest)

  Args:
    layers: of the network.
    plan: of the network.
    bits: bitwidths, 1 to 8 or 32.
    activation_bits: of all activations.

  Returns:
    The operations, in the place of sizes.
  """
  paths = tuple(leaf.path for leaf in plan.quantized if leaf.bits is None)
  macs = np.asarray([sum(la.macs for la in layers if la.weight == path) for path in paths])
  table = macs[:, None] * np.asarray(bits, np.int64) * activation_bits
  all_alike = dict.fromkeys(paths, bits[0])
  total = bit_operations(layers, plan, all_alike, activation_bits)
  table = table.astype(np.int64).reshape(len(paths), len(bits))
  return LeafSizes(paths, tuple(bits), table, total - int(table[:, 0].sum()))


def match_width(
  model: Callable[[float], LayerTable],
  budget: int,
  bits: Any,
  accounting: str = 'stored',
  *,
  cost: str = 'size',
  quantizer: Quantizer = Quantizer(),
  slack: float = EQUAL_SIZE_SLACK,
  resolution: float = 1e-3,
) -> WidthMatch:
  """Finds the widest network that fits a budget, and insists that it fills the budget.

  Two matches of one budget differ in cost by at most a factor of 1 + slack, whatever their
  bitwidths. Widths are multiples of `resolution`; channel counts must not fall as width grows.

  Args:
    model: the network's layers as a function of its width multiplier.
    budget: in the unit of the cost.
    bits: as in `model_size`, or a function from a plan to that, for bits that depend on the shape.
    accounting: as in `model_size`.
    cost: what the budget limits: 'size', in bits, or 'bit_operations'.
    quantizer: how weights are quantized.
    slack: the match has a cost in [budget / (1 + slack), budget].
    resolution: distance between the widths tried.

  Returns:
    The match of greatest width.

  Raises:
    BudgetError: if integer channel counts jump over that interval; names the nearest sizes.
    ValueError: if the cost is unknown, or as `plan_weights` and `model_size`.
  """
  if cost not in COSTS:
    raise ValueError(f'cost={cost!r}; allowed: {", ".join(COSTS)}')
  tried: dict[int, WidthMatch] = {}

  def at(index: int) -> WidthMatch:
    if index not in tried:
      width = round(index * resolution, 9)
      layers = model(width)
      plan = plan_weights(layers, quantizer)
      found = bits(plan) if callable(bits) else bits
      size = model_size(plan, found, accounting)
      paid = size.total if cost == 'size' else bit_operations(layers, plan, found)
      tried[index] = WidthMatch(width, layers, plan, size, paid)
    return tried[index]

  def fits(index: int) -> bool:
    return at(index).cost <= budget

  start = round(1 / resolution)
  # Both costs grow about as width squared, which brackets the answer within a few steps.
  guess = max(1, round(start * (budget / at(start).cost) ** 0.5))
  low, high = _last_that_fits(fits, guess, round(_WIDEST / resolution))
  if low and at(low).cost * (1 + slack) >= budget:
    return at(low)
  near = [at(i) for i in (low, high) if i]
  name, unit = COSTS[cost]
  raise BudgetError(
    f'a {name} of {budget} {unit} cannot be met by a width multiplier to within {slack:.0%}; '
    'nearest: ' + ' and '.join(f'{m.cost} {unit} (width {m.width:g})' for m in near)
  )


def _last_that_fits(fits: Callable[[int], bool], guess: int, widest: int) -> tuple[int, int]:
  """The greatest index that fits, 0 for none, and the next one, that does not.

  Brackets the answer in strides that double from `guess`, then halves the bracket; upwards it ends
  with the first index tried that is not below `widest`.
  """
  low, high, stride = guess, guess, max(1, guess // 32)
  while low > 0 and not fits(low):
    low, high, stride = max(0, low - stride), low, 2 * stride
  while high == low or (fits(high) and high < widest):
    low, high, stride = high, high + stride, 2 * stride
  while high - low > 1:
    middle = (low + high) // 2
    low, high = (middle, high) if fits(middle) else (low, middle)
  return low, high
