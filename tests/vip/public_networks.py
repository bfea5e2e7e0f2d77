"""Three public architectures as their users write them, in plain Flax, small.

Each with a reference: the same network, its planned convolutions computed in full, cut to every
other row and column, and interpolated where ViP's unit ends, with nothing of this library.
"""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx


def restored(samples, size):
  """What the samples stand for: the definition, in gathers."""
  for axis, length in enumerate(size, 1):
    at = jnp.arange(length)
    low = jnp.minimum(at // 2, samples.shape[axis] - 1)
    high = jnp.minimum((at + 1) // 2, samples.shape[axis] - 1)
    samples = (jnp.take(samples, low, axis) + jnp.take(samples, high, axis)) / 2
  return samples


class DenseLayer(nn.Module):
  """Norm and ReLU before each convolution; 4 growth, then growth channels more."""

  growth: int

  @nn.compact
  def __call__(self, x, train):
    y = nn.relu(nn.BatchNorm(not train)(x))
    y = nn.Conv(4 * self.growth, (1, 1), use_bias=False)(y)
    y = nn.relu(nn.BatchNorm(not train)(y))
    y = nn.Conv(self.growth, (3, 3), use_bias=False)(y)
    return jnp.concatenate([x, y], axis=-1)


class DenseNet(nn.Module):
  """DenseNet-BC (Huang et al., CVPR 2017): concatenations, average-pools between the blocks."""

  growth: int = 4
  layers: Any = (2, 2)

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.Conv(2 * self.growth, (3, 3), use_bias=False)(x)
    for block, layers in enumerate(self.layers):
      if block:
        x = nn.relu(nn.BatchNorm(not train)(x))
        x = nn.Conv(x.shape[-1] // 2, (1, 1), use_bias=False)(x)
        x = nn.avg_pool(x, (2, 2), (2, 2))
      for _ in range(layers):
        x = DenseLayer(self.growth)(x, train)
    x = nn.relu(nn.BatchNorm(not train)(x))
    return nn.Dense(5)(x.mean((1, 2)))


@contextlib.contextmanager
def reference_densenet(plan):
  """In it linen's convolutions of a plan are those of the reference.

  A unit is a convolution, norm and ReLU where nothing else reads between: the first of each layer.
  The others' maps go into a concatenation or a pool as they are.
  """
  state = {}

  def intercept(call, args, kwargs, context):
    module = context.module
    if context.method_name != '__call__':
      return call(*args, **kwargs)
    name = '/'.join(module.path)
    if isinstance(module, nn.Conv) and name in plan:
      y = call(*args, **kwargs)
      if name.startswith('DenseLayer') and name.endswith('Conv_0'):
        state['size'] = y.shape[1:3]
        return y[:, ::2, ::2]
      return restored(y[:, ::2, ::2], y.shape[1:3])
    if isinstance(module, nn.BatchNorm) and name.endswith('BatchNorm_1') and state:
      y = call(*args, **kwargs)
      return restored(nn.relu(y), state.pop('size'))  # The ReLU that follows changes nothing.
    return call(*args, **kwargs)

  with nn.intercept_methods(intercept):
    yield


class ConvNormAct(nnx.Module):
  """Convolution, batch norm, activation, in nnx."""

  def __init__(self, cin, cout, side, stride=1, groups=1, act=None, *, rngs):
    self.conv = nnx.Conv(
      cin,
      cout,
      (side, side),
      stride,
      padding=((side // 2,) * 2,) * 2,
      feature_group_count=groups,
      use_bias=False,
      rngs=rngs,
    )
    self.norm = nnx.BatchNorm(cout, rngs=rngs)
    self.act = act

  def __call__(self, x):
    x = self.norm(self.conv(x))
    return self.act(x) if self.act else x


class SqueezeExcite(nnx.Module):
  """Each channel times a number that two dense layers make of all channels' means."""

  def __init__(self, channels, *, rngs):
    self.reduce = nnx.Linear(channels, 4, rngs=rngs)
    self.expand = nnx.Linear(4, channels, rngs=rngs)

  def __call__(self, x):
    gate = self.expand(nnx.relu(self.reduce(x.mean((1, 2)))))
    return x * nnx.hard_sigmoid(gate)[:, None, None, :]


class MobileBlock(nnx.Module):
  """1x1, depth-wise, perhaps squeeze-and-excitation, 1x1, a shortcut where shapes allow."""

  def __init__(self, cin, hidden, cout, stride, act, excite, *, rngs):
    self.expand = ConvNormAct(cin, hidden, 1, act=act, rngs=rngs)
    self.depthwise = ConvNormAct(hidden, hidden, 3, stride, hidden, act, rngs=rngs)
    self.excite = SqueezeExcite(hidden, rngs=rngs) if excite else None
    self.project = ConvNormAct(hidden, cout, 1, rngs=rngs)

  def __call__(self, x):
    y = self.depthwise(self.expand(x))
    if self.excite is not None:
      y = self.excite(y)
    y = self.project(y)
    return x + y if x.shape == y.shape else y


class MobileNet(nnx.Module):
  """MobileNetV2's block with ReLU6, then V3's with hard-swish (arXiv 1801.04381, 1905.02244)."""

  def __init__(self, *, rngs):
    self.stem = ConvNormAct(3, 8, 3, 2, act=nnx.hard_swish, rngs=rngs)
    self.block0 = MobileBlock(8, 16, 8, 1, nnx.relu6, False, rngs=rngs)
    self.block1 = MobileBlock(8, 16, 8, 1, nnx.hard_swish, True, rngs=rngs)
    self.block2 = MobileBlock(8, 24, 12, 2, nnx.hard_swish, True, rngs=rngs)
    self.head = nnx.Linear(12, 5, rngs=rngs)

  def __call__(self, x):
    x = self.block2(self.block1(self.block0(self.stem(x))))
    return self.head(x.mean((1, 2)))


class Reference(nnx.Module):
  """A unit of the reference around one of the network's."""

  def __init__(self, unit):
    self.unit = unit

  def __call__(self, x):
    y = self.unit.conv(x)
    size, y = y.shape[1:3], self.unit.norm(y[:, ::2, ::2])
    return restored(self.unit.act(y) if self.unit.act else y, size)


def reference_mobilenet(model, plan):
  """A copy of the network whose planned units are those of the reference."""
  model = nnx.clone(model)
  for name in plan:
    *modules, unit, _ = name.split('/')
    owner = model
    for module in modules:
      owner = getattr(owner, module)
    setattr(owner, unit, Reference(getattr(owner, unit)))
  return model


class Block(nn.Module):
  """ResNet-18's block."""

  features: int
  stride: int = 1

  @nn.compact
  def __call__(self, x, train):
    y = nn.Conv(self.features, (3, 3), self.stride, use_bias=False)(x)
    y = nn.relu(nn.BatchNorm(not train)(y))
    y = nn.Conv(self.features, (3, 3), use_bias=False)(y)
    y = nn.BatchNorm(not train)(y)
    if x.shape != y.shape:
      x = nn.Conv(self.features, (1, 1), self.stride, use_bias=False, name='conv_proj')(x)
      x = nn.BatchNorm(not train, name='norm_proj')(x)
    return nn.relu(x + y)


class ResNet18(nn.Module):
  """The ResNet of Flax's ImageNet example, one block a stage here, 'SAME' padding throughout."""

  width: int = 4

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.Conv(self.width, (7, 7), 2, padding=[(3, 3), (3, 3)], use_bias=False, name='conv_init')(
      x
    )
    x = nn.relu(nn.BatchNorm(not train, name='bn_init')(x))
    x = nn.max_pool(x, (3, 3), strides=(2, 2), padding='SAME')
    for stage in range(3):
      x = Block(self.width * 2**stage, 2 if stage else 1)(x, train)
    return nn.Dense(5)(jnp.mean(x, axis=(1, 2)))


@contextlib.contextmanager
def reference_resnet(plan):
  """In it the convolutions of a plan are those of the reference."""
  norm_of = {
    'conv_init': 'bn_init',
    'Conv_0': 'BatchNorm_0',
    'Conv_1': 'BatchNorm_1',
    'conv_proj': 'norm_proj',
  }
  sizes: dict[str, Any] = {}

  def intercept(call, args, kwargs, context):
    module = context.module
    if context.method_name != '__call__' or not isinstance(module, nn.Conv | nn.BatchNorm):
      return call(*args, **kwargs)
    *around, last = module.path
    y = call(*args, **kwargs)
    if isinstance(module, nn.Conv) and '/'.join(module.path) in plan:
      sizes['/'.join([*around, norm_of[last]])] = y.shape[1:3]
      return y[:, ::2, ::2]
    size = sizes.pop('/'.join(module.path), None)
    if size is None:
      return y
    # ReLU follows at once in two places; there what is restored has had it.
    return restored(nn.relu(y) if last in ('bn_init', 'BatchNorm_0') else y, size)

  with nn.intercept_methods(intercept):
    yield


def noise(tree, seed=3):
  """The tree with noise on its floating leaves, so that no scale is 1 and no mean 0."""
  leaves, form = jax.tree.flatten(tree)
  keys = jax.random.split(jax.random.key(seed), len(leaves))
  moved = [
    x + 0.1 * jnp.abs(jax.random.normal(key, x.shape, x.dtype))
    if jnp.issubdtype(x.dtype, jnp.floating)
    else x
    for x, key in zip(leaves, keys)
  ]
  return jax.tree.unflatten(form, moved)
