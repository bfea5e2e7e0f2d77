"""One point by hand, grids against points, foreign networks, what is refused before any work."""

import dataclasses
import itertools

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnopt_jax import codesign, models, nvm, quant, traffic
from cnnopt_jax.codesign import evaluation
from cnnopt_jax.workload import LayerTable, trace_layers

SMALL = dict(image_shape=(28, 28, 1), num_classes=10, width_multiplier=0.2)
FIGURES = nvm.CacheFigures(
  read_ns=2.0, write_ns=5.0, read_nj=0.5, write_nj=1.0, leakage_mw=100.0, area_mm2=4.0
)
# Small enough that the network overflows it.
CACHE = nvm.LastLevelCache('mine', 16 << 10, FIGURES)
LARGER = nvm.LastLevelCache('larger', 512 << 10, FIGURES._replace(read_ns=3.0, area_mm2=9.0))


def _params():
  model = models.create('plain', num_classes=10, width_multiplier=0.2)
  return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))['params']


def _by_hand(accesses, figures, dram):
  """The system model of arXiv 2012.04559 with DRAM, in Python."""
  reads, writes, misses = accesses
  dynamic = reads * figures.read_nj * 1e-9 + writes * figures.write_nj * 1e-9
  seconds = (reads * figures.read_ns + writes * figures.write_ns + misses * dram.access_ns) / 1e9
  leaked = figures.leakage_mw / 1000 * seconds
  total = dynamic + leaked + misses * dram.access_nj / 1e9
  return dict(
    dynamic_energy_j=dynamic,
    leakage_energy_j=leaked,
    dram_energy_j=misses * dram.access_nj / 1e9,
    total_energy_j=total,
    delay_s=seconds,
    edp_js=total * seconds,
    area_mm2=figures.area_mm2,
  )


