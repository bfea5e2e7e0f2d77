"""Which algorithm computes a layer, and the kernels that it runs."""

from collections.abc import Callable
from typing import NamedTuple

from cnnopt_jax.traffic import implicit, transforms, winograd
from cnnopt_jax.traffic.geometry import Geometry
from cnnopt_jax.traffic.gpus import Gpu
from cnnopt_jax.traffic.kernels import Array, Kernel
from cnnopt_jax.traffic.libraries import Library

# Of a layer's launches.
KINDS = ('forward', 'data_gradient', 'weight_gradient')
ALGORITHMS = (
  'implicit_gemm',
  'explicit_gemm',
  'winograd_fused',
  'winograd_nonfused',
  'fft',
  'depthwise',
)
# A later algorithm has to be this much faster than an earlier one to be taken in its place.
_WORTH = 0.95
_WINOGRAD_WINDOWS = {'winograd_fused': (3,), 'winograd_nonfused': (3, 5)}
_LARGEST_FFT_WINDOW = 16
# Of a smaller window Fourier transforms cost more than they save.
_SMALLEST_FFT_WINDOW = 5


class Problem(NamedTuple):
  """What a launch of a layer computes.

  Attributes:
    kind: one of `KINDS`.
    forward: geometry of the forward product.
    source, weight, target: arrays read and written: of a weight gradient `weight` is the gradient
      of the map.
    workspace: index of the workspace's tensor.
  """

  kind: str
  forward: Geometry
  source: Array
  weight: Array
  target: Array
  workspace: int

  @property
  def geometry(self) -> Geometry:
    """Of the product that is computed; of a weight gradient the forward one."""
    return self.forward.transposed() if self.kind == 'data_gradient' else self.forward


def kernels(gpu: Gpu, problem: Problem, algorithm: str) -> tuple[Kernel, ...]:
  """The launches of one algorithm.

  Args:
    gpu: the GPU.
    problem: what to compute.
    algorithm: one of `ALGORITHMS`, that can compute it.

  Returns:
    The kernels in order.
  """
  g, kind = problem.geometry, problem.kind
  arrays = problem.source, problem.weight, problem.target
  match algorithm:
    case 'implicit_gemm':
      if kind == 'weight_gradient':
        return (implicit.weight_product(gpu, g, *arrays),)
      return (implicit.map_product(gpu, g, *arrays),)
    case 'explicit_gemm':
      make: dict[str, Callable[..., tuple[Kernel, ...]]] = {
        'forward': transforms.explicit,
        'data_gradient': transforms.explicit_data_gradient,
        'weight_gradient': transforms.explicit_weight_gradient,
      }
      return make[kind](gpu, problem.forward, *arrays, problem.workspace)
    case 'winograd_fused':
      return winograd.fused(gpu, g, *arrays, problem.workspace)
    case 'winograd_nonfused':
      if kind == 'weight_gradient':
        return winograd.nonfused_weight_gradient(gpu, g, *arrays, problem.workspace)
      return winograd.nonfused(gpu, g, *arrays, problem.workspace)
    case 'fft':
      return transforms.fft(gpu, g, *arrays, problem.workspace, kind)
    case 'depthwise':
      return transforms.direct(gpu, g, arrays[:2], problem.target)
  raise ValueError(f'algorithm={algorithm!r}; allowed: {", ".join(ALGORITHMS)}')


def refusal(library: Library, problem: Problem, algorithm: str) -> str | None:
  """Why an algorithm cannot compute a problem; None if it can.

  Winograd's and Fourier's are those of float32, windows without stride or dilation, one group.
  """
  g = problem.forward
  sides = {round(g.height.taps), round(g.width.taps)}
  unit = g.height.stride == g.width.stride == 1 and len(sides) == 1
  (side,) = sides if len(sides) == 1 else (0,)
  match algorithm:
    case 'depthwise' if not (g.groups > 1 and g.source_channels == 1):
      return 'it is not depth-wise'
    case 'winograd_fused' | 'winograd_nonfused' | 'fft':
      if library.math != 'float32' or problem.source.element_bytes != 4:
        return 'its type is not float32'
      if g.groups > 1 or not unit:
        return 'it has groups, a stride, a dilation or a window that is not square'
      if algorithm == 'fft' and not 1 < side <= _LARGEST_FFT_WINDOW:
        return f'its window has {side} taps a side'
      if algorithm != 'fft' and side not in _WINOGRAD_WINDOWS[algorithm]:
        return f'its window has {side} taps a side'
      if algorithm == 'winograd_fused' and problem.kind == 'weight_gradient':
        return 'weight gradients have no such kernel'
  return None


def choose(gpu: Gpu, library: Library, problem: Problem) -> tuple[str, tuple[Kernel, ...]]:
  """The algorithm of least time by the library's roofline, within its workspace.

  A simpler one is kept unless another is clearly faster; an explicit matrix product is never the
  fastest.

  Args:
    gpu: the GPU.
    library: the library.
    problem: what to compute.

  Returns:
    One of `ALGORITHMS`, and its kernels.
  """
  g = problem.forward
  side = min(g.height.taps, g.width.taps)
  names = ['implicit_gemm', 'winograd_fused', 'winograd_nonfused']
  if g.groups > 1 and g.source_channels == 1:
    names = ['depthwise']
  elif side >= _SMALLEST_FFT_WINDOW:
    names.append('fft')
  best: tuple[float, str, tuple[Kernel, ...]] | None = None
  for name in names:
    if refusal(library, problem, name) is not None:
      continue
    made = kernels(gpu, problem, name)
    if _workspace(problem, made) > library.workspace_bytes:
      continue
    seconds = sum(library.seconds(gpu, kernel) for kernel in made)
    if best is None or seconds < _WORTH * best[0]:
      best = seconds, name, made
  assert best is not None
  return best[1:]


def _workspace(problem: Problem, made: tuple[Kernel, ...]) -> float:
  """Bytes of the workspace: what kernels write to it."""
  return sum(
    access.bytes
    for kernel in made
    for access in kernel.accesses
    if access.tensor == problem.workspace and access.write
  )
