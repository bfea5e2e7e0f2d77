"""Model size in bits, and the width multiplier that meets a size."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from cnnopt_jax.quant.gaussian import IDENTITY_BITS
from cnnopt_jax.workload import LayerTable

Bits = int | Mapping[str, int]

_FLOAT_BITS = 32
# Sizes that count as equal: the largest is at most this much larger than the smallest.
EQUAL_SIZE_SLACK = 0.02

# Where the search ends for a network that hardly grows with its width multiplier.
_WIDEST = 1000


class Accounting(NamedTuple):
  """What counts towards a model's size, in bits a number; weights always count at their bitwidth.

  Running statistics of a batch norm never count: at inference they fold into its scale and shift.

  Attributes:
    scale_bits: quantization step, one per output channel of a quantized layer.
    other_bits: bias, norm parameter, embedding, or weight left in float.
  """

  scale_bits: int
  other_bits: int


ACCOUNTINGS = {
  # Everything a deployed model stores.
  'stored': Accounting(scale_bits=_FLOAT_BITS, other_bits=_FLOAT_BITS),
  # Each step folds into the norm that follows its layer: true where every layer has one.
  'folded': Accounting(scale_bits=0, other_bits=_FLOAT_BITS),
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
    size: its size.
  """

  width: float
  layers: LayerTable
  size: ModelSize


def model_size(
  layers: LayerTable, bits: Bits, accounting: str = 'stored', *, per_channel: bool = True
) -> ModelSize:
  """Counts the bits that a network's parameters take.

  Args:
    layers: traced from the network; its `parameters` are what is counted, each leaf once.
    bits: bitwidth of every convolution and dense kernel, or a dict from parameter path to bitwidth
      (`bits_by_path`) that holds every weight.
    accounting: a name from `ACCOUNTINGS`.
    per_channel: whether a quantized layer has a step per output channel, or a single one.

  Returns:
    The size in bits, by term.

  Raises:
    ValueError: if the accounting is unknown.
    KeyError: if a dict of bits lacks a weight.
  """
  if accounting not in ACCOUNTINGS:
    raise ValueError(f'accounting={accounting!r}; allowed: {", ".join(ACCOUNTINGS)}')
  scale_bits, other_bits = ACCOUNTINGS[accounting]
  channels = {layer.weight: layer.output_channels for layer in layers.layers}
  terms = dict.fromkeys(ModelSize._fields, 0)
  for parameter in layers.parameters:
    if parameter.role != 'weight':
      term = {'bias': 'biases', 'norm': 'norms'}.get(parameter.role, 'others')
      terms[term] += parameter.size * other_bits
      continue
    leaf_bits = int(bits[parameter.path] if isinstance(bits, Mapping) else bits)
    terms['weights'] += parameter.size * leaf_bits
    if leaf_bits != IDENTITY_BITS:
      terms['scales'] += (channels[parameter.path] if per_channel else 1) * scale_bits
  return ModelSize(**terms)


def match_width(
  model: Callable[[float], LayerTable],
  size: int,
  bits: int | Callable[[LayerTable], Bits],
  accounting: str = 'stored',
  *,
  per_channel: bool = True,
  slack: float = EQUAL_SIZE_SLACK,
  resolution: float = 1e-3,
) -> WidthMatch:
  """Finds the widest network that fits a budget, and insists that it fills the budget.

  Two matches of one budget differ in size by at most a factor of 1 + slack, whatever their
  bitwidths. Widths are multiples of `resolution`; channel counts must not fall as width grows.

  Args:
    model: the network's layers as a function of its width multiplier.
    size: budget in bits.
    bits: as in `model_size`, or a function from layers to that, for bits that depend on the shape.
    accounting: as in `model_size`.
    per_channel: as in `model_size`.
    slack: the match has a size in [size / (1 + slack), size].
    resolution: distance between the widths tried.

  Returns:
    The match of greatest width.

  Raises:
    BudgetError: if integer channel counts jump over that interval; names the nearest sizes.
  """
  tried = {}

  def at(index: int) -> WidthMatch:
    if index not in tried:
      width = round(index * resolution, 9)
      layers = model(width)
      layer_bits = bits(layers) if callable(bits) else bits
      tried[index] = WidthMatch(
        width, layers, model_size(layers, layer_bits, accounting, per_channel=per_channel)
      )
    return tried[index]

  def fits(index: int) -> bool:
    return at(index).size.total <= size

  start = round(1 / resolution)
  # Size grows about as width squared, which brackets the answer within a few steps.
  guess = max(1, round(start * (size / at(start).size.total) ** 0.5))
  low, high = _last_that_fits(fits, guess, round(_WIDEST / resolution))
  if low and at(low).size.total * (1 + slack) >= size:
    return at(low)
  near = [at(i) for i in (low, high) if i]
  raise BudgetError(
    f'a size of {size} bits cannot be met by a width multiplier to within {slack:.0%}; nearest: '
    + ' and '.join(f'{m.size.total} bits (width {m.width:g})' for m in near)
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
