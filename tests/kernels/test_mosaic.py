"""The Mosaic GPU kernels without a GPU: in the interpreter with race detection, and lowered.

The interpreter of JAX 0.10 runs programs in sequence and so sees no races between them; those of
0.11 and later do. Lowering catches what the interpreter accepts and Mosaic does not.
"""

import functools
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cnnopt_jax.kernels import dispatch, linear, pallas, rows
from cnnopt_jax.kernels.interp2x import interp2x, mosaic
from cnnopt_jax.kernels.interp2x_max_pool import interp2x_max_pool
from tests.kernels.interpolation import OPS, operands

JAX_VERSION = tuple(int(n) for n in re.findall(r'\d+', jax.__version__)[:2])
# Batch, size, channels: ragged rows of several tiles, least rows, wide and narrow, all odd.
CASES = [
  (1, (4, 35), 16, 'float32'),
  (2, (3, 6), 64, 'bfloat16'),
  (1, (2, 10), 256, 'bfloat16'),
  (3, (5, 5), 128, 'float32'),
]


def value_and_cotangents(name, size, implementation, *arrays):
  """An op's result, and what its transpose makes of it."""
  op = functools.partial(OPS[name][0], size=size, implementation=implementation)
  out, pull = jax.vjp(op, *arrays)
  return out, *pull(jnp.cos(out) + 1)


def assert_close(ours, theirs):
  for a, b in zip(ours, theirs, strict=True):
    assert a.dtype == b.dtype and a.shape == b.shape
    # Both add up at most nine terms in float32 and round once; cotangents reach 2, times 4.
    tolerance = 16 * float(jnp.finfo(a.dtype).eps)
    np.testing.assert_allclose(a.astype(np.float32), b.astype(np.float32), tolerance, tolerance)


@pytest.mark.parametrize('case', CASES, ids=str)
@pytest.mark.parametrize('name', OPS)
def test_interpreted_kernels_equal_xla(name, case):
  batch, size, channels, dtype = case
  arrays = list(map(jnp.asarray, operands(name, batch, size, channels, dtype)))
  with pallas.interpreted():
    ours = jax.jit(functools.partial(value_and_cotangents, name, size, 'mosaic'))(*arrays)
    jax.block_until_ready(ours)
  theirs = jax.jit(functools.partial(value_and_cotangents, name, size, 'xla'))(*arrays)
  assert_close(ours, theirs)


@pytest.mark.skipif(pallas.capability() < 9, reason='no NVIDIA GPU of capability 9.0 here')
def test_kernels_on_the_gpu_equal_xla():
  for name in OPS:
    for batch, size, channels, dtype in [*CASES, (4, (56, 56), 256, 'bfloat16')]:
      arrays = list(map(jnp.asarray, operands(name, batch, size, channels, dtype)))
      run = functools.partial(value_and_cotangents, name, size)
      assert_close(*(jax.jit(functools.partial(run, form))(*arrays) for form in ('mosaic', 'xla')))


@pytest.mark.parametrize('name', OPS)
def test_vmap_is_one_launch_and_forward_mode_stays(name):
  size = (3, 6)
  op = functools.partial(OPS[name][0], size=size, implementation='mosaic')
  members = [operands(name, 1, size, 64, seed=seed) for seed in range(2)]
  stacked = [jnp.stack(arrays) for arrays in zip(*members)]
  with pallas.interpreted():
    program = jax.make_jaxpr(jax.vmap(op))(*stacked)
    mapped = jax.jit(jax.vmap(functools.partial(value_and_cotangents, name, size, 'mosaic')))(
      *stacked
    )
    tangents = jax.jit(lambda *a: jax.jvp(op, a, a))(*map(jnp.asarray, members[0]))
    jax.block_until_ready((mapped, tangents))
  calls = [e for e in program.jaxpr.eqns if 'cnnopt' in str(e)]
  assert len(calls) == 1
  for i, arrays in enumerate(members):
    assert_close(
      [m[i] for m in mapped], value_and_cotangents(name, size, 'xla', *map(jnp.asarray, arrays))
    )
  arrays = list(map(jnp.asarray, members[0]))
  assert_close(tangents, jax.jvp(functools.partial(OPS[name][0], size=size), arrays, arrays))


# Rows and channels of VGG-16, ResNet-50 and CIFAR layers; both parities.
LOWERED = [(32, (224, 224), 64), (256, (27, 27), 512), (32, (16, 17), 16)]


@pytest.mark.parametrize('dtype', rows.DTYPES)
@pytest.mark.parametrize('name', OPS)
def test_lowers_for_an_h200(name, dtype):
  for batch, size, channels in LOWERED:
    text = lowered(name, batch, size, channels, dtype)
    assert text.count('mosaic_gpu_v2') == 2, (batch, size, channels)


