"""Networks by name, and their layer tables."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnnopt_jax.models.alexnet import AlexNet
from cnnopt_jax.models.googlenet import GoogLeNet
from cnnopt_jax.models.mobilenet import MobileNetV2
from cnnopt_jax.models.plain import PlainNet
from cnnopt_jax.models.resnet import SmallResNet
from cnnopt_jax.models.squeezenet import SqueezeNet
from cnnopt_jax.models.vgg import VGG
from cnnopt_jax.workload import LayerTable, trace_layers

MODELS: dict[str, Callable[..., nn.Module]] = {
    'plain': PlainNet,
    'vgg11': VGG,
    'mobilenet_v2': MobileNetV2,
    'alexnet': AlexNet,
    'googlenet': GoogLeNet,
    'squeezenet1_0': functools.partial(SqueezeNet, version='1.0'),
    'squeezenet1_1': functools.partial(SqueezeNet, version='1.1'),
    **{f'resnet{6 * n + 2}': functools.partial(SmallResNet, blocks=n)
       for n in (1, 2, 3, 5, 7, 9, 18)},
}


def create(name: str, *, num_classes: int, width_multiplier: float = 1.0) -> nn.Module:
  """Makes a network.

  Args:
    name: a key of `MODELS`.
    num_classes: number of logits.
    width_multiplier: scales every channel count.

  Returns:
    A module; `module.apply(variables, images, train=...)` maps [N, H, W, C] to logits.

  Raises:
    ValueError: if the name is unknown.
  """
  if name not in MODELS:
    raise ValueError(f'model={name!r}; allowed: {", ".join(MODELS)}')
  return MODELS[name](num_classes=num_classes, width_multiplier=width_multiplier)


def layer_table(model: nn.Module, image_shape: tuple[int, int, int], *,
                train: bool = False) -> LayerTable:
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
  apply = lambda params, images, statistics: model.apply({'params': params, **statistics}, images,
                                                         **options)
  return trace_layers(apply, variables['params'], images, statistics)
