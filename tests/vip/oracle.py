"""ViP in plain NumPy loops, written from the description of the method, in float64."""

import numpy as np


def restore(samples, size):
  """The map of given size of which `samples` [N, h, w, C] are every other row and column."""
  n, h, w, c = samples.shape
  full = np.zeros((n, 2 * h, 2 * w, c))
  for i in range(h):
    for j in range(w):
      # Past the last sample stands the last sample again.
      below, right = min(i + 1, h - 1), min(j + 1, w - 1)
      full[:, 2 * i, 2 * j] = samples[:, i, j]
      full[:, 2 * i + 1, 2 * j] = (samples[:, i, j] + samples[:, below, j]) / 2
      full[:, 2 * i, 2 * j + 1] = (samples[:, i, j] + samples[:, i, right]) / 2
      full[:, 2 * i + 1, 2 * j + 1] = (
        samples[:, i, j] + samples[:, below, j] + samples[:, i, right] + samples[:, below, right]
      ) / 4
  return full[:, : size[0], : size[1]]


def windows(x, kernel_size, stride, padding, fill):
  """Yields (row, column, window [N, kh, kw, C]) of a padded map."""
  (top, bottom), (left, right) = padding
  x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)
  kh, kw = kernel_size
  for i in range((x.shape[1] - kh) // stride + 1):
    for j in range((x.shape[2] - kw) // stride + 1):
      yield i, j, x[:, i * stride : i * stride + kh, j * stride : j * stride + kw]


def assemble(pixels):
  pixels = list(pixels)
  rows, columns = (1 + max(p[axis] for p in pixels) for axis in (0, 1))
  out = np.zeros((pixels[0][2].shape[0], rows, columns, pixels[0][2].shape[1]))
  for i, j, value in pixels:
    out[:, i, j] = value
  return out


def conv(x, kernel, stride, padding, groups=1):
  """Convolution of [N, H, W, C] with a kernel [kh, kw, C / groups, F]."""
  inputs, features = kernel.shape[2], kernel.shape[3] // groups

  def pixel(window):
    parts = [
      np.tensordot(
        window[..., g * inputs : (g + 1) * inputs],
        kernel[..., g * features : (g + 1) * features],
        3,
      )
      for g in range(groups)
    ]
    return np.concatenate(parts, -1)

  found = windows(x, kernel.shape[:2], stride, padding, 0)
  return assemble((i, j, pixel(window)) for i, j, window in found)


def pool(x, window, stride, padding, reduce):
  fill = -np.inf if reduce is np.max else 0
  found = windows(x, (window, window), stride, padding, fill)
  return assemble((i, j, reduce(pixels, axis=(1, 2))) for i, j, pixels in found)
