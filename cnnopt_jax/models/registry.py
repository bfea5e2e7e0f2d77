"""Networks by name."""

import functools
from collections.abc import Callable, Iterable

from flax import linen as nn

from cnnopt_jax.models.alexnet import AlexNet
from cnnopt_jax.models.allcnn import AllCNN
from cnnopt_jax.models.efficientnet import EfficientNetLite0
from cnnopt_jax.models.googlenet import GoogLeNet
from cnnopt_jax.models.mobilenet import InvertedResNet, MobileNetV2
from cnnopt_jax.models.network import with_plan
from cnnopt_jax.models.plain import PlainNet
from cnnopt_jax.models.resnet import ResNet, SmallResNet
from cnnopt_jax.models.squeezenet import SqueezeNet
from cnnopt_jax.models.vgg import THINET_STAGES, VGG, VGG8_STAGES, VGG16_STAGES

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
  **{f'ir_resnet{6 * n + 2}': functools.partial(InvertedResNet, blocks=n) for n in (1, 4)},
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
