"""How a filter's fan-in bears on what quantization does to it: closed forms and what is measured.

"One Weight Bitwidth to Rule Them All" (arXiv 2008.09916) explains by fan-in, as recalled, why
depth-wise filters want more bits. Here is what follows for Gaussian weights and steps, with the
error of a filter w quantized to q relative to its norm,

    R = |w - q|^2 / |w|^2.

With u = w / rms(w), d weights are uniform on a sphere of radius sqrt(d), and u^2 / d of one of them
has the distribution Beta(1/2, (d - 1)/2). With a step of its own q / rms(w) depends on u alone, so
E[R] is one-dimensional; it rises a little with d, towards the distortion of the normal
distribution, and the spread of R over filters falls as 1/sqrt(d). With one step a layer, filters
whose rms lies off the layer's get a step that is not theirs, the more so the fewer weights they
have: there E[R] falls with d.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import integrate, special

from cnnopt_jax.quant import gaussian, quantizers
from cnnopt_jax.quant.plan import GRANULARITIES


def expected_relative_error(
  bits: int, fan_in: int, granularity: str = 'channel', levels: str = 'auto'
) -> float:
  """E[R] of filters of i.i.d. Gaussian weights, quantized with 'gaussian' steps.

  Args:
    bits: 1 to 8.
    fan_in: weights of a filter, d.
    granularity: 'channel' for a step of the filter's own; 'layer' for one over infinitely many
      filters.
    levels: of `fake_quantize`.

  Returns:
    The expectation, exact up to the rounding of one integral.

  Raises:
    ValueError: if an argument is not allowed.
  """
  _check(bits, fan_in, granularity, levels)
  half_range, mid_rise, clip = _grid(bits, levels)
  if granularity == 'channel':
    if bits == 1:  # sign(w) mean|w| leaves 1 - mean|u|^2, whose terms are 1/d and 2/pi.
      return (1 - 1 / fan_in) * (1 - 2 / np.pi)
    return _error_on_sphere(clip / half_range, half_range, mid_rise, fan_in)
  if mid_rise and fan_in <= 2:
    return float('inf')  # No level at zero, and E[1 / r^2] diverges.
  step = np.sqrt(2 / np.pi) / half_range if bits == 1 else clip / half_range
  # A filter's rms over the layer's, r with d r^2 chi-squared, makes the step 1 / r of what it was.
  half = fan_in / 2
  scale = np.log(2) + half * np.log(half) - special.gammaln(half)

  def integrand(r):
    density = np.exp(scale + (fan_in - 1) * np.log(r) - half * r**2)
    return _error_on_sphere(step / r, half_range, mid_rise, fan_in) * density

  low, high = np.sqrt(special.gammaincinv(half, [1e-12, 1 - 1e-12]) / half)
  return float(integrate.quad(integrand, low, high, limit=400, epsrel=1e-6)[0])


def relative_error_spread(bits: int, levels: str = 'auto') -> float:
  """The limit of std(R) sqrt(d) for wide filters with a step of their own.

  By the delta method R is, up to terms of order 1/d, the mean over a filter's N(0, 1) weights of
  phi(z) - c (z^2 - 1) / 2, phi(z) = (z - q(z))^2 and c = E[z phi'(z)] = E[(z^2 - 1) phi(z)]; at
  1 bit that of 2 m^2 (z^2 - 1) / 2 - 2 m (|z| - m) with m = E|z|.

  Args:
    bits: 1 to 8.
    levels: of `fake_quantize`.

  Returns:
    The standard deviation.

  Raises:
    ValueError: if an argument is not allowed.
  """
  _check(bits, 1, 'channel', levels)
  half_range, mid_rise, clip = _grid(bits, levels)
  # A rectangle rule is exact to rounding for what falls off like this; kinks cost 1e-8.
  z = np.linspace(-12, 12, 2**20 + 1)
  weight = np.exp(-(z**2) / 2) * (z[1] - z[0]) / np.sqrt(2 * np.pi)
  if bits == 1:
    m = np.sqrt(2 / np.pi)
    term = m**2 * (z**2 - 1) - 2 * m * (np.abs(z) - m)
  else:
    phi = (z - _quantized(z, clip / half_range, half_range, mid_rise)) ** 2
    term = phi - (weight @ ((z**2 - 1) * phi)) * (z**2 - 1) / 2
  mean = weight @ term
  return float(np.sqrt(weight @ (term - mean) ** 2))


class FilterErrors(NamedTuple):
  """What quantization does to each of F filters.

  Attributes:
    weight: R, its error relative to its norm, [F].
    output: E[((w - q) x)^2] / E[(w x)^2] for inputs x that are independent, with the mean and
      deviation of the positive part of N(0, 1), as after ReLU, [F].
    variance: Var[q x] / Var[w x] = |q|^2 / |w|^2, [F].
  """

  weight: jax.Array
  output: jax.Array
  variance: jax.Array


def filter_errors(
  w: jax.Array, bits: Any, output_axes: tuple[int, ...], granularity: str = 'channel', **options
) -> FilterErrors:
  """Measures a kernel's filters; pure, `bits` may be traced.

  Args:
    w: kernel, floating point.
    bits: 1 to 8 or 32, as in `fake_quantize`.
    output_axes: that tell its filters apart.
    granularity: of the step.
    **options: of `fake_quantize`, such as `step`.

  Returns:
    The errors; NaN for a filter of zeros.
  """
  axis = output_axes if granularity == 'channel' else None
  q = quantizers.fake_quantize(w, bits, channel_axis=axis, **options)
  axes = quantizers.reduced_axes(w.ndim, output_axes)
  mean, variance = (2 * np.pi) ** -0.5, 0.5 - 0.5 / np.pi

  def power(x):
    return jnp.sum(x**2, axes).ravel()

  def response(x):
    return variance * power(x) + mean**2 * jnp.sum(x, axes).ravel() ** 2

  return FilterErrors(power(w - q) / power(w), response(w - q) / response(w), power(q) / power(w))


def _check(bits: int, fan_in: int, granularity: str, levels: str) -> None:
  quantizers.validate_bits(bits)
  if bits not in quantizers.BITS or (bits == 1 and levels == 'mid_tread'):
    raise ValueError(f'{bits=}, {levels=}; allowed: 1 to 8 bits, from 2 with mid_tread')
  if fan_in < 1 or granularity not in GRANULARITIES or levels not in quantizers.LEVELS:
    raise ValueError(
      f'{fan_in=}, {granularity=}, {levels=}; allowed: 1 or more, {", ".join(GRANULARITIES)}, '
      + ', '.join(quantizers.LEVELS)
    )


def _grid(bits: int, levels: str) -> tuple[float, bool, float]:
  """Outermost level over the step, whether zero is an edge, and the clip for N(0, 1)."""
  kind = levels if levels != 'auto' else 'mid_rise' if bits <= 2 else 'mid_tread'
  half_range = (gaussian.num_levels(bits, kind) - 1) / 2
  return half_range, kind == 'mid_rise', gaussian.gaussian_quantizer(bits, kind).clip


def _quantized(z: np.ndarray, step: float, half_range: float, mid_rise: bool) -> np.ndarray:
  ratio = np.abs(z) / step
  level = np.floor(ratio) + 0.5 if mid_rise else np.round(ratio)
  return np.sign(z) * np.minimum(level, half_range) * step


def _error_on_sphere(step: float, half_range: float, mid_rise: bool, fan_in: int) -> float:
  """E[(u - q(u))^2] of a coordinate u of a point on the sphere of radius sqrt(d) in d dimensions.

  Over a cell, masses and moments of |u| are differences of regularized incomplete beta functions.
  """
  if fan_in == 1:
    return float((1 - _quantized(np.ones(()), step, half_range, mid_rise)) ** 2)
  first = 0.5 if mid_rise else 0.0
  levels = np.arange(first, half_range + 0.5) * step
  edges = np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2, [np.sqrt(fan_in)]])
  edges = np.minimum(edges, np.sqrt(fan_in))
  rest = (fan_in - 1) / 2
  at = np.minimum(edges**2 / fan_in, 1.0)
  mass, one, two = (np.diff(special.betainc(a, rest, at)) for a in (0.5, 1.0, 1.5))
  mean = np.sqrt(fan_in) * special.beta(1.0, rest) / special.beta(0.5, rest)
  return float(np.sum(two - 2 * levels * mean * one + levels**2 * mass))
