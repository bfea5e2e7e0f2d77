"""The programs that are timed: networks, whole and in parts, with raw and prepared kernels."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

from cnnopt_jax import compilation, measure, models, vip

NUM_CLASSES = 1000

Program = Callable[[], Any]  # Without arguments, so that it can be timed.


def unit_names(stages) -> tuple[str, ...]:
  """Names of VGG's conv units, in order."""
  return tuple(
    f'conv{stage}_{unit}'
    for stage, units in enumerate(stages, 1)
    for unit in range(1, len(units) + 1)
  )


def vgg_units(
  stages, plan: vip.Plan, *, written: bool = False, patches: bool = False
) -> list[tuple[str, Callable[..., Any]]]:
  """VGG's convolutions and pools as functions of (parameters of the unit, map).

  Args:
    stages: channels of each stage.
    plan: virtual units.
    written: virtual maps are written in full before they are read.
    patches: the first layer is a product of patches where it is dense.

  Returns:
    (name of the unit, or '' for a pool; function), in order.
  """

  def unit(params, x, virtual, first):
    kernel, bias = params['conv']['kernel'], params['conv']['bias']
    form = 'materialized' if written and isinstance(x, vip.VirtualMap) else None
    form = 'patches' if patches and first and not virtual else form
    y = vip.conv(x, kernel, virtual=virtual, form=form)
    return vip.on_samples(lambda y: nn.relu(y + bias), y)

  def pool(params, x):
    return vip.max_pool(vip.materialize(x) if written else x, 2, 2)

  names = iter(unit_names(stages))
  steps = []
  for channels in stages:
    for _ in channels:
      name = next(names)
      steps.append((name, functools.partial(unit, virtual=name in plan, first=name == 'conv1_1')))
    steps.append(('', pool))
  return steps


def whole(steps):
  """All steps as one function of (parameters, images)."""

  def convolutions(params, x):
    for name, step in steps:
      x = step(params.get(name), x)
    return x

  return convolutions


def divisions(params, x, steps, head=None) -> dict[str, Program]:
  """The ways to divide a network into jits: name to a function without arguments."""
  jitted = [(name, jax.jit(step)) for name, step in steps]
  head_apart = None if head is None else jax.jit(head)

  def by_unit():
    y = x
    for name, step in jitted:
      y = step(params.get(name), y)
    return y if head is None else head_apart(params['head'], y)

  chained = whole(steps)
  convolutions = jax.jit(chained)
  split = measure.over_cores(chained, {name: params[name] for name, _ in steps if name}, x)
  if head is None:
    return found(
      {
        'one jit': functools.partial(convolutions, params, x),
        'unit by unit': by_unit,
        'batch over cores': split,
      }
    )
  one = jax.jit(lambda params, x: head(params['head'], chained(params, x)))

  def over_cores_then_head():
    return head_apart(params['head'], jax.device_put(split(), jax.devices()[0]))

  return found(
    {
      'one jit': functools.partial(one, params, x),
      'convolutions and head apart': lambda: head_apart(params['head'], convolutions(params, x)),
      'unit by unit': by_unit,
      'batch over cores, head apart': split and over_cores_then_head,
    }
  )


def found(programs: dict[str, Program | None]) -> dict[str, Program]:
  """Those that there are: `measure.over_cores` has none where it cannot split."""
  return {form: program for form, program in programs.items() if program}


def quick_init(model: nn.Module, x: jax.Array) -> Any:
  """Random variables; unoptimised code draws them ten times as soon."""
  return jax.jit(model.init, compiler_options=compilation.QUICKLY)(jax.random.key(0), x[:1])


class VGGBench:
  """VGG-16 and ThiNet's widths of it, layer by layer, with their parameters.

  Attributes:
    model: VGG-16.
    stages: its channels.
    units: names of its conv units.
    params: its parameters, as they are trained.
    thinet_stages: ThiNet's channels.
    thinet_params: its parameters.
  """

  def __init__(self, x: jax.Array):
    self._x = x
    self.model, thinet = (
      models.create(name, num_classes=NUM_CLASSES) for name in ('vgg16', 'thinet')
    )
    self.stages, self.thinet_stages = self.model.stages, thinet.stages
    self.units = unit_names(self.stages)
    self.params, self.thinet_params = (
      quick_init(model, x)['params'] for model in (self.model, thinet)
    )

  def prepared(self, params: Any, stages, plan: vip.Plan) -> Any:
    """Parameters for inference under a plan."""
    model = models.with_plan(self.model.clone(stages=stages), plan)
    return models.inference_params(model, params, self._x.shape[1:])

  def forms(
    self, params: Any, stages, plan: vip.Plan, head=None, written: bool = False
  ) -> dict[str, Program]:
    """Every division of a network under a plan, with its first layer in both forms if dense."""
    found = {}
    for patches in (False,) if 'conv1_1' in plan else (False, True):
      steps = vgg_units(stages, plan, written=written, patches=patches)
      for form, program in divisions(params, self._x, steps, head).items():
        found[form + ', first layer by patches' * patches] = program
    return found

  def with_and_without_transforms(
    self, name: str, params: Any, stages, plan: vip.Plan, head=None
  ) -> dict[str, dict[str, Program]]:
    """Forms on prepared parameters, and as `name_xla` on those without transformed kernels."""
    prepared = self.prepared(params, stages, plan)
    return {
      name: self.forms(prepared, stages, plan, head),
      f'{name}_xla': self.forms(untransformed(prepared), stages, plan, head),
    }

  def head(self, params: Any, y: jax.Array) -> jax.Array:
    """Logits of the last map, as both networks compute them."""
    return models.VGGHead(NUM_CLASSES, self.model.hidden).apply({'params': params}, y)


def untransformed(params: Any) -> Any:
  """Parameters for inference without transforms; folded kernels stay folded."""

  def strip(leaf):
    if isinstance(leaf, vip.FoldedKernel):
      return leaf.replace(transformed=None)
    return leaf.taps if isinstance(leaf, vip.WinogradKernel) else leaf

  return jax.tree.map(
    strip, params, is_leaf=lambda leaf: isinstance(leaf, vip.FoldedKernel | vip.WinogradKernel)
  )
