"""`profile_algorithms`: which algorithms computed the layers of a profile, by names of kernels."""

import re
from collections.abc import Mapping, Sequence

from cnnopt_jax.traffic.algorithms import KINDS
from cnnopt_jax.traffic.profiles.launches import LaunchProfile
from cnnopt_jax.traffic.profiles.tables import ProfileError

# Names of cuDNN, cuBLAS, CUTLASS, PyTorch and TensorFlow; the first that matches counts. Fused
# Winograd's are 'scudnn_winograd' and 'winograd_3x3' beside 'generateWinogradTiles'; those of its
# transforms apart from the product begin with 'winogradForward' or 'winogradWgrad'.
_NAMES = {
  'depthwise': r'depth_?wise|_c1_k1',
  'winograd_nonfused': r'winograd_?non_?fused|winograd(?:Forward|Wgrad)',
  'winograd_fused': r'winograd',
  'fft': r'fft|cf32|cgemm|flip_filter|region_transform',
  'explicit_gemm': r'im2col|col2im|vol2col|col2vol|explicit_convolve',
  'implicit_gemm': r'scudnn|s\d+cudnn|implicit|xmma_(?!gemm)|convolve|conv\dd|fprop|wgrad|dgrad|'
  r'(?:^|[_\W])(?:fwd|bwd)_?alg',
}
_ALGORITHMS = {name: re.compile(words, re.IGNORECASE) for name, words in _NAMES.items()}
# A product alone: of a dense layer or a 1x1 convolution, or a step of the algorithms that have
# their products computed by another library.
_PRODUCT = re.compile(r'gemm|gemv|cutlass|xmma|nvjet|dot_kernel', re.IGNORECASE)
_WITH_PRODUCT = ('winograd_nonfused', 'fft', 'explicit_gemm')
# Tables of addresses and changes of layout, which several algorithms need.
_HELPER = re.compile(r'offsets|nchwToNhwc|nhwcToNchw|split_?k|reduce|scalePacked', re.IGNORECASE)
_GRADIENTS = {
  'weight_gradient': re.compile(r'wgrad|bgrad|(?:grad|backprop|backward)_?(?:weight|filter)', re.I),
  'data_gradient': re.compile(
    r'dgrad|col2im|col2vol|(?:grad|backprop|backward)_?(?:data|input)|depth_?wise\w*_backward', re.I
  ),
}


def profile_algorithms(
  launches_by_layer: Mapping[str, Sequence[LaunchProfile]],
) -> dict[tuple[str, str], str]:
  """Says which algorithm computed each layer, forward and backward.

  What a kernel computes its name says ('wgrad', 'dgrad'), or a kind behind the layer's path, as in
  'conv1_1:data_gradient'. Otherwise it is the forward pass, until the first gradient of the layer;
  a forward pass and a data gradient of which no name tells which is which need the kinds behind
  their paths.

  Args:
    launches_by_layer: of each layer, in order; those of '' are left out.

  Returns:
    `{(path, kind): one of traffic.ALGORITHMS}`, without the layers whose kernels say nothing.

  Raises:
    ProfileError: for a layer whose kernels of one kind are those of two algorithms.
  """
  found: dict[tuple[str, str], str] = {}
  for where, launches in launches_by_layer.items():
    path, said = split_kind(where)
    if not path:
      continue
    for kind, algorithm in _of_layer(launches, said):
      known = found.setdefault((path, kind), algorithm)
      if known != algorithm:
        raise ProfileError(
          f'{path}: kernels of {known} and of {algorithm} for its {kind}; allowed: one of them, or '
          f'the kind behind the path, such as {path}:data_gradient'
        )
  return found


def split_kind(path: str) -> tuple[str, str]:
  """('conv1_1', 'data_gradient') of 'conv1_1:data_gradient'; the kind is '' where there is none."""
  head, colon, kind = path.rpartition(':')
  return (head, kind) if colon and kind in KINDS else (path, '')


def _of_layer(launches: Sequence[LaunchProfile], said: str) -> list[tuple[str, str]]:
  """(kind, algorithm) of each kernel that tells; a product alone only where nothing else does."""
  strong: list[tuple[str, str]] = []
  products: list[tuple[str, str]] = []
  gradient = False
  for launch in launches:
    name = launch.kernel
    algorithm = next((a for a, words in _ALGORITHMS.items() if words.search(name)), None)
    named = next((k for k, words in _GRADIENTS.items() if words.search(name)), None)
    gradient = gradient or named is not None
    kind = said or named or ('data_gradient' if gradient else 'forward')
    if launch.is_copy or (_HELPER.search(name) and algorithm in (None, 'implicit_gemm')):
      continue
    if algorithm is not None:
      strong.append((kind, algorithm))
    elif _PRODUCT.search(name) and not (strong and strong[-1][1] in _WITH_PRODUCT):
      products.append((kind, 'implicit_gemm'))
  told = {kind for kind, _ in strong}
  return strong + [one for one in products if one[0] not in told]
