"""What bounds and errors are computed from: layers, their interpolation, differences of patches."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np

from cnnopt_jax.kernels.interp2x import interp2x

# All of them nondecreasing and without slopes above one, which is what the proofs need.
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
  'relu': jax.nn.relu,
  'relu6': jax.nn.relu6,
  'identity': lambda z: z,
}
# Of one layer; `jax.jit` needs them by name.
STATIC_OPTIONS = ('stride', 'padding', 'groups', 'activation')


def interpolate(samples: jax.Array, size: tuple[int, int]) -> jax.Array:
  """Restores a map [N, H, W, C] from its even rows and columns, as a virtual map is read.

  In XLA's form, whatever the platform: the kernels know no float64.
  """
  return interp2x(samples, size, implementation='xla')


def interpolation_defect(full: jax.Array) -> jax.Array:
  """Interpolation of a map's even rows and columns minus the map, [N, H, W, C]: 0 at samples."""
  _, height, width, _ = full.shape
  return interpolate(full[:, ::2, ::2], (height, width)) - full


def second_differences(
  x: jax.Array, tap: jax.Array, *, kernel_size: tuple[int, int], stride: int, padding: int
) -> jax.Array:
  """What one tap of the kernel sees of D, the differences of the zero-extended input.

  Args:
    x: input [N, H, W, C].
    tap: its row and column in the kernel, int [2]; may be traced.
    kernel_size: rows and columns of the kernel.
    stride: of the dense layer.
    padding: zeros on each side.

  Returns:
    D at that tap, [N, rows of the output, columns of the output, C].
  """
  padded = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
  spans = [length - size + 1 for length, size in zip(padded.shape[1:3], kernel_size, strict=True)]
  seen = jax.lax.dynamic_slice(padded, (0, tap[0], tap[1], 0), (x.shape[0], *spans, x.shape[3]))
  return interpolation_defect(seen[:, ::stride, ::stride])


def convolve(
  x: jax.Array, kernel: jax.Array, *, stride: int, padding: int, groups: int
) -> jax.Array:
  """The layer's convolution, as exact as the type allows; [N, rows, columns, Cout]."""
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    ((padding, padding),) * 2,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
    precision=jax.lax.Precision.HIGHEST,
  )


def map_norm(a: jax.Array) -> jax.Array:
  """Euclidean norm over all axes but the first, [N]."""
  return jnp.sqrt((a**2).sum(tuple(range(1, a.ndim))))


def validate_layer(
  x: jax.Array, kernel: jax.Array, stride: int, padding: int, groups: int, activation: str
) -> None:
  """Checks what `layer_bound` and `layer_error` take.

  Raises:
    ValueError: if the activation is unknown, the groups do not divide the channels, or the kernel
      does not fit into the input.
  """
  chex.assert_rank([x, kernel], 4)
  for name, value, least in (('stride', stride, 1), ('padding', padding, 0), ('groups', groups, 1)):
    if not isinstance(value, int | np.integer) or value < least:
      raise ValueError(f'{name}={value}; allowed: an integer of {least} or more')
  if activation not in ACTIVATIONS:
    raise ValueError(f'activation={activation!r}; allowed: {", ".join(ACTIVATIONS)}')
  if kernel.shape[2] * groups != x.shape[3] or kernel.shape[3] % groups:
    raise ValueError(
      f'groups={groups}; allowed: a divisor of the outputs with input channels '
      f'{x.shape[3]} = groups * {kernel.shape[2]}, for a kernel {kernel.shape}'
    )
  if min(x.shape[1:3]) + 2 * padding < max(kernel.shape[:2]):
    raise ValueError(
      f'padding={padding}; allowed: enough for a kernel {kernel.shape} to fit into '
      f'an input {x.shape}'
    )
