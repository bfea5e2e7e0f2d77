"""What a profile covers, and the same part of the model: nothing else may be compared."""

import re
from collections.abc import Sequence

from cnnopt_jax.traffic.gpus import Gpu
from cnnopt_jax.traffic.profiles.launches import LaunchProfile
from cnnopt_jax.traffic.profiles.tables import ProfileError
from cnnopt_jax.traffic.transactions import KernelTraffic, Traffic

# What a profile may cover: an inference; a training step; or of a training step its forward pass,
# its gradients without the optimizer's update, and both of them.
PARTS = ('forward', 'backward', 'forward_backward')
MODES = ('inference', 'training', *PARTS)

# Of cuDNN, CUTLASS, PyTorch and XLA: names that only kernels of a backward pass have, and such of a
# forward pass alone. cuDNN's Winograd transforms are called 'forward' in both.
_BACKWARD = re.compile(
  r'wgrad|dgrad|bgrad|backward|backprop|bprop|(?:^|[_\W])(?:bwd|bw)(?:[_\W]|$)', re.IGNORECASE
)
_FORWARD = re.compile(
  r'fprop|(?<!winograd)forward|(?:^|[_\W])(?:fwd|fw)(?:[_\W]|$)|collect_statistics', re.IGNORECASE
)
_PRODUCT = re.compile(r'gemm|conv(?!ert)|winograd|wgrad|dgrad|fprop', re.IGNORECASE)
# A training step runs a third of its products, or more, before the first gradient; its backward
# pass alone begins with gradients, but for those of dense layers, which no name tells from a
# forward pass. Where products are few, dense layers may be most of them.
_FEW, _FEW_OF = 0.2, 10
_MANY, _MANY_OF = 0.3, 30

# Compute capability, which Nsight Compute writes in each line. As recalled from the table of the
# CUDA C++ Programming Guide, "Compute Capabilities"; not read again.
_CAPABILITIES = {
  '1080ti': '6.1',
  'v100': '7.0',
  '2080ti': '7.5',
  'a100': '8.0',
  '4090': '8.9',
  'h100': '9.0',
  'h200': '9.0',
}
_MODEL = re.compile(r'([a-z]?\d{2,4})(?:\s*(ti|super)\b)?')


def gpu_model(name: str) -> str:
  """A GPU's model in the words of a driver, a key or a person.

  Args:
    name: such as 'Tesla V100-SXM2-32GB', 'v100', 'NVIDIA GeForce GTX 1080 Ti' or 'gtx_1080_ti'.

  Returns:
    Such as 'v100' or '1080ti'; of a name without a number its letters.
  """
  words = re.sub(r'[_\-]', ' ', name.lower())
  match = _MODEL.search(re.sub(r'\b(?:nvidia|geforce|gtx|rtx|tesla|quadro)\b', ' ', words))
  return (match[1] + (match[2] or '')) if match else re.sub(r'[^a-z0-9]', '', words)


def check_launches(launches: Sequence[LaunchProfile], mode: str, gpu: Gpu) -> None:
  """Refuses a profile of another GPU, or of another part of a step than it is said to be.

  Only what names and order of kernels show: a step of dense layers alone looks the same throughout.

  Args:
    launches: of the profile.
    mode: one of `MODES`.
    gpu: that it is said to be of.

  Raises:
    ProfileError: with the reason in one line.
    ValueError: for another mode.
  """
  if mode not in MODES:
    raise ValueError(f'mode={mode!r}; allowed: {", ".join(MODES)}')
  check_gpu(launches, gpu)
  kernels = [launch for launch in launches if not launch.is_copy]
  gradients = [i for i, one in enumerate(kernels) if _BACKWARD.search(one.kernel)]
  if mode in ('inference', 'forward'):
    if gradients:
      name = _short(kernels[gradients[0]].kernel)
      raise ProfileError(f'{mode} has no backward kernels, but the profile has {name}')
    return
  if not gradients:
    raise ProfileError(
      f'{mode} has backward kernels, but none of the {len(kernels)} in the profile is named so '
      '(wgrad, dgrad, backward)'
    )
  if any(launch.launches > 1 for launch in kernels):
    return  # A summary has no order.
  before = kernels[: gradients[0]]
  products = sum(bool(_PRODUCT.search(one.kernel)) for one in kernels)
  first = sum(bool(_PRODUCT.search(one.kernel)) for one in before)
  share = (
    f'{first} of {products} products stand before the first backward kernel, '
    f'{_short(kernels[gradients[0]].kernel)}'
  )
  if mode == 'backward':
    forward = next((one for one in before if _FORWARD.search(one.kernel)), None)
    if forward is not None:
      raise ProfileError(
        f'backward has no forward pass, but the profile begins with {_short(forward.kernel)}'
      )
    if products >= _MANY_OF and first > _MANY * products:
      raise ProfileError(f'backward has no forward pass, but {share}')
  elif products >= _FEW_OF and first < _FEW * products:
    raise ProfileError(f'{mode} begins with a forward pass, but only {share}')


def check_gpu(launches: Sequence[LaunchProfile], gpu: Gpu) -> None:
  """Refuses a profile that names another GPU, or another compute capability.

  Raises:
    ProfileError: naming both.
  """
  wanted = gpu_model(gpu.name)
  for launch in launches:
    if launch.device is not None and gpu_model(launch.device) != wanted:
      raise ProfileError(f'the profile is of a {launch.device}; allowed: of a {gpu.name}')
    capability = _CAPABILITIES.get(wanted, launch.capability)
    if launch.capability is not None and launch.capability != capability:
      raise ProfileError(
        f'the profile is of a GPU of compute capability {launch.capability}; allowed: of a '
        f'{gpu.name}, which has {capability}'
      )


def _short(kernel: str) -> str:
  return repr(kernel if len(kernel) <= 60 else kernel[:57] + '...')


def part_of(found: Traffic, mode: str) -> tuple[KernelTraffic, ...]:
  """The rows of the model that a profile of a mode covers.

  Args:
    found: traffic of an inference for 'inference', otherwise of a training step.
    mode: one of `MODES`.

  Returns:
    All rows; or those of the forward pass, of the gradients, or of both without the update.

  Raises:
    ValueError: for another mode.
  """
  if mode not in MODES:
    raise ValueError(f'mode={mode!r}; allowed: {", ".join(MODES)}')
  if mode in ('inference', 'training'):
    return found.rows
  parts = {
    'forward': ('forward', 'elementwise'),
    'backward': ('data_gradient', 'weight_gradient', 'elementwise_gradient'),
  }
  wanted = {kind for name in mode.split('_') for kind in parts[name]}
  return tuple(row for row in found.rows if row.launch.kind in wanted)


def missing(launches: Sequence[LaunchProfile], field: str) -> str:
  """Why a counter has no sum: that no launch has it, or how many lack it."""
  kernels = [launch for launch in launches if not launch.is_copy] or launches
  lacking = sum(getattr(launch, field) is None for launch in kernels)
  if lacking == len(kernels):
    return f'the profile has no counter for {field}'
  return f'{lacking} of {len(kernels)} launches have no counter for {field}'
