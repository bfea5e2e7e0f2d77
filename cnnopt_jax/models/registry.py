"""Networks by name, their units and their layer tables."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnnopt_jax import vip
from cnnopt_jax.models.alexnet import AlexNet
from cnnopt_jax.models.allcnn import AllCNN
from cnnopt_jax.models.efficientnet import EfficientNetLite0
from cnnopt_jax.models.googlenet import GoogLeNet
from cnnopt_jax.models.layers import ConvUnit
from cnnopt_jax.models.mobilenet import MobileNetV2
from cnnopt_jax.models.plain import PlainNet
from cnnopt_jax.models.resnet import ResNet, SmallResNet
from cnnopt_jax.models.squeezenet import SqueezeNet
from cnnopt_jax.models.vgg import THINET_STAGES, VGG, VGG8_STAGES, VGG16_STAGES
from cnnopt_jax.workload import LayerTable, trace_layers

MODELS: dict[str, Callable[..., nn.Module]] = {
  'plain': PlainNet,
  'vgg8': functools.partial(VGG, stages=VGG8_STAGES),
  'vgg11': VGG,
  'vgg16': functools.partial(VGG, stages=VGG16_STAGES, norm=False, hidden=(4096, 4096)),
  'vgg16_small': functools.partial(VGG, stages=VGG16_STAGES),
  'thinet': functools.partial(VGG, stages=THINET_STAGES, norm=False, hidden=(4096, 4096)),
  'all_cnn': AllCNN,
  'mobilenet_v2': MobileNetV2,
  'efficientnet_lite0': EfficientNetLite0,
  'alexnet': AlexNet,
  'googlenet': GoogLeNet,
  'squeezenet1_0': functools.partial(SqueezeNet, version='1.0'),
  'squeezenet1_1': functools.partial(SqueezeNet, version='1.1'),
  'resnet18': functools.partial(ResNet, blocks=(2, 2, 2, 2), bottleneck=False),
  'resnet50': ResNet,
  **{
    f'resnet{6 * n + 2}': functools.partial(SmallResNet, blocks=n) for n in (1, 2, 3, 5, 7, 9, 18)
  },
}


# Side of the images that a network was made for, where it is not 224.
_IMAGE_SIZES = {'alexnet': 227}


def default_image_shape(name: str) -> tuple[int, int, int]:
  """(H, W, C) of an ImageNet picture as the network of that name takes it."""
  side = _IMAGE_SIZES.get(name, 224)
  return side, side, 3


def create(
  name: str, *, num_classes: int, width_multiplier: float = 1.0, plan: str | Iterable[str] = ()
) -> nn.Module:
  """Makes a network.

  Args:
    name: a key of `MODELS`.
    num_classes: number of logits.
    width_multiplier: scales every channel count.
    plan: which units are virtual: their names, 'all', 'none', or a key of `vip.PLANS`.

  Returns:
    A module; `module.apply(variables, images, train=...)` maps [N, H, W, C] to logits.

  Raises:
    ValueError: if the name, or a unit of the plan, is unknown.
  """
  if name not in MODELS:
    raise ValueError(f'model={name!r}; allowed: {", ".join(MODELS)}')
  model = MODELS[name](num_classes=num_classes, width_multiplier=width_multiplier)
  return with_plan(model, plan) if plan else model


def with_plan(model: nn.Module, plan: str | Iterable[str]) -> nn.Module:
  """The same network with other virtual units; its variables fit both.

  Args:
    model: a module of this package.
    plan: as in `create`.

  Returns:
    A module.

  Raises:
    ValueError: if a unit of the plan is unknown.
  """
  return model.clone(plan=vip.resolve_plan(plan, unit_names(model)))


class _Reading(NamedTuple):
  """How a conv unit reads its input: a virtual map or an array, and at what it steps over it."""

  virtual: bool
  stride: int
  groups: int


@functools.cache
def _units(model: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, _Reading]:
  """The conv units of a network in its order."""
  found = {}

  def record(call, args, kwargs, context):
    unit = context.module
    if isinstance(unit, ConvUnit) and context.method_name == '__call__':
      found['/'.join(unit.path)] = _Reading(
        isinstance(args[0], vip.VirtualMap), unit.stride * (2 if unit.virtual else 1), unit.groups
      )
    return call(*args, **kwargs)

  with nn.intercept_methods(record):
    jax.eval_shape(
      model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    )
  return found


def unit_names(model: nn.Module) -> tuple[str, ...]:
  """Names of a network's conv units, in its order: what a plan can name."""
  return tuple(_units(model.clone(plan=()), (64, 64, 3)))


def virtual_inputs(model: nn.Module, image_shape: tuple[int, int, int]) -> tuple[str, ...]:
  """Names of the conv units that read a virtual map under the network's plan: for `vip.fold`.

  Args:
    model: a module of this package.
    image_shape: (H, W, C).

  Returns:
    Names, in the network's order.
  """
  return tuple(
    name for name, reading in _units(model, tuple(image_shape)).items() if reading.virtual
  )


def inference_params(model: nn.Module, params: Any, image_shape: tuple[int, int, int]) -> Any:
  """Trained parameters prepared once for inference, as fast as the network's plan allows.

  Kernels that read a virtual map are folded, and those that read an array at stride 1 get their
  transform (`vip.fold`, `vip.winograd_transform`). The network computes the same. A transform
  stands beside its kernel and is 16/9 of its size.

  Args:
    model: a module of this package.
    params: its parameters.
    image_shape: (H, W, C).

  Returns:
    A tree to put where the parameters were.
  """
  folded = vip.fold(params, virtual_inputs(model, image_shape))
  return vip.winograd_transform(
    folded,
    (
      name
      for name, reading in _units(model, tuple(image_shape)).items()
      if not reading.virtual and reading.stride == reading.groups == 1
    ),
  )


def layer_table(
  model: nn.Module, image_shape: tuple[int, int, int], *, train: bool = False
) -> LayerTable:
  """Traces a network's layers for one image; nothing is computed.

  Args:
    model: a module of this package.
    image_shape: (H, W, C).
    train: trace the network as it trains, batch norm's statistics included.

  Returns:
    The layers; MACs are those of one image, parameter paths start below 'params'.
  """
  images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), images)
  statistics = {name: value for name, value in variables.items() if name != 'params'}
  options = dict(train=True, mutable=list(statistics)) if train else {}
  apply = lambda params, images, statistics: model.apply(
    {'params': params, **statistics}, images, **options
  )
  return trace_layers(apply, variables['params'], images, statistics)
