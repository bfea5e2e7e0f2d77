"""What each weight of a network is, and how it is quantized: one plan, read by all.

The quantizer, the size and the match of a width all read a `WeightPlan`. It follows from the traced
program of a network, so it needs no names and no layout: a kernel is what a convolution or a matrix
product multiplies by, and its output features lie along the axes that are not summed over.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cnnopt_jax.quant import groups, quantizers
from cnnopt_jax.quant.gaussian import IDENTITY_BITS
from cnnopt_jax.workload import LayerTable, Parameter

GRANULARITIES = ('channel', 'layer')

# Steps that are trained along with the weights (`learned_quantize`).
LEARNED = 'learned'

WEIGHT_STEPS = (*quantizers.STEPS, LEARNED)


class Rule(NamedTuple):
  """What happens to the parameters whose path matches, in place of what the trace says.

  A rule of a module concerns its weights; any other leaf, such as an embedding, it quantizes only
  if its pattern reaches to the end of the leaf's path.

  Attributes:
    pattern: regular expression for one or more whole parts of a path: 'Conv_1' matches
      'Conv_1/kernel' and 'block/Conv_1/kernel', not 'Conv_10/kernel'.
    bits: bitwidth of these leaves whatever the call says, 32 to leave them in float; None for the
      call's.
    output_axes: axes that keep a quantization step of their own, () for one step per tensor; None
      for those of the trace.
  """

  pattern: str
  bits: int | None = None
  output_axes: int | tuple[int, ...] | None = None

  def matches(self, path: str) -> bool:
    """Whether it concerns a leaf."""
    return re.search(rf'(^|/)(?:{self.pattern})($|/)', path) is not None

  def names(self, path: str) -> bool:
    """Whether it names the leaf itself, not only a module around it."""
    return re.search(rf'(^|/)(?:{self.pattern})$', path) is not None


class Quantizer(NamedTuple):
  """How weights are quantized, whatever the network.

  Attributes:
    rules: in order of precedence.
    granularity: 'channel' for a step for each output channel, 'layer' for one for each layer.
    levels: of `fake_quantize`.
    step: of `fake_quantize`, or 'learned' for steps that are given, such as those that are trained
      from `initial_steps` (`learned_quantize`).
    clip_gradient: of `fake_quantize`; with learned steps it is always so.
    group_size: inputs of a channel that share a step, as in `grouped_fake_quantize`; 0 for all.
  """

  rules: tuple[Rule, ...] = ()
  granularity: str = 'channel'
  levels: str = 'auto'
  step: str = 'mse'
  clip_gradient: bool = False
  group_size: int = 0

  @property
  def options(self) -> dict[str, Any]:
    """The keyword arguments of `fake_quantize`."""
    return {name: getattr(self, name) for name in ('levels', 'step', 'clip_gradient')}

  @property
  def learns(self) -> bool:
    """Whether steps are trained along with the weights."""
    return self.step == LEARNED


# The paper's step. In training it is as accurate as 'mse' and takes less time in every step.
GAUSSIAN = Quantizer(step='gaussian')


class LeafPlan(NamedTuple):
  """One leaf of the parameters.

  Attributes:
    path: its place in the tree.
    shape: its shape.
    dtype: the name of its type.
    role: of `workload.Parameter`.
    output_axes: axes that keep a step of their own; None for a leaf that stays in float.
    stack_axes: leading axes along which it holds one layer after another.
    bits: fixed by a rule; None for the call's.
    rule: pattern of the rule that decides, None for the trace.
    group_size: inputs that share a step; 0 where all do that are not told apart by `output_axes`.
    folds: whether a norm takes its steps (`workload.Parameter`), which those of groups, or of axes
      that are no output features, never do; None where nobody knows.
  """

  path: str
  shape: tuple[int, ...]
  dtype: str
  role: str
  output_axes: tuple[int, ...] | None
  stack_axes: int
  bits: int | None
  rule: str | None
  group_size: int = 0
  folds: bool | None = None

  @property
  def size(self) -> int:
    """Number of elements."""
    return math.prod(self.shape)

  @property
  def quantized(self) -> bool:
    """Whether it is quantized at all."""
    return self.output_axes is not None

  @property
  def steps(self) -> int:
    """Quantization steps that it has when it is quantized."""
    if self.output_axes is None:
      return 0
    if self.group_size:
      return groups.group_steps(
        self.shape, group_size=self.group_size, channel_axis=self.output_axes
      )
    return math.prod(self.shape[axis] for axis in self.output_axes)

  @property
  def kept_steps(self) -> int:
    """Its steps where norms have taken theirs: none unless `folds` is False."""
    return self.steps if self.folds is False else 0

  @property
  def steps_shape(self) -> tuple[int, ...]:
    """Shape of its steps that broadcasts against it, where there are no groups."""
    kept = self.output_axes or ()
    return tuple(n if axis in kept else 1 for axis, n in enumerate(self.shape))

  @property
  def layer(self) -> 'LeafPlan':
    """One slice along the first axis: where each has a bitwidth, its steps are its own."""
    axes = self.output_axes and tuple(axis - 1 for axis in self.output_axes if axis)
    stack_axes = max(self.stack_axes - 1, 0)
    return self._replace(shape=self.shape[1:], output_axes=axes, stack_axes=stack_axes)


class WeightPlan(NamedTuple):
  """What each leaf of a network's parameters is and how it is quantized, but for the bitwidth.

  Attributes:
    leaves: in the order of the tree.
    quantizer: how.
  """

  leaves: tuple[LeafPlan, ...]
  quantizer: Quantizer = Quantizer()

  @property
  def quantized(self) -> tuple[LeafPlan, ...]:
    """Those that are quantized."""
    return tuple(leaf for leaf in self.leaves if leaf.quantized)

  def __str__(self) -> str:
    return plan_table(self, None)


def plan_weights(layers: LayerTable, quantizer: Quantizer = Quantizer()) -> WeightPlan:
  """Plans the quantization of a network from its trace.

      layers = trace_layers(lambda p, x: net.apply({'params': p}, x), params, images)
      plan = plan_weights(layers)
      quantize_params(params, 4, plan)

  Kernels of convolutions and dense layers get a step for each of their output features, and one for
  each of a stack's layers; norms, biases, embeddings (tied ones too), and kernels that are no real
  floating-point numbers stay as they are. Rules come first.

  Args:
    layers: of the network.
    quantizer: how.

  Returns:
    The plan.

  Raises:
    ValueError: naming an option that is not allowed, a rule that matches no leaf, or only such as
      earlier rules decide, or whose axes do not fit; or a kernel whose output axes the program does
      not tell.
  """
  validate_quantizer(quantizer)
  for rule in quantizer.rules:
    _check(rule)
  deciding = [_deciding(quantizer.rules, parameter) for parameter in layers.parameters]
  for rule in quantizer.rules:
    if rule not in deciding:
      raise ValueError(_idle(rule, quantizer.rules, layers.parameters))
  leaves = [_leaf(p, rule, quantizer) for p, rule in zip(layers.parameters, deciding)]
  return WeightPlan(tuple(leaves), quantizer)


def validate_quantizer(quantizer: Quantizer) -> None:
  """Raises ValueError if an option of a quantizer, whatever the network, is not allowed."""
  if quantizer.granularity not in GRANULARITIES:
    raise ValueError(f'granularity={quantizer.granularity!r}; allowed: {", ".join(GRANULARITIES)}')
  if quantizer.step not in WEIGHT_STEPS:
    raise ValueError(f'step={quantizer.step!r}; allowed: {", ".join(WEIGHT_STEPS)}')
  size = quantizer.group_size
  if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 0:
    raise ValueError(f'group_size={size!r}; allowed: an int of 1 or more, 0 for no groups')
  if size and quantizer.granularity != 'channel':
    raise ValueError(
      f"group_size={size} with granularity={quantizer.granularity!r}; allowed: 'channel', or "
      'group_size 0'
    )
  if size and quantizer.learns:
    others = ', '.join(quantizers.STEPS)
    raise ValueError(f"group_size={size} with step='learned'; allowed: {others}, or group_size 0")


def _check(rule: Rule) -> None:
  try:
    re.compile(rule.pattern)
  except re.error as error:
    raise ValueError(f'rule {rule.pattern!r}: no regular expression ({error})') from None
  if rule.bits is not None:
    try:
      quantizers.validate_bits(rule.bits)
    except ValueError as error:
      raise ValueError(f'rule {rule.pattern!r}: {error}') from None


def _is_weight(parameter: Parameter) -> bool:
  return parameter.role == 'weight' and _is_real(parameter)


def _is_real(parameter: Parameter) -> bool:
  return 'float' in parameter.dtype


def _concerns(rule: Rule, parameter: Parameter) -> bool:
  if _is_weight(parameter):
    return rule.matches(parameter.path)
  return _is_real(parameter) and rule.names(parameter.path)


def _deciding(rules: Sequence[Rule], parameter: Parameter) -> Rule | None:
  return next((rule for rule in rules if _concerns(rule, parameter)), None)


def _idle(rule: Rule, rules: Sequence[Rule], parameters: Sequence[Parameter]) -> str:
  """Why a rule decides nothing."""
  concerned = [p for p in parameters if _concerns(rule, p)]
  if concerned:
    first = _deciding(rules, concerned[0])
    assert first is not None
    return (
      f'rule {rule.pattern!r} decides nothing: {concerned[0].path} follows rule '
      f'{first.pattern!r} before it'
    )
  others = [p.path for p in parameters if rule.matches(p.path)]
  if others:
    return (
      f'rule {rule.pattern!r} matches no weight; to quantize another leaf, name it to the end of '
      f'its path, such as {others[0]!r}'
    )
  return f'rule {rule.pattern!r} matches no parameter; the paths are: ' + ', '.join(
    p.path for p in parameters
  )


def _leaf(parameter: Parameter, rule: Rule | None, quantizer: Quantizer) -> LeafPlan:
  axes = parameter.output_axes if _is_weight(parameter) else None
  decided = axes is not None
  if rule is not None and rule.bits == IDENTITY_BITS:
    axes = None
  elif rule is not None and rule.output_axes is not None:
    axes = _checked_axes(rule, parameter)
  elif _is_weight(parameter) and not decided:
    raise ValueError(
      f'{parameter.path} {parameter.shape}: the program does not tell which of its axes are output '
      'features; allowed: a rule with output_axes'
    )
  elif rule is not None and not decided:
    axes = ()  # No layer sums over it: one step a tensor.
  if axes is not None and quantizer.granularity == 'layer' and (rule is None or decided):
    if rule is None or rule.output_axes is None:
      axes = tuple(axis for axis in axes if axis < parameter.stack_axes)
  return LeafPlan(
    parameter.path,
    parameter.shape,
    parameter.dtype,
    parameter.role,
    axes,
    parameter.stack_axes,
    None if rule is None else rule.bits,
    None if rule is None else rule.pattern,
    0 if axes is None else int(quantizer.group_size),
    _folds(parameter, axes, quantizer),
  )


def _folds(parameter: Parameter, axes: tuple[int, ...] | None, quantizer: Quantizer) -> bool | None:
  if axes is None:
    return None  # Without steps.
  features = parameter.output_axes
  if quantizer.group_size or (features is not None and not set(axes) <= set(features)):
    return False
  return parameter.folds


def _checked_axes(rule: Rule, parameter: Parameter) -> tuple[int, ...]:
  rank = len(parameter.shape)
  given = rule.output_axes
  axes = (given,) if isinstance(given, int) else tuple(given or ())
  for axis in axes:
    if not -rank <= axis < rank:
      raise ValueError(
        f'rule {rule.pattern!r}: output_axes={given!r}; allowed: axes of {parameter.path} '
        f'{parameter.shape}'
      )
  return tuple(sorted({axis % rank for axis in axes}))


def plan_table(plan: WeightPlan, bits: Mapping[str, Any] | None, *, folded: bool = False) -> str:
  """A plan as text: path, shape, role, axes, steps, bits and bytes of each leaf.

  Args:
    plan: to print.
    bits: bitwidth of each leaf by path (`bits_by_path`); None to leave bits and bytes out.
    folded: whether steps are only those that no norm takes, as the accounting 'folded' counts.

  Returns:
    Lines, the last one with the totals and the average bitwidth of what is quantized.
  """
  steps = [leaf.kept_steps if folded else leaf.steps for leaf in plan.leaves]
  head = ['path', 'shape', 'role', 'output axes', 'steps', 'rule']
  rows = [
    [
      leaf.path,
      'x'.join(map(str, leaf.shape)) or '-',
      leaf.role,
      'float' if not leaf.quantized else ', '.join(map(str, leaf.output_axes or ())) or 'one step',
      str(count),
      leaf.rule or '',
    ]
    for leaf, count in zip(plan.leaves, steps)
  ]
  total = ['total', '', '', '', str(sum(steps)), '']
  if bits is not None:
    head += ['bits', 'bytes']
    each = [np.mean(bits[leaf.path]) for leaf in plan.leaves]
    for row, leaf, leaf_bits in zip(rows, plan.leaves, each):
      row += [f'{leaf_bits:g}', f'{math.ceil(leaf.size * leaf_bits / 8):,}']
    total += [
      f'{average_bits(plan, bits):.3g}',
      f'{math.ceil(sum(leaf.size * b for leaf, b in zip(plan.leaves, each)) / 8):,}',
    ]
  lines = [head, *rows, total]
  widths = [max(map(len, column)) for column in zip(*lines)]
  numbers = {'steps', 'bits', 'bytes'}
  return '\n'.join(
    '  '.join(
      cell.rjust(width) if name in numbers else cell.ljust(width)
      for cell, width, name in zip(line, widths, head)
    ).rstrip()
    for line in lines
  )


def average_bits(plan: WeightPlan, bits: Mapping[str, Any]) -> float:
  """Bits a number over the leaves that a plan quantizes and the weights that it leaves in float."""
  counted = [leaf for leaf in plan.leaves if leaf.quantized or leaf.role == 'weight']
  size = sum(leaf.size for leaf in counted)
  return sum(leaf.size * float(np.mean(bits[leaf.path])) for leaf in counted) / max(size, 1)
