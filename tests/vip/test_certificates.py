"""Certificates of a plan's loss: coverage, closed forms, steps of the proof, the docs' table."""

import itertools
import math

import numpy as np
import pytest
from scipy import optimize, stats

from cnnopt_jax import vip
from cnnopt_jax.vip import certificates


def trinomial(images, lost_rate, gained_rate):
  """(lost, gained, probability) of every outcome, by SciPy."""
  rates = (lost_rate, gained_rate, max(0.0, 1 - lost_rate - gained_rate))
  counts = [(b, c) for b, c in itertools.product(range(images + 1), repeat=2) if b + c <= images]
  chances = stats.multinomial.pmf([(b, c, images - b - c) for b, c in counts], images, rates)
  return [(b, c, chance) for (b, c), chance in zip(counts, chances)]


@pytest.mark.parametrize('confidence', [0.8, 0.95])
@pytest.mark.parametrize('images', [1, 2, 5, 12, 30])
def test_coverage_is_exact_at_few_images(images, confidence):
  """No simulation: the chance of every outcome is summed, at rates all over the triangle."""
  counts = [(b, c) for b in range(images + 1) for c in range(images + 1 - b)]
  bounds = {each: vip.loss_bound(*each, images, confidence=confidence) for each in counts}
  rates = [0.0, 0.01, 0.04, 0.1, 0.2, 0.35, 0.5, 0.8, 0.99]
  for lost, gained in itertools.product(rates, rates):
    if lost + gained <= 1:
      held = sum(p for b, c, p in trinomial(images, lost, gained) if bounds[b, c] >= lost - gained)
      assert held >= confidence - 1e-9, (lost, gained)


@pytest.mark.parametrize(
  'lost, gained', [(0.01, 0.01), (0.05, 0.02), (0.03, 0.05), (0.002, 0.0), (0.12, 0.1)]
)
def test_coverage_of_many_draws(lost, gained):
  draws, images, confidence = 4000, 500, 0.95
  rng = np.random.default_rng(0)
  counts = rng.multinomial(images, (lost, gained, 1 - lost - gained), draws)
  found = {}
  for b, c, _ in np.unique(counts, axis=0).tolist():
    found[b, c] = vip.loss_bound(b, c, images, confidence=confidence)
  failures = sum(found[b, c] < lost - gained for b, c, _ in counts.tolist())
  noise = 3 * math.sqrt(draws * confidence * (1 - confidence))
  assert failures <= (1 - confidence) * draws + noise
  # And it says something: where many images differ it fails nearly as often as it may.
  if lost > 0.01 and lost + gained <= 0.1:
    assert failures >= 0.25 * (1 - confidence) * draws


def test_joint_coverage_of_plans_and_seeds():
  """Every bound of two plans of three networks holds at once, on images that are hard together."""
  draws, images, networks, plans, confidence = 1500, 200, 3, 2, 0.8
  rng = np.random.default_rng(1)
  loss = 0.2 * 0.5 - 0.02  # What the rates below come to.
  failures, found = 0, {}
  for _ in range(draws):
    hard = rng.random(images) < 0.2
    shape = (plans, networks, images)
    lost = hard & (rng.random(shape) < 0.5)
    gained = ~lost & (rng.random(shape) < 0.02 / 0.9)
    worst = []
    for b, c in zip(lost.sum(-1).ravel().tolist(), gained.sum(-1).ravel().tolist()):
      if (b, c) not in found:
        control = np.arange(images) < b
        plan = (np.arange(images) >= b) & (np.arange(images) < b + c)
        one = vip.certify_loss(
          control[None], plan[None], plans=plans * networks, confidence=confidence
        )
        found[b, c] = one.bound
      worst.append(found[b, c])
    failures += min(worst) < loss
  noise = 3 * math.sqrt(draws * confidence * (1 - confidence))
  assert failures <= (1 - confidence) * draws + noise


@pytest.mark.parametrize('count, total', [(0, 10), (3, 10), (9, 10), (10, 10), (17, 400)])
def test_clopper_pearson_is_scipys(count, total):
  interval = stats.binomtest(count, total, alternative='less').proportion_ci(0.95, method='exact')
  assert certificates.binomial_bound(count, total) == pytest.approx(interval.high, rel=1e-10)


def test_no_image_that_differs_is_a_closed_form():
  # Nothing lost and nothing gained: the share that differs is at most 1 - (1 - 0.95)^(1 / n) by
  # itself; of the 5 % a tenth is spent on it here.
  n = 2000
  assert vip.loss_bound(0, 0, n) <= 1 - 0.005 ** (1 / n)
  # Below it lies the loss at which no image would be lost, with chance (1 - d)^n = 0.045.
  assert vip.loss_bound(0, 0, n) >= 1 - 0.045 ** (1 / n)


