"""What `vip.conv` takes as lax does, and what it refuses in one line."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cnnopt_jax import vip
from tests.vip.maps import full, random, random_map


@pytest.mark.parametrize('channels, side', [(4, 1), (128, 1), (256, 3)])
def test_no_images_and_no_channels_give_what_lax_gives(channels, side):
  for n, inputs in ((0, channels), (2, 0)):
    x = random_map((6, 7), inputs, n=n)
    array, kernel = jnp.asarray(full(x)), random((side, side, inputs, 33))
    padding = ((side // 2,) * 2,) * 2
    for source in (x, array):
      for stride in (1, 2, 3):
        forms = vip.conv_forms(source, kernel.shape, stride, padding, 1)
        for form in (None, *forms):
          y = vip.conv(source, kernel, stride=stride, padding=padding, form=form)
          assert y.shape == (n, -(-6 // stride), -(-7 // stride), 33) and not np.any(y)
      y = vip.conv(source, kernel, padding=padding, virtual=True)
      assert y.shape == (n, 6, 7, 33) and y.materialize().shape == y.shape


@pytest.mark.parametrize('virtual', [False, True])
def test_arguments_are_taken_as_lax_takes_them(virtual):
  x, kernel = random_map((9, 12), 4), random((3, 3, 4, 6), 1)
  array, conv = jnp.asarray(full(x)), functools.partial(vip.conv, virtual=virtual)

  def theirs(stride, padding, dilation=(1, 1), kernel=kernel, groups=1):
    return lax.conv_general_dilated(
      array,
      kernel,
      stride,
      padding,
      rhs_dilation=dilation,
      feature_group_count=groups,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )

  def check(want, **options):
    for source in (x, array):
      forms = [None]
      if not virtual and isinstance(source, vip.VirtualMap) and 'padding' in options:
        forms += ['materialized']
      for form in forms:
        got = conv(
          source,
          options.get('kernel', kernel),
          form=form,
          **{name: value for name, value in options.items() if name != 'kernel'},
        )
        got, expected = (got.samples, want[:, ::2, ::2]) if virtual else (got, want)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12, err_msg=str(options))

  one = ((1, 1), (1, 1))
  for stride in (2, np.int64(2), np.array(2), (2, 2), [2, np.int32(2)]):
    check(theirs((2, 2), one), stride=stride)
  for stride in ((1, 2), (2, 1), (3, 2), (4, 3), (2, 6)):
    check(theirs(stride, one), stride=stride)
    for padding in ('SAME', 'VALID', 'SAME_LOWER'):
      check(theirs(stride, padding), stride=stride, padding=padding)
  for padding, pairs in ((2, ((2, 2), (2, 2))), ((0, 2), ((0, 0), (2, 2))), (np.int64(1), one)):
    check(theirs((1, 1), pairs), padding=padding)
  for dilation in (2, (3, 1), np.int64(4)):
    twice = (int(dilation),) * 2 if np.ndim(dilation) == 0 else dilation
    for stride in ((1, 1), (2, 2), (3, 2)):
      for padding in ('SAME', ((2, 2), (3, -1))):
        check(theirs(stride, padding, twice), stride=stride, padding=padding, dilation=dilation)
  grouped = random((3, 3, 2, 6), 2)
  want = theirs((1, 2), one, (2, 1), grouped, 2)
  check(want, kernel=grouped, stride=(1, 2), dilation=(2, 1), groups=np.int64(2))


def test_a_prepared_kernel_with_gaps_is_that_kernel():
  x, kernel = random_map((9, 12), 4), random((3, 3, 4, 6), 1)
  for padding in (1, 2):
    got, want = (
      vip.conv(x, k, stride=2, padding=padding, dilation=2)
      for k in (vip.fold_kernel(kernel), kernel)
    )
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


def test_types_that_do_not_fit_are_named():
  x, kernel = random_map((6, 6), 4), random((3, 3, 4, 2))
  narrow, whole = kernel.astype(jnp.bfloat16), jnp.ones((3, 3, 4, 2), jnp.int32)
  with pytest.raises(
    ValueError, match='x of type float64, kernel of type bfloat16; allowed: one ty'
  ):
    vip.conv(x, narrow)
  with pytest.raises(
    ValueError, match='x of type float64, kernel of type int32; allowed: one type'
  ):
    vip.conv(x.samples, whole)
  integers = vip.VirtualMap(jnp.ones((1, 3, 3, 4), jnp.int32), (6, 6))
  for ask in (
    lambda: vip.conv(integers, whole),
    lambda: vip.conv(integers.samples, whole, virtual=True),
    lambda: vip.fold_kernel(whole),
    lambda: vip.max_pool(integers, 2, 2),
    lambda: vip.global_mean(integers),
  ):
    with pytest.raises(ValueError, match=r'of type int32; allowed: floating types, as by astype\('):
      ask()
  # Of arrays, what lax takes.
  np.testing.assert_array_equal(vip.conv(integers.samples, whole)[0, 1, 1], [36, 36])
  with pytest.raises(ValueError, match=r'x of shape \(6, 6, 4\); allowed: \[N, H, W, C\]'):
    vip.conv(jnp.ones((6, 6, 4)), kernel)
  with pytest.raises(ValueError, match='groups=2 with 3 output channels; allowed: a divisor'):
    vip.conv(x, random((3, 3, 2, 3)), groups=2)


def test_prepared_kernels_have_no_derivative():
  x, kernel = random_map((6, 6), 4), random((3, 3, 4, 2))
  folded = vip.fold_kernel(kernel)
  for source in (x, x.samples):
    with pytest.raises(
      ValueError, match='derivative by a prepared kernel, a FoldedKernel; allowed'
    ):
      jax.grad(lambda k, source=source: vip.conv(source, k).sum())(folded)
  slopes = [jax.grad(lambda x, k=k: vip.conv(x, k).sum())(x).samples for k in (folded, kernel)]
  np.testing.assert_allclose(*slopes, rtol=0, atol=1e-13)