def test_one_point_by_hand():
  report = codesign.evaluate(
    'plain', bits=2, plan=('unit1',), cache=CACHE, batch=2, dram='hbm', **SMALL
  )
  assert report.shape == () and report.axes == ()
  leaves = {
    '/'.join(key.key for key in path): leaf
    for path, leaf in jax.tree_util.tree_flatten_with_path(_params())[0]
  }
  kernels = {path: leaf for path, leaf in leaves.items() if path.endswith('kernel')}
  assert report.size.weights == 2 * sum(leaf.size for leaf in kernels.values())
  assert report.size.scales == 32 * sum(leaf.shape[-1] for leaf in kernels.values())
  others = 32 * sum(leaf.size for path, leaf in leaves.items() if path not in kernels)
  assert report.size.biases + report.size.norms + report.size.others == others
  assert report.size_bits == sum(report.size)
  # The virtual unit computes every second row and column of its map: a quarter of its products.
  model = models.create('plain', num_classes=10, width_multiplier=0.2)
  dense = {layer.path: layer for layer in models.layer_table(model, (28, 28, 1))}
  unit = dense['unit1/conv']
  rows, columns = (-(-size // 2) for size in unit.output_shape[1:3])
  whole = sum(layer.macs for layer in dense.values())
  samples = rows * columns * unit.kernel_shape[-1] * unit.fan_in
  assert unit.kernel_shape[-1] == unit.output_channels
  assert report.macs == whole - unit.macs + samples
  accesses = report.l2_reads.item(), report.l2_writes.item(), report.dram_accesses.item()
  assert min(accesses) > 0
  for name, value in _by_hand(accesses, FIGURES, nvm.HBM).items():
    np.testing.assert_allclose(report.figure(name), value, rtol=1e-13, err_msg=name)


def test_accesses_are_those_of_the_traffic_model():
  model = models.create('plain', num_classes=10, width_multiplier=0.2)
  table = models.layer_table(model, (28, 28, 1))
  bits = {p.path: 2 for p in table.parameters if p.role == 'weight'}
  expected = traffic.predict_traffic(table, traffic.H200, 3, weight_bits=bits)
  report = codesign.evaluate('plain', bits=2, cache=CACHE, gpu='h200', batch=3, **SMALL)
  assert (report.l2_reads, report.l2_writes) == (expected.l2_reads, expected.l2_writes)
  assert report.dram_accesses == sum(expected.dram(16 << 10))
  assert report.traffic[()].by_layer().keys() == expected.by_layer().keys()
  train = models.layer_table(model, (28, 28, 1), train=True)
  expected = traffic.predict_traffic(train, traffic.H200, 3, training=True)
  report = codesign.evaluate(
    'plain', cache=CACHE, gpu=traffic.H200, batch=3, training=True, **SMALL
  )
  assert report.l2_reads == expected.l2_reads


def test_a_grid_is_its_points_bit_for_bit():
  lists = dict(
    bits=[2, 32, {name: 2 + i % 7 for i, name in enumerate(sorted(_params()))}],
    plan=['none', ('unit1', 'unit2')],
    cache=[CACHE, LARGER],
    batch=[1, 2],
    dram=[None, 'gddr5x'],
  )
  grid = codesign.evaluate('plain', **lists, **SMALL)
  assert grid.axes == codesign.AXES and grid.shape == (3, 2, 2, 2, 2)
  assert grid.labels['bits'] == (2, 32, 'mixed') and grid.labels['plan'] == ('none', 'unit1+unit2')
  for index in itertools.islice(np.ndindex(grid.shape), 0, None, 5):
    point = codesign.evaluate(
      'plain', **{axis: lists[axis][i] for axis, i in zip(codesign.AXES, index)}, **SMALL
    )
    for name in ('size_bits', 'macs', 'l2_reads', 'dram_accesses', *nvm.SystemTotals._fields):
      assert grid.figure(name)[index] == point.figure(name), (index, name)
  assert (grid.dram_energy_j[..., 0] == 0).all() and (grid.dram_energy_j[:, 0, 0, 1, 1] > 0).all()
  assert (np.diff(grid.size_bits[:2], axis=0) > 0).all()
  assert (grid.macs[:, 0] > grid.macs[:, 1]).all()
  rows = grid.rows()
  assert len(rows) == grid.edp_js.size and rows[-1]['edp_js'] == grid.edp_js[-1, -1, -1, -1, -1]


def test_only_lists_are_axes():
  one = codesign.evaluate('plain', cache=CACHE, **SMALL)
  for lists, shape in (
    (dict(bits=np.array([2, 4, 8])), (3,)),
    (dict(bits=range(2, 4), batch=[1, 2, 3]), (2, 3)),
    (dict(plan=['none']), (1,)),
  ):
    assert codesign.evaluate('plain', cache=CACHE, **lists, **SMALL).shape == shape
  assert one.edp_js.shape == () and one.labels['cache'] == ('mine 0.015625 MiB',)


def test_one_program_and_no_traffic_twice(monkeypatch):
  calls, original = [], traffic.predict_traffic
  monkeypatch.setattr(
    traffic, 'predict_traffic', lambda *a, **k: calls.append(a) or original(*a, **k)
  )
  grid = dict(bits=[2, 4], cache=[CACHE, LARGER], batch=[1, 2], dram=[None, 'hbm'])
  codesign.evaluate('plain', **grid, **SMALL)
  assert len(calls) == 2 * 2
  compiled = evaluation._grid_totals._cache_size()
  codesign.evaluate('plain', **{**grid, 'bits': [3, 32], 'batch': [3, 4]}, **SMALL)
  assert evaluation._grid_totals._cache_size() == compiled


class _Flax(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Conv(8, (3, 3))(x))
    x = nn.relu(nn.Conv(8, (3, 3), name='second')(x))
    return nn.Dense(4)(x.mean((1, 2)))


def test_a_foreign_flax_network():
  net, images = _Flax(), jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
  params = jax.eval_shape(net.init, jax.random.key(0), images)['params']
  table = trace_layers(lambda p, x: net.apply({'params': p}, x), params, images)
  found = quant.bits_by_path(quant.plan_weights(table), 4)
  bits = [4, found, {'Conv_0': 2, 'second/kernel': 3, 'Dense_0': None}]
  report = codesign.evaluate(table, bits=bits, plan=['none', ('second',), 'all'], cache=CACHE)
  first, second, dense = 27 * 8, 72 * 8, 8 * 4
  assert report.size.weights[:, 0].tolist() == [
    4 * (first + second + dense),
    4 * (first + second + dense),
    2 * first + 3 * second + 32 * dense,
  ]
  # A scale for each output channel of what is quantized.
  assert report.size.scales[:, 0].tolist() == [32 * 20, 32 * 20, 32 * 16]
  assert report.macs[0].tolist() == [
    256 * (first + second) + dense,
    256 * first + 64 * second + dense,
    64 * (first + second) + dense,
  ]
  assert (report.edp_js[0] == report.edp_js[1]).all()


class _Equinox(eqx.Module):
  convs: list
  act: callable
  head: eqx.nn.Linear

  def __init__(self, key):
    self.convs = [eqx.nn.Conv2d(1, 4, 3, key=key), eqx.nn.Conv2d(4, 4, 3, key=key)]
    self.act = jax.nn.relu
    self.head = eqx.nn.Linear(4, 5, key=key)

  def __call__(self, x):
    for conv in self.convs:
      x = self.act(conv(x))
    return self.head(x.mean((1, 2)))


def test_a_foreign_equinox_network():
  model = eqx.filter_eval_shape(_Equinox, jax.random.key(0))
  image = jax.ShapeDtypeStruct((1, 1, 12, 12), jnp.float32)
  table = trace_layers(lambda model, x: jax.vmap(model)(x), model, image)
  tree = jax.tree.map(lambda leaf: 3 if hasattr(leaf, 'shape') else None, model)
  report = codesign.evaluate(table, bits=[3, tree], plan=('convs/1',), cache=[CACHE, LARGER])
  assert report.network == 'table' and report.shape == (2, 2)
  assert (report.size.weights == 3 * (36 + 144 + 20)).all()
  assert (report.macs == 100 * 36 + 16 * 144 + 20).all()
  assert (report.edp_js[0] == report.edp_js[1]).all()


def test_the_expression_of_the_readme():
  report = codesign.evaluate(
    'vgg16',
    bits=4,
    plan='vgg16_round3',
    cache=nvm.tuned('stt', mib=1),
    batch=4,
    image_shape=(64, 64, 3),
  )
  assert report.labels['cache'] == ('stt 1 MiB',) and report.labels['plan'] == ('vgg16_round3',)
  # 138,344,128 weights of VGG-16 at 224; at 64 the first dense layer has 4 instead of 49 places.
  assert report.size.weights == 4 * (138_344_128 - 45 * 512 * 4096)
  assert 0 < report.edp_js == report.total_energy_j * report.delay_s
  cell = codesign.evaluate('plain', cache=nvm.CELLS['stt'], **SMALL)
  assert cell.labels['cache'] == (f'cell {traffic.GTX_1080_TI.l2_bytes / 2**20:g} MiB',)


def test_figures_alone_have_the_capacity_of_the_gpus_cache():
  report = codesign.evaluate('plain', cache=FIGURES, **SMALL)
  assert report.dram_accesses == sum(report.traffic[()].dram(traffic.GTX_1080_TI.l2_bytes))


@pytest.mark.parametrize(
  'changes, message',
  [
    (dict(network='vgg99'), "network='vgg99'; allowed: a LayerTable, or one of plain"),
    (dict(network=LayerTable((), ())), 'no dataflow'),
    (dict(bits=9), 'bits=9; allowed: an integer, 1 to 8, or 32'),
    (dict(bits='four'), "bits='four'; allowed: an integer"),
    (dict(bits=[2, 4.5]), 'bits=4.5; allowed: an integer'),
    (dict(bits=[]), r'bits=\[\]; allowed: at least one'),
    (dict(bits=np.ones((2, 2))), r'bits: an array of shape \(2, 2\)'),
    (dict(bits=(2, 4)), r"bits\['0'\] names no parameter; .*list is a grid's axis"),
    (dict(bits={'unit9': 4}), r"bits\['unit9'\] names no parameter"),
    (dict(bits={'unit1': 4}), 'allowed: bits for all that is quantized'),
    (dict(bits={'unit1': 4.5}), r"bits\['unit1'\]=4.5; allowed"),
    (dict(bits=4, training=True), 'bits=4 in training; allowed: 32'),
    (dict(plan='round9'), "plan='round9'; allowed: all, none"),
    (dict(plan=None), 'plan=None; allowed: a name of a plan, or a tuple of names of units'),
    (dict(plan=('unit99',)), "no unit 'unit99'; allowed: unit0"),
    (dict(plan=['none', 'unit1']), 'a tuple of names is one plan'),
    (dict(cache='dna'), "technology='dna'; allowed: sram"),
    (dict(cache=['sram', 'missing.cell']), "technology='missing.cell': No such file"),
    (dict(cache=3), 'cache=3; allowed: what nvm.tuned returns'),
    (dict(gpu='gtx'), "gpu='gtx'; allowed: a traffic.Gpu, or one of gtx_1080_ti"),
    (dict(gpu={'base': 'v100', 'sm': 3}), 'gpu.sm; allowed: base, name'),
    (dict(library='torch'), "library='torch'; allowed: a traffic.Library, or one of pytorch, xla"),
    (
      dict(library=dataclasses.replace(traffic.XLA, math='tf32')),
      "math='tf32' on a GTX 1080 Ti; allowed: float32",
    ),
    (dict(algorithms={'unit9': 'fft'}), "algorithms: 'unit9'; allowed: paths of layers"),
    (
      dict(algorithms={'unit1/conv': 'fast'}),
      "algorithms: unit1/conv by 'fast'; allowed: implicit",
    ),
    (dict(algorithms={'unit1/conv': 'depthwise'}), "by 'depthwise': it is not depth-wise"),
    (dict(batch=0), 'batch=0; allowed: an integer of at least 1'),
    (dict(batch=[1, True]), 'batch=True; allowed'),
    (dict(dram='ddr5'), "dram='ddr5'; allowed: None, an nvm.Dram, or one of none, gddr5x, hbm"),
    (dict(accounting='paid'), "accounting='paid'; allowed: stored"),
    (dict(image_shape=(28, 28)), r'image_shape=\(28, 28\); allowed: \(H, W, C\)'),
  ],
)
def test_what_is_wrong_is_said_before_any_work(monkeypatch, changes, message):
  def unexpected(*args, **kwargs):
    raise AssertionError('work was begun')

  monkeypatch.setattr(traffic, 'predict_traffic', unexpected)
  monkeypatch.setattr(nvm, 'tuned', unexpected)
  arguments = dict(SMALL, network='plain', cache=CACHE) | changes
  if isinstance(arguments['network'], LayerTable):
    arguments['image_shape'] = None
  with pytest.raises(ValueError, match=message):
    codesign.evaluate(**arguments)


def test_a_table_has_its_image_already():
  table = models.layer_table(models.create('plain', num_classes=10), (28, 28, 1))
  with pytest.raises(ValueError, match='image_shape=.*of a table; allowed: None'):
    codesign.evaluate(table, cache=CACHE, image_shape=(28, 28, 1))


def test_libraries_and_algorithms_with_virtual_maps():
  model = models.create('plain', num_classes=10, width_multiplier=0.2)
  table = models.layer_table(model, (28, 28, 1))
  asked = {'unit1/conv': 'winograd_fused', ('unit3/conv', 'forward'): 'winograd_nonfused'}
  options = dict(plan=['none', ('unit1',)], cache=CACHE, batch=2, algorithms=asked)
  for name, library in traffic.LIBRARIES.items():
    report = codesign.evaluate('plain', library=name, **options, **SMALL)
    assert report.library == library.name and report.shape == (2,)
    found = traffic.predict_traffic(table, traffic.GTX_1080_TI, 2, library=library, chosen=asked)
    assert report.l2_reads[0] == found.l2_reads
    dense, virtual = (one.algorithms for one in report.traffic)
    assert dense['unit1/conv', 'forward'] == 'winograd_fused'
    # At twice the stride there is no Winograd: the library chooses.
    assert virtual['unit1/conv', 'forward'] == 'implicit_gemm'
    assert virtual['unit3/conv', 'forward'] == 'winograd_nonfused'


def test_a_type_of_sixteen_bits_moves_less():
  library = dataclasses.replace(traffic.XLA, math='bfloat16')
  options = dict(cache=CACHE, gpu='a100', **SMALL)
  half = codesign.evaluate('plain', library=library, **options)
  assert half.l2_writes < codesign.evaluate('plain', library='xla', **options).l2_writes
