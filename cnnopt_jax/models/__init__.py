"""Flax networks, each with a width multiplier and free input shape and number of classes."""

from cnnopt_jax.models.layers import Classifier, ConvUnit, scaled
from cnnopt_jax.models.mobilenet import MobileNetV2
from cnnopt_jax.models.plain import PlainNet
from cnnopt_jax.models.registry import MODELS, create, layer_table
from cnnopt_jax.models.resnet import SmallResNet
from cnnopt_jax.models.vgg import VGG

__all__ = [
  'MODELS',
  'VGG',
  'Classifier',
  'ConvUnit',
  'MobileNetV2',
  'PlainNet',
  'SmallResNet',
  'create',
  'layer_table',
  'scaled',
]