@pytest.mark.parametrize('images, net', [(1, 0), (4, -2), (7, 1), (9, 3)])
def test_tail_is_that_of_the_trinomial(images, net):
  for loss, differ in ((0.1, 0.3), (-0.2, 0.2), (0.4, 0.4), (0.0, 0.0), (0.3, 1.0)):
    rates = ((differ + loss) / 2, (differ - loss) / 2)
    want = sum(p for b, c, p in trinomial(images, *rates) if b - c <= net)
    got = certificates.net_tail(net, loss, differ, images)
    assert got == pytest.approx(want, abs=1e-12)


def test_tail_of_many_images_is_a_convolution():
  step, power = np.array([0.04, 0.89, 0.07]), np.ones(1)
  for _ in range(1500):
    power = np.convolve(power, step)
  for net in (-20, 30, 45, 80):
    want = power[: net + 1500 + 1].sum()
    assert certificates.net_tail(net, 0.03, 0.11, 1500) == pytest.approx(want, abs=1e-11)


def test_the_tail_grows_with_the_share_that_differs():
  """The proof's step: above (t + 2) / (n - 1), up to a half, as far as the grid can see."""
  for images in (5, 20, 60):
    for net in range(-images // 2, images // 2, 3):
      for loss in np.linspace(-0.4, 0.45, 18):
        if (images - 1) * loss >= net + 2:
          grid = np.linspace(abs(loss), 0.5, 40)
          tails = [certificates.net_tail(net, loss, differ, images) for differ in grid]
          assert np.diff(tails).min() >= -1e-12


def test_the_bound_is_where_the_tail_meets_its_level():
  lost, gained, images = 60, 40, 2000
  differ = stats.beta.ppf(0.995, 101, 1900)

  def excess(loss):
    b, c = (differ + loss) / 2, (differ - loss) / 2
    m = np.arange(images + 1)
    of_lost = stats.binom.cdf(np.floor((m + lost - gained) / 2), m, b / (b + c))
    return (stats.binom.pmf(m, images, b + c) * of_lost).sum() - 0.045

  want = optimize.brentq(excess, 0, differ)
  assert vip.loss_bound(lost, gained, images) == pytest.approx(want, rel=1e-8)


def test_the_table_of_the_docs():
  rows = [line.split() for line in certificates.__doc__.splitlines() if '000 ' in line]
  assert len(rows) == 4
  for images, lost, gained, loss, *percents in rows:
    n, b, c = (int(text.replace(',', '')) for text in (images, lost, gained))
    half = dict(confidence=0.975)
    low = 1 - certificates.binomial_bound(n - c, n, **half)
    found = (
      vip.loss_bound(b, c, n),
      certificates.binomial_bound(b, n, **half) - low,
      certificates.binomial_bound(b, n),
      certificates._hoeffding_bound(b - c, n, 0.05),
    )
    assert [f'{100 * value:.2f}' for value in ((b - c) / n, *found)] == [loss, *percents]
    assert found[0] == min(found)


def test_bounds_are_ordered():
  at = vip.loss_bound
  assert at(5, 3, 200) < at(6, 3, 200) and at(5, 4, 200) < at(5, 3, 200)
  assert at(5, 3, 200) < at(5, 3, 200, confidence=0.99)
  for b, c, n in ((0, 0, 1), (1, 0, 1), (0, 1, 1), (2000, 0, 2000), (0, 2000, 2000), (90, 90, 200)):
    assert (b - c) / n <= at(b, c, n) <= 1


def test_certificate_counts_by_hand():
  control = np.array([[1, 1, 0, 0, 1, 1], [1, 0, 0, 1, 1, 1]], bool)
  plan = np.array([[1, 0, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]], bool)
  found = vip.certify_loss(control, plan, plans=5)
  assert found.images == 6 and found.lost == (3, 1) and found.gained == (1, 2)
  assert found.loss == pytest.approx((2 - 1) / 12)
  each = [vip.loss_bound(b, c, 6, confidence=1 - 0.05 / 10) for b, c in ((3, 1), (1, 2))]
  assert found.network_bounds == pytest.approx(each)
  assert found.bound == pytest.approx(sum(each) / 2)


@pytest.mark.parametrize(
  'call, words',
  [
    (lambda: vip.loss_bound(3, 3, 5), 'lost=3, gained=3, images=5; allowed'),
    (lambda: vip.loss_bound(-1, 3, 5), 'lost=-1'),
    (lambda: vip.loss_bound(0, 0, 0), 'images=0'),
    (lambda: vip.loss_bound(1, 1, 5, confidence=1.0), 'confidence=1.0; allowed: between 0 and 1'),
    (lambda: vip.certify_loss([[1]], [[1]], plans=1), 'dtypes int64 and int64; allowed: bool'),
    (lambda: vip.certify_loss([[True]], [[True, False]], plans=1), 'shapes'),
    (lambda: vip.certify_loss([[True]], [[True]], plans=0), 'plans=0; allowed: 1 and more'),
  ],
)
def test_what_is_no_count_is_refused(call, words):
  with pytest.raises(ValueError, match=words):
    call()
