"""Convolutions that read and write virtual maps, against NumPy loops over the full map."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cnnopt_jax import vip
from tests.vip import oracle
from tests.vip.maps import SIZES, full, random, random_map


def cases(size):
  """(kernel side, padding, stride, groups)."""
  for k, p in ((1, 0), (3, 1), (3, 0), (5, 2), (3, 2)):
    for stride in (1, 2, 3, 4) if (k, p) == (3, 1) else (1, 2):
      for groups in (1, 2, 4) if (k, p, stride) in ((3, 1, 1), (3, 1, 2)) else (1,):
        if min(size) + 2 * p >= k:
          yield k, p, stride, groups


def kernel_of(case, features=8):
  return random((case[0], case[0], 4 // case[3], features), 1)


@pytest.mark.parametrize('size', SIZES)
def test_every_form_reads_the_full_map(size):
  x = random_map(size, 4)

  def read(x):
    results = {}
    for case in cases(size):
      k, p, stride, groups = case
      setting = dict(stride=stride, padding=((p, p), (p, p)), groups=groups)
      for form in (None, *vip.conv_forms(x, (k, k), *setting.values())):
        results[*case, str(form)] = vip.conv(x, kernel_of(case), form=form, **setting)
    return results

  results = jax.tree.map(np.asarray, jax.jit(read)(x))
  assert {key[-1] for key in results} == set(vip.FORMS) - {'direct'} | {'None'}
  for (k, p, stride, groups, form), got in results.items():
    kernel = np.asarray(kernel_of((k, p, stride, groups)))
    want = oracle.conv(full(x), kernel, stride, ((p, p), (p, p)), groups)
    assert got.shape == want.shape, (k, p, stride, groups, form)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-13, err_msg=f'{k, p, stride, form}')


@pytest.mark.parametrize('size', SIZES)
def test_virtual_result_samples_the_dense_one(size):
  x, array = random_map(size, 4), random((2, *size, 4))

  def write(x, array):
    results = {}
    for case in cases(size):
      k, p, stride, groups = case
      setting = dict(stride=stride, padding=((p, p), (p, p)), groups=groups, virtual=True)
      for source in (x, array):
        forms = vip.conv_forms(source, (k, k), 2 * stride, setting['padding'], groups)
        for form in (None, *forms):
          results[*case, type(source) is vip.VirtualMap, str(form)] = vip.conv(
            source, kernel_of(case), form=form, **setting
          )
    return results

  results = jax.jit(write)(x, array)
  for (k, p, stride, groups, reads_virtual, form), got in results.items():
    source = full(x) if reads_virtual else np.asarray(array)
    kernel = np.asarray(kernel_of((k, p, stride, groups)))
    want = oracle.conv(source, kernel, stride, ((p, p), (p, p)), groups)
    assert got.size == want.shape[1:3]
    np.testing.assert_allclose(
      got.samples, want[:, ::2, ::2], rtol=0, atol=1e-13, err_msg=f'{k, p, stride, groups, form}'
    )


def test_array_in_array_out_is_lax():
  x, kernel = random((2, 7, 6, 4)), random((3, 5, 2, 6), 1)
  got = vip.conv(x, kernel, stride=2, padding=((0, 2), (2, 1)), groups=2)
  want = lax.conv_general_dilated(
    x,
    kernel,
    (2, 2),
    ((0, 2), (2, 1)),
    feature_group_count=2,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  np.testing.assert_allclose(got, want, rtol=1e-14)


def test_uneven_padding_and_oblong_kernels():
  x, kernel = random_map((7, 10), 4), random((3, 5, 4, 6), 1)
  for stride in (1, 2):
    padding = ((0, 2), (2, 1))
    want = oracle.conv(full(x), np.asarray(kernel), stride, padding)
    for form in (None, *vip.conv_forms(x, kernel.shape, stride, padding, 1)):
      conv = functools.partial(vip.conv, stride=stride, padding=padding, form=form)
      np.testing.assert_allclose(jax.jit(conv)(x, kernel), want, rtol=0, atol=1e-13)


@pytest.mark.parametrize('size', [(2, 2), (5, 6), (9, 8)])
def test_folded_kernel_reads_maps_and_arrays(size):
  x, array = random_map(size, 4), random((2, *size, 4))
  kernel = random((3, 3, 4, 6), 1)
  folded = vip.fold_kernel(kernel)
  assert folded.shape == kernel.shape
  np.testing.assert_allclose(folded.unfold(), kernel, atol=1e-15)

  def both(kernel):
    results = [
      vip.conv(source, kernel, stride=stride, virtual=virtual)
      for source in (x, array)
      for stride in (1, 2)
      for virtual in (False, True)
    ]
    forms = vip.conv_forms(x, kernel.shape, 2, ((1, 1), (1, 1)), 1)
    return results + [vip.conv(x, kernel, virtual=True, form=form) for form in forms]

  for got, want in zip(*map(jax.tree.leaves, (jax.jit(both)(folded), jax.jit(both)(kernel)))):
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-13)


def test_prepared_kernels_read_maps_and_arrays():
  x, array = random_map((11, 32), 32), random((2, 11, 16, 32))
  kernel = random((3, 3, 32, 33), 1)
  folded, transformed = (
    prepare(kernel, platform='cpu') for prepare in (vip.fold_kernel, vip.winograd_kernel)
  )
  assert folded.transformed.shape == transformed.transformed.shape == (4, 4, 32, 33)
  assert transformed.shape == kernel.shape and transformed.dtype == kernel.dtype

  def every_way(kernel):
    results = [
      vip.conv(source, kernel, stride=stride, virtual=virtual)
      for source in (x, array)
      for stride in (1, 2)
      for virtual in (False, True)
    ]
    return results + [
      vip.conv(x, kernel, virtual=True, form='winograd'),
      vip.conv(array, kernel, form='winograd'),
    ]

  want = jax.tree.leaves(jax.jit(every_way)(kernel))
  for prepared in (folded, transformed):
    for got, expected in zip(jax.tree.leaves(jax.jit(every_way)(prepared)), want, strict=True):
      np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)

  for few in (random((3, 3, 32, 31)), random((1, 1, 64, 64))):
    assert vip.winograd_kernel(few, platform='cpu') is few
  assert vip.fold_kernel(random((3, 3, 31, 32)), platform='cpu').transformed is None


def test_winograd_is_chosen_where_its_kernel_was_prepared_and_it_was_measured_to_pay():
  chosen = lambda shape, channels, transformed=True: vip.conv_form(
    jax.ShapeDtypeStruct(shape, jnp.float32),
    (3, 3, *channels),
    1,
    ((1, 1), (1, 1)),
    1,
    transformed=transformed,
    platform='cpu',
  )
  assert chosen((4, 28, 28, 256), (256, 256)) == 'winograd'
  assert chosen((4, 56, 56, 256), (256, 256)) == 'winograd'  # Many channels: however large.
  assert chosen((4, 28, 28, 256), (256, 256), transformed=False) == 'direct'
  assert chosen((4, 112, 112, 64), (64, 128)) == 'direct'  # Its sums would not fit in caches.
  assert chosen((4, 7, 7, 256), (256, 256)) == 'direct'  # Too few rows for sixteen products.
  x = vip.VirtualMap(jnp.zeros((4, 28, 28, 256)), (56, 56))
  setting = x, (3, 3, 256, 256), 2, ((1, 1), (1, 1)), 1, True
  assert vip.conv_form(*setting, transformed=True, platform='cpu') == 'winograd'
  assert vip.conv_form(*setting, platform='cpu') != 'winograd'


def test_the_form_depends_on_the_platform_that_is_named():
  """Whatever the tests run on."""
  one = ((1, 1), (1, 1))
  small = vip.VirtualMap(jnp.zeros((1, 7, 7, 256)), (14, 14))
  large = vip.VirtualMap(jnp.zeros((4, 56, 56, 64)), (112, 112))
  transformed = vip.VirtualMap(jnp.zeros((4, 28, 28, 256)), (56, 56))
  forms = {
    platform: (
      vip.conv_form(small, (3, 3, 256, 256), 2, one, 1, True, platform=platform),
      vip.conv_form(large, (3, 3, 64, 64), 2, one, 1, True, platform=platform),
      vip.conv_form(
        transformed, (3, 3, 256, 256), 2, one, 1, True, transformed=True, platform=platform
      ),
    )
    for platform in ('cpu', 'gpu', 'tpu', None)
  }
  assert forms['cpu'] == ('patches', 'ring', 'winograd')
  assert forms['gpu'] == forms['tpu'] == ('padded', 'padded', 'padded')
  assert forms[None] == forms['cpu' if jax.default_backend() == 'cpu' else 'gpu']
  # `conv` takes what `conv_form` names.
  kernel = jnp.zeros((3, 3, 64, 64))
  program = lambda **options: str(
    jax.make_jaxpr(functools.partial(vip.conv, virtual=True, **options))(large, kernel)
  )
  assert program(platform='cpu') == program(form='ring')
  assert program(platform='gpu') == program(form='padded') != program(form='ring')
  with pytest.raises(ValueError, match="platform='GPU'; allowed: cpu, gpu"):
    vip.conv(large, kernel, platform='GPU')


@pytest.mark.parametrize('platform', ['cpu', 'gpu', 'cuda', 'tpu', None])
def test_what_is_prepared_depends_on_the_platform_that_is_named(platform):
  on_cpu = platform == 'cpu' or platform is None and jax.default_backend() == 'cpu'
  kernel = random((3, 3, 32, 32))
  assert isinstance(vip.fold_kernel(kernel, platform=platform), vip.FoldedKernel)
  assert (vip.fold_kernel(kernel, platform=platform).transformed is not None) == on_cpu
  found = vip.winograd_kernel(kernel, platform=platform)
  assert isinstance(found, vip.WinogradKernel) if on_cpu else found is kernel

  params = {name: {'conv': {'kernel': kernel}} for name in ('virtual', 'dense')}
  folded = vip.fold(params, ('virtual',), platform=platform)
  prepared = vip.winograd_transform(folded, ('dense',), platform=platform)
  assert (prepared['virtual']['conv']['kernel'].transformed is not None) == on_cpu
  assert isinstance(prepared['dense']['conv']['kernel'], vip.WinogradKernel) == on_cpu


@pytest.mark.parametrize('prepare', [vip.fold_kernel, vip.winograd_kernel])
def test_an_unknown_platform_is_refused(prepare):
  with pytest.raises(ValueError, match="platform='nvidia'; allowed: cpu, gpu"):
    prepare(random((3, 3, 32, 32)), platform='nvidia')


@pytest.mark.parametrize(
  'form', ['ring', 'padded', 'patches', 'winograd', 'strips', 'phases', 'pointwise']
)
def test_gradients_are_those_through_the_full_map(form):
  k, stride = (1, 1) if form == 'pointwise' else (3, 1 if form == 'phases' else 2)
  padding = ((k // 2,) * 2,) * 2
  x, kernel = random_map((5, 6), 3), random((k, k, 3, 2), 1)

  def gradients(form):
    def loss(samples, kernel):
      y = vip.conv(
        vip.VirtualMap(samples, x.size), kernel, stride=stride, padding=padding, form=form
      )
      return jnp.sum(jnp.sin(y))

    return jax.jit(jax.grad(loss, (0, 1)))(x.samples, kernel)

  for got, want in zip(gradients(form), gradients('materialized')):
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_dtypes_are_kept_and_exact_to_their_rounding(dtype):
  # 36 products of numbers of order 1, each rounded a few times.
  tolerance = 4 * 36**0.5 * float(jnp.finfo(dtype).eps) * 3
  x = random_map((9, 8), 4, dtype=np.float32)
  x, kernel = x.replace(samples=x.samples.astype(dtype)), random((3, 3, 4, 6), 1).astype(dtype)
  for stride in (1, 2):
    want = oracle.conv(full(x), np.asarray(kernel, np.float64), stride, ((1, 1), (1, 1)))
    for form in (None, *vip.conv_forms(x, kernel.shape, stride, ((1, 1), (1, 1)), 1)):
      got = jax.jit(functools.partial(vip.conv, stride=stride, form=form))(x, kernel)
      assert got.dtype == dtype
      np.testing.assert_allclose(np.asarray(got, np.float64), want, rtol=0, atol=tolerance)


def test_vmap_over_maps_and_kernels():
  samples, kernels = random((3, 2, 3, 4, 4)), random((3, 3, 3, 4, 5), 1)
  conv = lambda s, k: vip.conv(vip.VirtualMap(s, (6, 7)), k, virtual=True)
  got = jax.jit(jax.vmap(conv))(samples, kernels)
  assert got.size == (6, 7)
  for i in range(3):
    np.testing.assert_allclose(got.samples[i], conv(samples[i], kernels[i]).samples, atol=1e-13)
  shared = jax.jit(jax.vmap(conv, (0, None)))(samples, kernels[0])
  np.testing.assert_allclose(shared.samples[2], conv(samples[2], kernels[0]).samples, atol=1e-13)


@pytest.mark.parametrize(
  'kwargs, words',
  [
    (dict(form='phases'), "form='phases'; allowed here: materialized, strips, padded, patches"),
    (dict(stride=0), 'stride=0; allowed'),
    (dict(stride=1.5), 'stride=1.5; allowed: one or two integers'),
    (dict(stride=(2, 2, 2)), r'stride=\(2, 2, 2\); allowed'),
    (dict(dilation=(1, 0)), r'dilation=\(1, 0\); allowed: one or two integers of at least 1'),
    (dict(groups=3), r'groups=3; allowed: \[N, H, W, Cin\]'),
    (dict(groups=1.0), 'groups=1.0; allowed: an integer'),
    (dict(groups=4), r'groups=4; allowed: \[N, H, W, Cin\]'),
    (dict(padding=((0, 0), (0, 0))), 'does not fit into a map'),
    (dict(padding=0.7), r'padding=0.7; allowed: \(\(top, bottom\), \(left, right\)\)'),
    (dict(padding=((0.7, 1), (1, 1))), r'padding=\(\(0.7, 1\), \(1, 1\)\); allowed'),
    (dict(padding='CIRCULAR'), "padding='CIRCULAR'; allowed: .*'SAME', 'SAME_LOWER', 'VALID'"),
    (dict(padding=(1, 2, 3)), r'padding=\(1, 2, 3\); allowed'),
  ],
)
def test_wrong_arguments_are_named(kwargs, words):
  x, kernel = random_map((2, 2), 4), random((3, 3, 4, 2))
  with pytest.raises(ValueError, match=words):
    vip.conv(x, kernel, **{'stride': 2, **kwargs})


def test_transform_leaves_everything_else_alone():
  params = {
    'a': {'conv': {'kernel': random((3, 3, 32, 32)), 'bias': random((32,))}},
    'b': {'conv': {'kernel': random((3, 3, 4, 4))}},
  }
  transformed = vip.winograd_transform(vip.fold(params, ('b',)), ('a',), platform='cpu')
  assert isinstance(transformed['a']['conv']['kernel'], vip.WinogradKernel)
  assert transformed['a']['conv']['bias'] is params['a']['conv']['bias']
  assert isinstance(transformed['b']['conv']['kernel'], vip.FoldedKernel)
  with pytest.raises(ValueError, match="'c' is no unit"):
    vip.winograd_transform(params, ('c',))
  again = vip.winograd_transform(transformed, ('a',), platform='cpu')
  assert again['a']['conv']['kernel'] is transformed['a']['conv']['kernel']
  # What was prepared for one way to read is not silently left at that for the other.
  with pytest.raises(ValueError, match="kernel of 'b' is a FoldedKernel.*the trained parameters"):
    vip.winograd_transform(transformed, ('b',))
  with pytest.raises(ValueError, match="kernel of 'a' is a WinogradKernel.*the trained parameters"):
    vip.fold(transformed, ('a',))


def test_fold_leaves_everything_else_alone():
  params = {
    'a': {'conv': {'kernel': random((3, 3, 4, 4))}, 'norm': {'scale': random((4,))}},
    'b': {'c': {'conv': {'kernel': random((1, 1, 4, 4))}}},
    'raw': {'kernel': random((3, 3, 1, 1))},
  }
  folded = vip.fold(params, ('a', 'b/c', 'raw'))
  assert isinstance(folded['a']['conv']['kernel'], vip.FoldedKernel)
  assert isinstance(folded['raw']['kernel'], vip.FoldedKernel)
  assert folded['b'] == params['b'] and folded['a']['norm'] is params['a']['norm']
  assert not isinstance(params['a']['conv']['kernel'], vip.FoldedKernel)
  again = vip.fold(folded, ('a',))
  assert again['a']['conv']['kernel'] is folded['a']['conv']['kernel']
  for name in ('x', 'a/x', 'b'):
    with pytest.raises(ValueError, match=f'plan: {name!r}'):
      vip.fold(params, (name,))
  with pytest.raises(ValueError, match=r'shape \(5, 5, 1, 1\)'):
    vip.fold_kernel(random((5, 5, 1, 1)))


def as_float32(x):
  return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), x)


@pytest.mark.default_flags
def test_a_map_read_at_odd_strides_is_the_full_map_s():
  """The call that gave 3e37: XLA's convolution with negative padding."""
  x = as_float32(random_map((40, 40), 8))
  for side, pads in ((1, 0), (1, -1), (3, 1), (3, -2)):
    kernel, padding = as_float32(random((side, side, 8, 8), 1)), ((pads, pads), (pads, 0))
    cut = full(x)[:, max(-pads, 0) : 40 - max(-pads, 0), max(-pads, 0) :]
    around = tuple(tuple(max(p, 0) for p in pair) for pair in padding)
    for stride in (1, 2, 3, 5):
      want = oracle.conv(cut, np.asarray(kernel, np.float64), stride, around)
      for form in (None, *vip.conv_forms(x, kernel.shape, stride, padding, 1)):
        got = vip.conv(x, kernel, stride=stride, padding=padding, form=form)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-4, err_msg=f'{side, pads, stride}')


@pytest.mark.default_flags
@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_narrow_types_lose_what_the_written_map_s_convolution_loses(dtype):
  """Folded taps are rounded once, the map's means likewise; strips are sums of a few results."""
  x = jax.tree.map(lambda s: s.astype(dtype), random_map((14, 14), 64))
  kernel = random((3, 3, 64, 32), 1).astype(dtype)
  exact = oracle.conv(full(x), np.asarray(kernel, np.float64), 2, ((1, 1), (1, 1)))
  forms = vip.conv_forms(x, kernel.shape, 2, ((1, 1), (1, 1)), 1)
  errors = {
    form: np.abs(np.asarray(vip.conv(x, kernel, stride=2, form=form), np.float64) - exact).mean()
    for form in forms
  }
  assert set(errors) == {'materialized', 'strips', 'padded', 'patches', 'ring', 'winograd'}
  assert max(errors.values()) < 1.5 * errors['materialized'], errors
  assert errors['winograd'] < 1.1 * errors['padded']
