"""The sweep's networks and training step in PyTorch, as its users write them.

Only the processes of `torch_peer.py` import this: PyTorch is no dependency of the project.
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4


class Unit(nn.Module):
  """Convolution and batch norm."""

  def __init__(self, inputs: int, outputs: int, stride: int = 1):
    super().__init__()
    self.conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    self.norm = nn.BatchNorm2d(outputs)

  def forward(self, x, weight):
    y = F.conv2d(x, weight(self.conv.weight), None, self.conv.stride, self.conv.padding)
    return self.norm(y)


class Plain(nn.Module):
  """`models.PlainNet`."""

  def __init__(self, inputs: int, channels: list[int], classes: int):
    super().__init__()
    self.names = [f'unit{i}' for i in range(len(channels))]
    for i, name in enumerate(self.names):
      self.add_module(name, Unit([inputs, *channels][i], channels[i], 2 - i % 2))
    self.head = nn.ModuleDict({'dense': nn.Linear(channels[-1], classes)})

  def forward(self, x, weight):
    for name in self.names:
      x = F.relu(self.get_submodule(name)(x, weight))
    dense = self.head['dense']
    return F.linear(x.mean((2, 3)), weight(dense.weight), dense.bias)


class Block(nn.Module):
  """`models.resnet.BasicBlock` with its shortcut of option A."""

  def __init__(self, inputs: int, outputs: int, stride: int):
    super().__init__()
    self.unit0, self.unit1 = Unit(inputs, outputs, stride), Unit(outputs, outputs)
    self.widen, self.stride = outputs - inputs, stride

  def forward(self, x, weight):
    y = self.unit1(F.relu(self.unit0(x, weight)), weight)
    if self.stride > 1 or self.widen:
      x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.widen))
    return F.relu(x + y)


class SmallResNet(nn.Module):
  """`models.SmallResNet`."""

  def __init__(self, inputs: int, channels: list[int], blocks: int, classes: int):
    super().__init__()
    self.stem = Unit(inputs, channels[0])
    self.names = [f'stage{stage}_block{block}' for stage in range(3) for block in range(blocks)]
    last = channels[0]
    for name in self.names:
      stage, block = int(name[5]), name[11:]
      self.add_module(name, Block(last, channels[stage], 2 if stage and block == '0' else 1))
      last = channels[stage]
    self.head = nn.ModuleDict({'dense': nn.Linear(last, classes)})

  def forward(self, x, weight):
    x = F.relu(self.stem(x, weight))
    for name in self.names:
      x = self.get_submodule(name)(x, weight)
    dense = self.head['dense']
    return F.linear(x.mean((2, 3)), weight(dense.weight), dense.bias)


def network(arrays: dict[str, np.ndarray]) -> nn.Module:
  """The network that variables of this project belong to, with their values.

  Args:
    arrays: by path without the collection, such as 'unit0/conv/kernel'; kernels in Flax's layout.
  """
  kernels = {path: array for path, array in arrays.items() if path.endswith('conv/kernel')}
  classes = len(arrays['head/dense/bias'])
  if 'stem/conv/kernel' in arrays:
    stages = [arrays[f'stage{i}_block0/unit0/conv/kernel'].shape[-1] for i in range(3)]
    blocks = sum(path.startswith('stage0') for path in kernels) // 2
    model = SmallResNet(kernels['stem/conv/kernel'].shape[2], stages, blocks, classes)
  else:
    shapes = [kernels[name].shape for name in sorted(kernels)]
    model = Plain(shapes[0][2], [shape[-1] for shape in shapes], classes)
  names = {'kernel': 'weight', 'scale': 'weight', 'mean': 'running_mean', 'var': 'running_var'}
  state = model.state_dict()
  for path, array in arrays.items():
    *folders, leaf = path.split('/')
    key = '.'.join([*folders, names.get(leaf, leaf)])
    if array.ndim == 4:
      array = array.transpose(3, 2, 0, 1)
    elif array.ndim == 2:
      array = array.T
    state[key] = torch.from_numpy(array.copy())
  model.load_state_dict(state)
  return model


def quantizer(bits: int, clip: float, half_range: float, mid_rise: bool):
  """`quant.fake_quantize` with its default step at one bitwidth, one step an output channel."""

  def fake_quantize(w):
    if bits == 32:
      return w
    axes = tuple(range(1, w.ndim))
    x = w.detach()
    if bits == 1:
      step = 2 * x.abs().mean(axes, keepdim=True)
    else:
      step = clip / half_range * x.square().mean(axes, keepdim=True).sqrt()
    ratio = x / step
    if mid_rise:
      code = torch.where(ratio < 0, -1.0, 1.0) * (ratio.abs().floor() + 0.5)
    else:
      code = ratio.round()
    return w + (code.clamp(-half_range, half_range) * step - x)

  return fake_quantize


class Trainer:
  """One member: its network, optimizer and batch, all in memory.

  Args:
    arrays: of `network`.
    grid: arguments of `quantizer`.
    rate: learning rate at the first step.
    steps: of the whole training, after which the cosine is at zero.
    images, labels: uint8 [B, H, W, C] and int [B].
    mean, std: one number each, that images are normalized by.
    compiled: whether forward and backward pass go through `torch.compile`.
  """

  def __init__(self, arrays, grid, rate, steps, images, labels, mean, std, compiled: bool):
    self._model = network(arrays).train().to(memory_format=torch.channels_last)
    self._images = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    self._labels = torch.from_numpy(labels).long()
    self._rate, self._steps, self._taken = rate, steps, 0
    parameters = list(self._model.parameters())
    kernels = [p for p in parameters if p.ndim > 1]
    others = [p for p in parameters if p.ndim == 1]
    groups = [
      dict(params=kernels, weight_decay=WEIGHT_DECAY),
      dict(params=others, weight_decay=0.0),
    ]
    self._optimizer = torch.optim.SGD(groups, lr=rate, momentum=MOMENTUM, nesterov=True, fused=True)
    weight = quantizer(*grid)

    def loss(images, labels):
      x = (images.float() - mean) / std
      logits = self._model(x.contiguous(memory_format=torch.channels_last), weight)
      return F.cross_entropy(logits, labels)

    self._loss = torch.compile(loss) if compiled else loss

  def step(self):
    """One training step; returns the loss before it, on the device."""
    decay = 0.5 * (1 + math.cos(math.pi * self._taken / self._steps))
    for group in self._optimizer.param_groups:
      group['lr'] = self._rate * decay
    self._optimizer.zero_grad()
    loss = self._loss(self._images, self._labels)
    loss.backward()
    self._optimizer.step()
    self._taken += 1
    return loss.detach()
