"""Flax networks, each with a width multiplier, a ViP plan, and free input shape and classes."""

from cnnopt_jax.models.allcnn import AllCNN
from cnnopt_jax.models.efficientnet import EfficientNetLite0
from cnnopt_jax.models.layers import Classifier, ConvUnit, same_padding, scaled
from cnnopt_jax.models.mobilenet import MobileNetV2
from cnnopt_jax.models.plain import PlainNet
from cnnopt_jax.models.pretrained import MissingExtraError, load_efficientnet_lite0, prepare_image
from cnnopt_jax.models.registry import (
  MODELS,
  create,
  default_image_shape,
  inference_params,
  layer_table,
  unit_names,
  virtual_inputs,
  with_plan,
)
from cnnopt_jax.models.resnet import ResNet, SmallResNet
from cnnopt_jax.models.torch_file import TorchFileError, read_torch_file
from cnnopt_jax.models.vgg import VGG

__all__ = [
  'MODELS',
  'VGG',
  'AllCNN',
  'Classifier',
  'ConvUnit',
  'EfficientNetLite0',
  'MissingExtraError',
  'MobileNetV2',
  'PlainNet',
  'ResNet',
  'SmallResNet',
  'TorchFileError',
  'create',
  'default_image_shape',
  'inference_params',
  'layer_table',
  'load_efficientnet_lite0',
  'prepare_image',
  'read_torch_file',
  'same_padding',
  'scaled',
  'unit_names',
  'virtual_inputs',
  'with_plan',
]
