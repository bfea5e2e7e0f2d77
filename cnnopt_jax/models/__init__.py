"""Flax networks, each with a width multiplier, a ViP plan, and free input shape and classes."""

from cnnopt_jax.models.allcnn import AllCNN
from cnnopt_jax.models.layers import Classifier, ConvUnit, scaled
from cnnopt_jax.models.mobilenet import MobileNetV2
from cnnopt_jax.models.plain import PlainNet
from cnnopt_jax.models.registry import (
  MODELS,
  create,
  layer_table,
  unit_names,
  virtual_inputs,
  with_plan,
)
from cnnopt_jax.models.resnet import ResNet, SmallResNet
from cnnopt_jax.models.vgg import VGG

__all__ = [
  'MODELS',
  'VGG',
  'AllCNN',
  'Classifier',
  'ConvUnit',
  'MobileNetV2',
  'PlainNet',
  'ResNet',
  'SmallResNet',
  'create',
  'layer_table',
  'scaled',
  'unit_names',
  'virtual_inputs',
  'with_plan',
]
