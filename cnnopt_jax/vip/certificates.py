"""What a plan loses at most, from images that it and its control both classified.

A dense network and a virtual one classify the same `n` images, drawn alike and independently of
both networks. Of them `b` only the control gets right (lost) and `c` only the plan (gained); the
rest, right or wrong with both, says nothing of the loss `p_b - p_c`.

**The bound** is exact: it holds for every n and all rates, without a normal approximation. Write
`d = p_b - p_c` for the loss, `s = p_b + p_c` for the share of images on which both differ, and
`F(d, s) = P(B - C <= b - c)`. With a = a_1 + a_2 = 1 - confidence, the set of all (d, s) with

    s <= s_U,  the Clopper-Pearson bound of b + c of n at a_1,   and   F(d, s) > a_2

holds the true pair with probability 1 - a at least: each condition fails with at most its share
(Berger and Boos, JASA 89, 1994, for tests; recalled). The bound is the largest d of the set. For
s_U <= 1/2 it is found where it stands: as one of n steps moves, with G the distribution and g the
probabilities of the sum of the other n - 1,

    dF/ds = n (G(t - 1) / 2 + G(t + 1) / 2 - G(t)) = n / 2 (g(t + 1) - g(t)),   t = b - c.

A step's generating polynomial p_c + p_0 z + p_b z^2 has real roots where p_0 >= s, so the sum is
one of independent zeros and ones, its g has one peak, and that is less than 1 away from the mean
(n - 1) d (Darroch, Ann. Math. Statist. 35, 1964; recalled). Hence F grows with s wherever
(n - 1) d >= t + 2, and is largest at s_U; in d it falls. For all s, Hoeffding's
F <= exp(-n kl((1 + t / n) / 2, (1 + d) / 2)) (JASA 58, 1963; recalled) bounds the same set.

What else is valid, in points at 95 %, and why it was not taken (the choice fell on these rates, of
no run; `tests/vip/test_certificates.py` holds the table):

    n        b    c  loss  this one  CP of b - CP of c  CP of b  Hoeffding's kl
    2,000   20   20  0.00      0.67               0.93     1.45            5.47
    2,000   60   40  1.00      1.98               2.41     3.71            6.47
    2,000  120   40  4.00      5.18               5.70     6.95            9.46
    10,000 300  200  1.00      1.40               1.62     3.30            3.45
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import special

# Of 1 - confidence, what bounds the share of images that tell the networks apart. That bound enters
# under a square root, the other one directly: so it gets little.
_SHARE_OF_DISCORDANCE = 0.1


class LossCertificate(NamedTuple):
  """Accuracy that the networks of one plan lose to their controls. All rates in 0..1.

  Attributes:
    images: number of images.
    lost: of them, those that only the control gets right, one number a network.
    gained: those that only the plan gets right, one number a network.
    loss: mean over networks on these images.
    network_bounds: upper bounds of the loss of each network, which hold together.
    bound: their mean, an upper bound of the mean loss of these networks.
  """

  images: int
  lost: tuple[int, ...]
  gained: tuple[int, ...]
  loss: float
  network_bounds: tuple[float, ...]
  bound: float


def certify_loss(
  control: np.ndarray, plan: np.ndarray, *, plans: int, confidence: float = 0.95
) -> LossCertificate:
  """Bounds what the networks of a plan lose on images like these, at a joint confidence.

  `1 - confidence` is divided evenly among the networks of all plans (Bonferroni), so that every
  statement about every one of them is right at once, and a plan may be picked by its loss. The
  images must have chosen nothing else: no weight, no plan, no setting.

  Args:
    control: whether each control classifies each image correctly, bool [networks, images].
    plan: the same of the networks under the plan, each beside its control.
    plans: number of plans that are certified on these images, this one among them.
    confidence: that all bounds of all plans hold.

  Returns:
    The certificate.

  Raises:
    ValueError: if the arrays are not of that kind or a number is out of range.
  """
  control, plan = np.asarray(control), np.asarray(plan)
  if control.dtype != bool or plan.dtype != bool:
    raise ValueError(f'dtypes {control.dtype} and {plan.dtype}; allowed: bool')
  if control.shape != plan.shape or control.ndim != 2 or not control.size:
    raise ValueError(f'shapes {control.shape} and {plan.shape}; allowed: one [networks, images]')
  if plans < 1:
    raise ValueError(f'plans={plans}; allowed: 1 and more')
  networks, images = control.shape
  lost, gained = (control & ~plan).sum(1).tolist(), (plan & ~control).sum(1).tolist()
  each = 1 - (1 - confidence) / (plans * networks)
  bounds = [loss_bound(b, c, images, confidence=each) for b, c in zip(lost, gained)]
  return LossCertificate(
    images=images,
    lost=tuple(lost),
    gained=tuple(gained),
    loss=(sum(lost) - sum(gained)) / (networks * images),
    network_bounds=tuple(bounds),
    bound=math.fsum(bounds) / networks,
  )


def loss_bound(lost: int, gained: int, images: int, *, confidence: float = 0.95) -> float:
  """Upper confidence bound of the accuracy that one network loses to another, exact and paired.

  See the module for the proof.

  Args:
    lost: number of images that only the other network gets right.
    gained: number of images that only this one gets right.
    images: number of all images.
    confidence: that the loss is at most the bound.

  Returns:
    The bound, in -1..1; at least `(lost - gained) / images`.

  Raises:
    ValueError: if a number is out of range.
  """
  if min(lost, gained) < 0 or lost + gained > images or images < 1:
    raise ValueError(
      f'lost={lost}, gained={gained}, images={images}; allowed: 0 and more, together at most images'
    )
  if not 0 < confidence < 1:
    raise ValueError(f'confidence={confidence}; allowed: between 0 and 1')
  miss, net = 1 - confidence, lost - gained
  level = (1 - _SHARE_OF_DISCORDANCE) * miss
  differ = binomial_bound(lost + gained, images, confidence=1 - _SHARE_OF_DISCORDANCE * miss)
  bounds = [differ, _hoeffding_bound(net, images, level)]  # No loss exceeds the share that differs.
  if differ <= 0.5 and images > 1:
    exact = _first_below(lambda d: net_tail(net, d, differ, images), level, net / images, differ)
    bounds.append(max(exact, (net + 2) / (images - 1)))
  return min(bounds)


def binomial_bound(count: int, total: int, *, confidence: float = 0.95) -> float:
  """Clopper and Pearson's upper confidence bound of a rate (Biometrika 26, 1934; recalled).

  Args:
    count: how often it happened.
    total: number of independent trials.
    confidence: one-sided.

  Returns:
    The rate at which `count` or fewer happen with probability `1 - confidence`.
  """
  if count == total:
    return 1.0
  return float(special.betaincinv(count + 1, total - count, confidence))


def net_tail(net: int, loss: float, differ: float, images: int) -> float:
  """Probability that lost minus gained images are at most `net`.

  Args:
    net: number of images; may be negative.
    loss: rate of lost minus rate of gained images, at most `differ` in magnitude.
    differ: rate of lost plus rate of gained images, in 0..1.
    images: number of all images, n.

  Returns:
    sum_m P(m of n differ) P(at most (net + m) / 2 of those m are lost).
  """
  mean = images * differ
  # By Bernstein's inequality less than 1e-16 lies farther out.
  reach = 9 * math.sqrt(mean * (1 - differ)) + 27
  m = np.arange(max(0, math.floor(mean - reach)), min(images, math.ceil(mean + reach)) + 1)
  chosen = special.gammaln(images + 1) - special.gammaln(m + 1) - special.gammaln(images - m + 1)
  weights = np.exp(chosen + special.xlogy(m, differ) + special.xlog1py(images - m, -differ))
  most = np.floor_divide(net + m, 2)
  of_lost = (differ + loss) / (2 * differ) if differ else 0.0
  inside = (0 <= most) & (most < m)  # Elsewhere the binomial tail is 0 or 1.
  tails = (most >= m).astype(float)
  k, trials = most[inside], m[inside]
  tails[inside] = special.betainc(trials - k, k + 1, 1 - min(max(of_lost, 0.0), 1.0))
  return float(weights @ tails)


def _hoeffding_bound(net: int, images: int, level: float) -> float:
  """Bound of the mean of numbers in -1..1, whatever the share that is not zero."""
  x = (1 + net / images) / 2

  def chance(loss: float) -> float:
    mean = (1 + loss) / 2
    return math.exp(-images * (special.rel_entr(x, mean) + special.rel_entr(1 - x, 1 - mean)))

  return _first_below(chance, level, net / images, 1.0)


def _first_below(f: Callable[[float], float], level: float, low: float, high: float) -> float:
  """Where a falling function reaches a level, from above; `high` where it stays over it."""
  if f(high) > level:
    return high
  for _ in range(40):
    middle = (low + high) / 2
    low, high = (middle, high) if f(middle) > level else (low, middle)
  return high
