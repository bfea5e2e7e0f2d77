"""Flax networks, each with a width multiplier, a ViP plan, and free input shape and classes."""

from cnnopt_jax.models.alexnet import AlexNet
from cnnopt_jax.models.allcnn import AllCNN
from cnnopt_jax.models.bounds import bounded_layers, chain_bound
from cnnopt_jax.models.efficientnet import EfficientNetLite0
from cnnopt_jax.models.folding import fold_steps
from cnnopt_jax.models.googlenet import GoogLeNet
from cnnopt_jax.models.layers import Classifier, ConvUnit, same_padding, scaled
from cnnopt_jax.models.mobilenet import InvertedResNet, MobileNetV2
from cnnopt_jax.models.network import Network, unit_names, virtual_inputs, with_plan
from cnnopt_jax.models.plain import PlainNet
from cnnopt_jax.models.pretrained import (
  PIXEL_MEAN,
  PIXEL_STD,
  MissingExtraError,
  load_efficientnet_lite0,
  prepare_image,
)
from cnnopt_jax.models.registry import MODELS, create, default_image_shape
from cnnopt_jax.models.resnet import ResNet, SmallResNet
from cnnopt_jax.models.squeezenet import SqueezeNet
from cnnopt_jax.models.torch_file import TorchFileError, read_torch_file
from cnnopt_jax.models.units import (
  abstract_variables,
  inference_params,
  layer_table,
  weight_plan,
)
from cnnopt_jax.models.vgg import THINET_STAGES, VGG, VGG16_STAGES, VGGHead

__all__ = [
  'MODELS',
  'PIXEL_MEAN',
  'PIXEL_STD',
  'THINET_STAGES',
  'VGG',
  'VGG16_STAGES',
  'AlexNet',
  'AllCNN',
  'Classifier',
  'ConvUnit',
  'EfficientNetLite0',
  'GoogLeNet',
  'InvertedResNet',
  'MissingExtraError',
  'MobileNetV2',
  'Network',
  'PlainNet',
  'ResNet',
  'SmallResNet',
  'SqueezeNet',
  'TorchFileError',
  'VGGHead',
  'abstract_variables',
  'bounded_layers',
  'chain_bound',
  'create',
  'default_image_shape',
  'fold_steps',
  'inference_params',
  'layer_table',
  'load_efficientnet_lite0',
  'prepare_image',
  'read_torch_file',
  'same_padding',
  'scaled',
  'unit_names',
  'virtual_inputs',
  'weight_plan',
  'with_plan',
]