def lowered(name, batch, size, channels, dtype, implementation='mosaic', kind='NVIDIA H200'):
  """StableHLO of an op and its transpose for a GPU that is not here."""
  shapes = {'s': tuple(-(-n // 2) for n in size), 'm': size}
  types = [jax.ShapeDtypeStruct((batch, *shapes[k], channels), dtype) for k in OPS[name][2]]
  with pallas.tracing_for(kind, 132):
    run = jax.jit(functools.partial(value_and_cotangents, name, size, implementation))
    return run.trace(*types).lower(lowering_platforms=('cuda',)).as_text()


@pytest.mark.parametrize('name', OPS)
def test_every_tuned_tile_lowers(name):
  """Tables are per device; a key is samples in a row, channels, type."""
  module = OPS[name][0]
  module = getattr(module, 'func', module).__module__.replace('.api', '.tuned')
  tables = __import__(module, fromlist=['TILES']).TILES
  for kind, tiles in tables.items():
    for (width, channels, dtype), tile in tiles.items():
      assert tile in rows.candidates(width, channels, dtype, position_bytes=8)
      lowered(name, 32, (2 * width, 2 * width), channels, dtype, kind=kind)


@pytest.mark.parametrize('dtype', rows.DTYPES)
def test_every_candidate_tile_lowers(dtype):
  samples = jax.ShapeDtypeStruct((2, 9, 9, 48), dtype)
  tiles = rows.candidates(9, 48, dtype, position_bytes=8)
  assert len(tiles) >= 2
  for tile in tiles:
    for function in mosaic.OP:
      x = samples if function is mosaic.interp2x else jax.ShapeDtypeStruct((2, 18, 18, 48), dtype)
      with pallas.tracing_for('NVIDIA H200', 132):
        run = jax.jit(functools.partial(function, size=(18, 18), tile=tile))
        assert 'mosaic_gpu_v2' in run.trace(x).lower(lowering_platforms=('cuda',)).as_text()


def test_left_to_itself_an_op_takes_the_kernel_on_a_gpu_for_large_maps():
  uses = lambda *args: 'mosaic_gpu_v2' in lowered('max_pool', *args, implementation=None)
  assert uses(32, (32, 32), 64, 'float32')
  assert not uses(1, (32, 32), 64, 'float32')  # Launch-bound.
  assert not uses(32, (32, 32), 62, 'float32')
  assert not uses(32, (32, 32), 64, 'float16')
  x = jnp.zeros((2, 32, 32, 512))
  assert 'cnnopt_linear' in str(jax.make_jaxpr(functools.partial(interp2x, size=(64, 64)))(x))
  assert dispatch.choose(None, x, (64, 64), tuned={}, position_bytes=8, op=interp2x) is None


@pytest.mark.parametrize(
  'shape, dtype, size, words',
  [
    ((2, 2, 5, 16), 'float16', (4, 9), 'float16 samples; the kernels take float32 and bfloat16'),
    ((2, 2, 5, 24), 'float32', (4, 9), '24 channels; the kernels take multiples of 16'),
    ((2, 2, 5, 16), 'float32', (4, 9), 'rows of 5 samples of 16 channels; .* more than 8'),
    ((0, 2, 5, 64), 'float32', (4, 9), 'N=0'),
    ((2, 1, 5, 64), 'float32', (1, 9), r'size=\(1, 9\)'),
  ],
)
def test_the_kernel_asked_for_by_name_refuses(shape, dtype, size, words):
  with pallas.tracing_for('NVIDIA H200', 132):
    with pytest.raises(ValueError, match=words + ".*allowed: 'xla', or None"):
      interp2x(jnp.zeros(shape, dtype), size, implementation='mosaic')
  interp2x(jnp.zeros(shape, dtype), size)


def test_the_kernel_refuses_a_cpu():
  x = jnp.zeros((2, 2, 5, 64))
  with pytest.raises(ValueError, match="'cpu'; the kernels run on NVIDIA GPUs"):
    interp2x(x, (4, 9), implementation='mosaic')


def test_a_kernel_that_does_not_run_or_is_wrong_is_left_alone():
  with pytest.warns(UserWarning, match='interp2x_max_pool: the GPU kernel does not run here'):
    assert not dispatch.sound(interp2x_max_pool, 'float32')

  def wrong(samples, size, implementation):
    return interp2x(samples, size) * (1.01 if implementation == 'mosaic' else 1)

  with pytest.warns(UserWarning, match='wrong: the GPU kernel disagrees with XLA'):
    assert not dispatch.sound(wrong, 'float32')
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    assert dispatch.sound(lambda x, size, implementation: interp2x(x, size), 'bfloat16')


def interpreted(body, scratch=(), **threads):
  """Runs a kernel on float32 [4, 2, 128] in the interpreter."""
  x = jnp.arange(1024.0).reshape(4, 2, 128)
  with pallas.interpreted():
    kernel = pallas.kernel(
      body,
      name='wrong',
      out_type=jax.ShapeDtypeStruct(x.shape, x.dtype),
      grid=(4,),
      grid_names=('i',),
      scratch_types=scratch,
      **threads,
    )
    return jax.block_until_ready(jax.jit(kernel)(x))


def test_a_read_past_the_last_row_is_caught():
  def body(x, out):
    i = lax.axis_index('i')
    out[i] = (x[i] + x[i + 1]) * 0.5  # Not clamped.

  with pytest.raises(Exception, match='(?s)Out-of-bounds|out of bounds'):
    interpreted(body)


def test_a_missing_barrier_is_caught():
  def body(x, out, shared):
    i, thread = lax.axis_index('i'), lax.axis_index('thread')
    shared[thread] = x[i, thread]
    out[i, thread] = shared[1 - thread]

  with pytest.raises(Exception, match='(?s)race|RACE'):
    interpreted(body, [pallas.smem((2, 128), jnp.float32)], num_threads=2, thread_name='thread')


def test_programs_that_write_the_same_row_are_caught():
  def body(x, out):
    i = lax.axis_index('i')
    out[i] = x[i]
    out[jnp.minimum(i + 1, 3)] = x[i]

  if JAX_VERSION < (0, 11):  # Programs in sequence: the newest JAX, which CI tests too, sees it.
    assert interpreted(body).shape == (4, 2, 128)
  else:
    with pytest.raises(Exception, match='(?s)race|RACE'):
      interpreted(body)


def interp2x_clamped_early(x, size, tile):
  """`mosaic.interp2x` but for the last row of samples, which is never read."""
  batch, height, width, channels = x.shape

  def body(x, out, staged):
    image, block = lax.axis_index('image'), mosaic.block(tile, channels)

    def read(row, s):
      return tile.load(x, image, jnp.minimum(row, height - 2), pallas.ds(s, tile.columns), block)

    def emit(row, column, values):
      out[mosaic.every_second(size, image, row, column, tile, block)] = values.astype(out.dtype)

    mosaic.interpolate(staged, emit, height=height, size=size, tile=tile, read=read)

  pairs = pallas.kernel(
    body,
    name='clamped_early',
    out_type=mosaic.pairs_type(batch, size, channels, x.dtype),
    grid=(batch, height, channels // tile.channels),
    grid_names=('image', 'row', 'channels'),
    scratch_types=[pallas.smem((2, width + 1, tile.channels), x.dtype)],
  )(x)
  return mosaic.from_pairs(pairs, batch, size)


def test_a_wrong_kernel_is_caught():
  """The comparison of the first test fails; without the mistake it does not."""
  size, x = (3, 6), jnp.asarray(operands('interp2x', 1, (3, 6), 64)[0])
  tile = rows.heuristic(3, 64, x.dtype, 8)
  with pallas.interpreted():
    wrong = jax.jit(functools.partial(interp2x_clamped_early, size=size, tile=tile))(x)
    same_where_read = jax.block_until_ready(wrong)[:, :1]
    right = jax.block_until_ready(
      jax.jit(functools.partial(mosaic.interp2x, size=size, tile=tile))(x)
    )
  expected = interp2x(x, size)
  assert_close(right, (expected,))
  assert_close((same_where_read,), (expected[:, :1],))
  with pytest.raises(AssertionError):
    assert_close((wrong,), (expected,))


def test_a_moved_interpreter_is_named(monkeypatch):
  from jax._src.pallas.mosaic_gpu.interpret import interpret_pallas_call

  monkeypatch.delattr(interpret_pallas_call, 'get_races')
  with pytest.raises(ImportError, match=f'JAX {jax.__version__} has moved the interpreter'):
    with pallas.interpreted():
      pass


def test_residuals_have_no_derivative():
  x = jnp.ones((1, 2, 2, 1))
  op = linear.Linear(lambda x, r: (x * r,), lambda g, r: (g * r,))
  run = lambda r: linear.linear_p.bind(x, r, op=op, linear=1, static=())[0].sum()
  with pytest.raises(NotImplementedError, match='residuals have no derivative'):
    jax.grad(run)(x)
