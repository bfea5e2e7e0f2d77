"""Orders, rounds, paired intervals, and one program for every plan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax import models, vip


def test_order_is_by_accuracy_lost_per_millisecond():
  units = ('a', 'b', 'c', 'd', 'e', 'f')
  losses = (0.02, 0.02, -0.01, 0.0, 0.5, 0.01)
  saved = (1.0, 4.0, 1.0, 2.0, -1.0, 0.0)
  # d and c lose nothing, d saves more; b before a; then those that save no time, least loss first.
  assert vip.order_units(units, losses, saved) == ('d', 'c', 'b', 'a', 'f', 'e')


def test_rounds_grow_by_equal_groups():
  assert vip.cumulative_plans('abcde', 2) == (('a', 'b'), ('a', 'b', 'c', 'd', 'e'))
  assert [len(plan) for plan in vip.cumulative_plans('abcdefg', 3)] == [2, 5, 7]
  assert vip.cumulative_plans('ab', 2) == (('a',), ('a', 'b'))
  with pytest.raises(ValueError, match='3 rounds of 2 units; allowed: 1 to 2'):
    vip.cumulative_plans('ab', 3)


def test_paired_interval_is_that_of_the_mean():
  rng = np.random.default_rng(0)
  a = rng.random((3, 400)) < 0.8
  b = a ^ (rng.random((3, 400)) < 0.1)
  d = vip.paired_difference(a, b)
  per_image = (a.astype(float) - b).mean(0)
  assert d.mean == pytest.approx(per_image.mean())
  # The bootstrap of a mean of 400 values is close to normal.
  half = 1.96 * per_image.std(ddof=1) / 20
  assert d.low == pytest.approx(d.mean - half, abs=0.15 * half)
  assert d.high == pytest.approx(d.mean + half, abs=0.15 * half)
  # Pairing cancels what both have in common.
  assert vip.paired_difference(a, a) == (0.0, 0.0, 0.0)


def test_every_plan_runs_in_one_program():
  model = models.create('plain', num_classes=4, width_multiplier=0.1)
  units = models.unit_names(model)
  x = jax.random.normal(jax.random.key(0), (8, 12, 12, 1))
  variables = jax.jit(model.init)(jax.random.key(1), x)
  traces = []

  def apply(variables, x):
    traces.append(1)
    return model.apply(variables, x)

  predict = vip.make_predictor(apply, units)
  plans = ((), ('unit1', 'unit5'), ('unit0',), units)
  masks = vip.plan_masks(units, plans)
  np.testing.assert_array_equal(masks.sum(1), [0, 2, 1, 6])
  found = [predict(variables, mask, x) for mask in masks]
  assert len(traces) == 1
  for plan, got in zip(plans[:2], found):
    want = jnp.argmax(jax.jit(models.with_plan(model, plan).apply)(variables, x), -1)
    np.testing.assert_array_equal(got, want)
