"""A report of bounds, layer by layer, beside the true errors."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnnopt_jax.vip.bounds.error import layer_error
from cnnopt_jax.vip.bounds.layer import layer_bound

# To stand under every printed report.
REPORT_NOTE = (
  'The bounds compare a virtual and a dense layer of equal weights on one input; '
  'they say nothing about accuracy, nor about weights changed by fine-tuning.'
)


class BoundedLayer(NamedTuple):
  """A layer and its input, as `layer_bound` takes them.

  Attributes:
    name: of the layer.
    x: input [N, H, W, Cin].
    kernel: [rows, columns, Cin / groups, Cout].
    bias: [Cout] or a number.
    stride: of the dense layer.
    padding: zeros on each side.
    groups: number of channel groups.
    activation: one of `bounds.ACTIVATIONS`.
  """

  name: str
  x: jax.Array
  kernel: jax.Array
  bias: jax.Array | float = 0.0
  stride: int = 1
  padding: int = 0
  groups: int = 1
  activation: str = 'relu'


class BoundRow(NamedTuple):
  """One layer of a report. All ratios are medians over the images with an error, but the worst.

  Attributes:
    layer: name.
    images: number of images with an error.
    error: true error over the norm of the dense output.
    a_priori: a-priori bound over true error.
    a_posteriori: a-posteriori bound over true error.
    trivial: ||virtual|| + ||dense|| over true error.
    ratio: the smallest of the three over true error.
    worst: largest such ratio of an image.
    ratio_max: a-posteriori bound over true error, both in the largest magnitude.
    violations: number of images and bounds where a bound lies below the error; 0 by the theorem.
  """

  layer: str
  images: int
  error: float
  a_priori: float
  a_posteriori: float
  trivial: float
  ratio: float
  worst: float
  ratio_max: float
  violations: int


def bound_report(layers: Iterable[BoundedLayer], *, rank: int | None = None) -> list[BoundRow]:
  """Compares the bounds of layers with their true errors, in float64.

  Args:
    layers: in the order of the report; a generator keeps one input in memory at a time.
    rank: of the a-posteriori form, see `layer_bound`; clipped to each kernel's own.

  Returns:
    One row a layer.
  """
  return [_row(layer, rank) for layer in layers]


def _row(layer, rank):
  depth = math.prod(layer.kernel.shape[:3])
  if rank is not None:
    rank = min(rank, depth, layer.kernel.shape[3] // layer.groups)
  options = layer._asdict()
  name = options.pop('name')
  arrays = [options.pop(key) for key in ('x', 'kernel', 'bias')]
  with jax.enable_x64(True):
    arrays = [jnp.asarray(a, jnp.float64) for a in arrays]
    bound = jax.tree.map(np.asarray, layer_bound(*arrays, rank=rank, **options))
    truth = jax.tree.map(np.asarray, layer_error(*arrays, **options))
  # What is left of an exact interpolation is rounding, and no ratio.
  erring = truth.error > 1e-12 * truth.output
  truth, (a_priori, a_posteriori, largest) = jax.tree.map(
    lambda a: a[erring], (truth, (bound.a_priori, bound.a_posteriori, bound.a_posteriori_max))
  )
  smallest = np.minimum(np.minimum(a_priori, a_posteriori), truth.trivial) / truth.error
  return BoundRow(
    name,
    int(erring.sum()),
    _median(truth.error / truth.output),
    _median(a_priori / truth.error),
    _median(a_posteriori / truth.error),
    _median(truth.trivial / truth.error),
    _median(smallest),
    float(smallest.max(initial=-math.inf)) if smallest.size else math.nan,
    _median(largest / truth.error_max),
    _below(a_priori, truth.error)
    + _below(a_posteriori, truth.error)
    + _below(largest, truth.error_max)
    + _below(truth.trivial, truth.error),
  )


def _median(values: np.ndarray) -> float:
  return float(np.median(values)) if values.size else math.nan


def _below(bound: np.ndarray, error: np.ndarray) -> int:
  """Images whose bound lies below the error by more than float64's rounding explains."""
  return int((bound < error * (1 - 1e-9)).sum())
