"""Flax networks, each with a width multiplier and free input shape and number of classes."""

from cnnopt_jax.models.efficientnet import EfficientNetLite0
from cnnopt_jax.models.layers import Classifier, ConvUnit, same_padding, scaled
from cnnopt_jax.models.mobilenet import MobileNetV2
from cnnopt_jax.models.plain import PlainNet
from cnnopt_jax.models.pretrained import MissingExtraError, load_efficientnet_lite0, prepare_image
from cnnopt_jax.models.registry import MODELS, create, layer_table
from cnnopt_jax.models.resnet import SmallResNet
from cnnopt_jax.models.torch_file import TorchFileError, read_torch_file
from cnnopt_jax.models.vgg import VGG

__all__ = [
  'MODELS',
  'VGG',
  'Classifier',
  'ConvUnit',
  'EfficientNetLite0',
  'MissingExtraError',
  'MobileNetV2',
  'PlainNet',
  'SmallResNet',
  'TorchFileError',
  'create',
  'layer_table',
  'load_efficientnet_lite0',
  'prepare_image',
  'read_torch_file',
  'same_padding',
  'scaled',
]
