"""Finished profiles beside the traffic model and in its place; what does not fit is refused."""

import csv
import shutil
import types

import jax
import pytest

from cnnopt_jax import models, nvm, traffic
from experiments import codesign, nvm_eval, nvm_profile
from experiments.common import fields
from tests.experiments import runs

GPU = traffic.GTX_1080_TI
HEAD = '"Device","Stream","Name","Duration","l2_tex_read_transactions","l2_tex_write_transactions",'
DRAM = '"dram_read_bytes","dram_write_bytes"'
FORWARD, BACKWARD = 'volta_scudnn_128x64_relu', 'wgrad_alg0_engine'
COUNTERS = traffic.PROFILE_COUNTERS


def write(
  folder, name, *kernels, counts='1000000,200000,16000000,3200000', device=GPU.name, ms='2.5'
):
  """A trace of nvprof: L2 reads, L2 writes, DRAM bytes read and written of each kernel."""
  path = folder / name
  rows = [f'"{device} (0)","7","{kernel}",{ms},{counts}' for kernel in kernels]
  path.write_text('\n'.join([HEAD + DRAM, ',,,ms,,,,', *rows, '']))
  return str(path)


def compared(tmp_path, profiles, **changes):
  """Exit code and rows of results.csv."""
  code = nvm_profile.run(runs.load_config('nvm_profile', profiles=profiles, **changes), tmp_path)
  with open(tmp_path / 'results.csv', newline='') as file:
    return code, list(csv.DictReader(file))


def report_of(folder):
  """Without the blanks that align its tables."""
  return ' '.join((folder / 'report.md').read_text().split())


def predicted(mode, batch, *names):
  training = mode != 'inference'
  model = models.create('resnet8', num_classes=1000)
  table = models.layer_table(model, models.default_image_shape('resnet8'), train=training)
  found = traffic.predict_traffic(table, GPU, batch, training=training)
  return [sum(getattr(r, n) for r in traffic.part_of(found, mode)) for n in names or COUNTERS]


@pytest.mark.parametrize(
  'mode, kernels',
  [
    ('inference', [FORWARD]),
    ('forward', [FORWARD]),
    ('backward', [BACKWARD]),
    ('forward_backward', [FORWARD, BACKWARD]),
    ('training', [FORWARD, BACKWARD]),
  ],
)
def test_finished_profiles_are_compared(tmp_path, mode, kernels):
  profile = write(tmp_path, f'resnet8.{mode}.2.gtx_1080_ti.csv', *kernels)
  code, rows = compared(tmp_path, profile)
  assert code == 0 and [row['counter'] for row in rows] == [*COUNTERS, 'seconds']
  time = rows.pop()
  assert float(time['measured']) == pytest.approx(2.5e-3 * len(kernels))
  assert float(time['predicted']) == pytest.approx(predicted(mode, 2, 'seconds')[0])
  measured = [len(kernels) * value for value in (1e6, 2e5, 5e5, 1e5)]
  assert [float(row['measured']) for row in rows] == measured
  model = predicted(mode, 2)
  assert [float(row['predicted']) for row in rows] == pytest.approx(model)
  for row, value, wanted in zip(rows, measured, model):
    assert float(row['error']) == pytest.approx(wanted / value - 1)
    inside = max(value, wanted) <= 2 * min(value, wanted)
    assert row['verdict'] == ('within the bound' if inside else 'beyond the bound')
  assert f'| {2.5 * len(kernels):.4g} |' in report_of(tmp_path)


def layers_of(folder):
  with open(folder / 'layers.csv', newline='') as file:
    return list(csv.DictReader(file))


def products(mode, kind):
  """Paths of the model's convolutions and products in order, and their L2 reads of a kind."""
  training = mode != 'inference'
  shape = models.default_image_shape('resnet8')
  table = models.layer_table(models.create('resnet8', num_classes=1000), shape, train=training)
  found = traffic.predict_traffic(table, GPU, 2, training=training)
  reads = {layer.path: 0.0 for layer in table.layers}
  for row in found.rows:
    if row.launch.kind == kind:
      reads[row.launch.path] += row.l2_reads
  return reads


def test_layers_by_order(tmp_path):
  wanted = products('inference', 'forward')
  kernels = ['winograd_transform', 'volta_sgemm', 'relu_elementwise'] * len(wanted)
  profile = write(tmp_path, 'resnet8.inference.2.csv', *kernels)
  compared(tmp_path, profile, layers='order')
  rows = [row for row in layers_of(tmp_path) if row['counter'] == 'l2_reads']
  assert {row['layer']: float(row['predicted']) for row in rows} == pytest.approx(wanted)
  assert {float(row['measured']) for row in rows} == {2e6}
  assert '## Layers' in report_of(tmp_path) and 'Median of the abs' in report_of(tmp_path)


def test_layers_by_a_mapping(tmp_path):
  wanted = products('training', 'weight_gradient')
  path = next(iter(wanted))
  mapping = tmp_path / 'layers.txt'
  mapping.write_text(f'{path}:weight_gradient 1-3\nunknown 0-1\n')
  profile = write(tmp_path, 'resnet8.training.2.csv', FORWARD, BACKWARD, BACKWARD)
  compared(tmp_path, profile, layers=str(mapping))
  rows = {r['layer']: r for r in layers_of(tmp_path) if r['counter'] == 'l2_reads'}
  first = rows[f'{path}:weight_gradient']
  assert (float(first['measured']), float(first['predicted'])) == (2e6, pytest.approx(wanted[path]))
  assert float(first['error']) == pytest.approx(wanted[path] / 2e6 - 1)
  assert (rows['unknown']['predicted'], rows['unknown']['error']) == ('', '')
  assert '1, no model' in report_of(tmp_path)


@pytest.mark.parametrize(
  'layers, mode, message',
  [
    ('nvtx', 'inference', 'no launch has an NVTX range'),
    ('order', 'inference', '1 runs of convolution and product kernels; allowed: as many as the'),
    ('order', 'training', 'order is that of a forward pass, but the profile is of training'),
    ('none.txt', 'inference', 'No such file'),
  ],
)
def test_layers_that_do_not_fit_are_refused(tmp_path, layers, mode, message):
  kernels = [FORWARD, BACKWARD] if mode == 'training' else [FORWARD]
  profile = write(tmp_path, f'resnet8.{mode}.2.csv', *kernels)
  with pytest.raises(fields.ConfigError, match=f'config.layers={layers!r}.*{message}'):
    compared(tmp_path, profile, layers=layers)


def test_large_errors_are_warnings_and_an_exit_code_where_they_count(tmp_path, capsys):
  counts = ','.join(str(round(value)) for value in predicted('inference', 2)[:2])
  profile = write(tmp_path, 'resnet8.inference.2.csv', FORWARD, counts=f'{counts},32,n/a', ms='')
  code, rows = compared(tmp_path, profile)
  assert rows.pop()['verdict'] == 'missing'
  verdicts = [row['verdict'] for row in rows]
  assert verdicts == ['within the bound', 'within the bound', 'beyond the bound', 'missing']
  assert (rows[3]['measured'], rows[3]['error']) == ('', '') and code == 0
  error = capsys.readouterr().err
  assert error.startswith('warning: resnet8.inference.2 dram_reads: measured 1, predicted ')
  assert error.count('\n') == 1 and error.endswith('beyond a factor of 2\n')
  report = (tmp_path / 'report.md').read_text()
  assert '**Warning**: resnet8.inference.2 dram_reads' in report
  assert 'missing' in report and 'GTX 1080 Ti' in report
  assert compared(tmp_path, profile, strict=True)[0] == nvm_profile.DISAGREES == 3
  # A counter that is missing is no agreement either; without both there is nothing to complain of.
  assert compared(tmp_path, profile, strict=True, bound=1e9)[0] == 3
  # Without times it is whole: nvprof measures none beside its metrics.
  whole = write(tmp_path, 'resnet8.inference.2.csv', FORWARD, ms='')
  assert compared(tmp_path, whole, strict=True, bound=1e9)[0] == 0


def test_the_command_line_says_so_too(tmp_path):
  profile = write(tmp_path, 'resnet8.inference.2.csv', FORWARD, counts='1,1,32,32')
  code, _, error = runs.run('nvm_profile', tmp_path / 'run', profiles=profile, strict=True)
  assert code == 3 and error.count('warning: resnet8.inference.2') == 5
  code, _, error = runs.run('nvm_profile', tmp_path / 'run', profiles=profile, gpu='h200')
  assert code == 2 and error.count('\n') == 1 and 'is of GPU gtx_1080_ti' in error


def test_what_a_name_does_not_say_the_config_says(tmp_path):
  profile = write(tmp_path, 'mine.csv', FORWARD)
  said = dict(profile_workload='resnet8', profile_mode='inference', profile_batch=2)
  _, rows = compared(tmp_path, profile, **said)
  assert {(row['workload'], row['mode'], row['batch']) for row in rows} == {
    ('resnet8', 'inference', '2')
  }
  for name in said:
    with pytest.raises(fields.ConfigError, match=f'of which {name[8:]}. allowed: WORKLOAD.MODE'):
      compared(tmp_path, profile, **{**said, name: type(said[name])()})


@pytest.mark.parametrize(
  'name, kernels, options, changes, message',
  [
    ('resnet8.csv', [FORWARD], {}, {}, 'of which workload'),
    ('resnet8.test.2.csv', [FORWARD], {}, {}, 'MODE one of inference, training, forward, back'),
    ('resnet8.inference.0.csv', [FORWARD], {}, {}, 'allowed: WORKLOAD.MODE.BATCH.csv'),
    ('resnet8.inference.2.mi300.csv', [FORWARD], {}, {}, "GPU 'mi300'; allowed: gtx_1080_ti"),
    ('resnet8.inference.2.h200.csv', [FORWARD], {}, {}, 'is of GPU h200, but config.gpu='),
    ('resnet8.inference.2.csv', [FORWARD], {'device': 'H200'}, {}, 'is of GPU h200'),
    ('resnet8.inference.2.csv', [FORWARD], {'device': 'TITAN V'}, {}, 'is of a TITAN V'),
    ('resnet8.inference.2.csv', [FORWARD], {}, {'gpu': 'h200'}, 'allowed: --config.gpu=gtx_10'),
    ('resnet8.inference.2.csv', [FORWARD], {}, {'profile_batch': 4}, 'but config.profile_batch=4'),
    ('resnet8.inference.2.csv', [FORWARD], {}, {'profile_gpu': 'h200'}, 'is of GPU h200'),
    ('resnet8.inference.2.csv', [BACKWARD], {}, {}, 'said to be inference: .*no backward kernels'),
    ('resnet8.training.2.csv', [FORWARD], {}, {}, 'training has backward kernels, but none'),
    ('resnet8.training.2.csv', [BACKWARD] * 12, {}, {}, 'only 0 of 12 products'),
    ('resnet8.inference.2.csv', [FORWARD], {'counts': 'n/a,,-,n/a'}, {}, 'none of the counters'),
    ('resnet8.inference.2.csv', [FORWARD], {'counts': '1,2,3,x'}, {}, "'x' is no number"),
  ],
)
def test_profiles_that_do_not_fit_are_refused(tmp_path, name, kernels, options, changes, message):
  profile = write(tmp_path, name, *kernels, **options)
  with pytest.raises(fields.ConfigError, match=message) as error:
    compared(tmp_path, profile, **changes)
  assert str(profile) in str(error.value) and '\n' not in str(error.value)


def test_a_profile_given_twice_or_missing_is_refused(tmp_path):
  paths = [
    write(tmp_path, name, FORWARD)
    for name in ('resnet8.inference.2.csv', 'resnet8.inference.2.gtx_1080_ti.csv')
  ]
  with pytest.raises(fields.ConfigError, match=r'resnet8.inference.2 is also .*2.csv'):
    compared(tmp_path, ','.join(paths))
  with pytest.raises(fields.ConfigError, match='config.profiles: .*resnet8.inference.4.csv'):
    compared(tmp_path, str(tmp_path / 'resnet8.inference.4.csv'))


def test_without_counters_it_says_so(tmp_path, monkeypatch, capsys):
  monkeypatch.setenv('PATH', '')
  config = runs.load_config('nvm_profile')
  assert nvm_profile.run(config, tmp_path) == nvm_profile.NO_COUNTERS
  error = capsys.readouterr().err
  assert error.startswith('not measured: neither ncu nor nvprof') and error.count('\n') == 1


def test_its_own_profile_keeps_caches_and_fixes_the_clock(tmp_path, monkeypatch):
  """By a tool of our own, which writes its arguments and a profile as ncu's log is."""
  lines = ['"ID","Kernel Name","CC","Metric Name","Metric Unit","Metric Value"']
  for name, value in (
    ('gpu__time_duration.sum', 2500),
    ('lts__t_sectors_srcunit_tex_op_read.sum', 70),
    ('lts__t_sectors_srcunit_tex_op_write.sum', 30),
    ('dram__sectors_read.sum', 20),
    ('dram__sectors_write.sum', 10),
  ):
    lines.append(f'"0","conv","6.1","{name}","","{value}"')
  (tmp_path / 'log').write_text('\n'.join(lines))
  tool = tmp_path / 'ncu'
  tool.write_text(
    f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\n'
    'while [ "$1" != --log-file ]; do shift; done\n'
    f'{shutil.which("cp")} {tmp_path}/log "$2"\n'
  )
  tool.chmod(0o755)
  monkeypatch.setenv('PATH', f'{tmp_path}:/bin:/usr/bin')
  monkeypatch.setattr(
    jax, 'devices', lambda: [types.SimpleNamespace(platform='gpu', device_kind='GPU')]
  )
  options = dict(workloads=('resnet8',), inference_batch=2, training_batch=0, library='xla')
  assert nvm_profile.run(runs.load_config('nvm_profile', **options), tmp_path) == 0
  given = (tmp_path / 'arguments').read_text()
  for words in ('--cache-control none', '--clock-control base', 'gpu__time_duration.sum,'):
    assert words in given
  assert 'lts__t_sectors_srcunit_tex_op_read.sum,' in given
  with open(tmp_path / 'results.csv', newline='') as file:
    assert [float(row['measured']) for row in csv.DictReader(file)] == [70, 30, 20, 10, 2.5e-6]
  assert '0.0025' in (tmp_path / 'report.md').read_text()
  assert "execute('resnet8', 'inference', 2, 'float32')" in given
  with pytest.raises(fields.ConfigError, match="library='pytorch'.*is a program of JAX"):
    nvm_profile.run(runs.load_config('nvm_profile', **{**options, 'library': 'pytorch'}), tmp_path)
  with pytest.raises(fields.ConfigError, match="config.gpu='h200': .* compute capability 6.1"):
    nvm_profile.run(runs.load_config('nvm_profile', gpu='h200', **options), tmp_path)


SMALL = dict(workloads=('resnet8',), inference_batches=(2,), training_batches=(2,))


def test_the_evaluation_takes_a_profile_for_its_case(tmp_path):
  profile = write(tmp_path, 'resnet8.inference.2.csv', FORWARD)
  rows = nvm_eval.run(runs.load_config('nvm_iso_capacity', profile=profile, **SMALL), tmp_path)
  table = '| resnet8 | inference | 2 | GTX 1080 Ti | 1 | 0.2 | 0.5 | 0.1 | 2.5 |'
  assert table in report_of(tmp_path)
  # By hand: the recalled SRAM cache of 3 MB, accesses as counted and as modelled.
  cache = nvm.validation.RECALLED_CACHES['sram', 3]
  for mode, (reads, writes) in (
    ('inference', (1e6, 2e5)),
    ('training', predicted('training', 2)[:2]),
  ):
    with_dram, without = (
      next(
        r
        for r in rows
        if (r['source'], r['technology'], r['mode'], r['with_dram'])
        == ('published', 'sram', mode, dram)
      )
      for dram in (True, False)
    )
    energy = 1e-9 * (reads * cache.read_nj + writes * cache.write_nj)
    assert without['dynamic_energy_j'] == pytest.approx(energy)
    delay = 1e-9 * (reads * cache.read_ns + writes * cache.write_ns)
    assert without['delay_s'] == pytest.approx(delay)
    if mode == 'inference':  # A ratio of the model's: 3 MB against the GPU's own L2.
      shape = models.default_image_shape('resnet8')
      table = models.layer_table(models.create('resnet8', num_classes=1000), shape)
      found = traffic.predict_traffic(table, GPU, 2)
      ratios = [a / b for a, b in zip(found.dram(3 << 20), found.dram(GPU.l2_bytes))]
      accesses = 5e5 * ratios[0] + 1e5 * ratios[1]
      assert with_dram['dram_energy_j'] == pytest.approx(1e-9 * accesses * nvm.GDDR5X.access_nj)


TINY = dict(
  model='resnet8',
  image_shape=(32, 32, 3),
  num_classes=10,
  batch=2,
  bits=(4, 32),
  plans=('none', 'all'),
  technologies=('sram',),
  capacities_mib=(1, 2),
)


def test_codesign_takes_a_profile_and_scales_it_by_the_model(tmp_path):
  profile = write(tmp_path, 'mine.csv', FORWARD)
  said = dict(
    profile_workload='resnet8', profile_mode='inference', profile_batch=2, profile_gpu='gtx_1080_ti'
  )
  plain, measured = (
    {
      (r['bits'], r['plan'], r['capacity_mib']): r
      for r in codesign.run(runs.load_config('codesign', **options, **TINY), tmp_path)
    }
    for options in ({}, {'profile': profile, **said})
  )
  base = plain[32, 'none', 2]
  for key, after in measured.items():
    assert after['l2_reads'] == pytest.approx(1e6 * plain[key]['l2_reads'] / base['l2_reads'])
    assert after['l2_writes'] == pytest.approx(2e5 * plain[key]['l2_writes'] / base['l2_writes'])
  for mib in (1, 2):
    assert measured[32, 'none', mib]['l2_reads'] == 1e6
    assert measured[32, 'none', mib]['l2_writes'] == 2e5
  assert measured[4, 'none', 1]['l2_reads'] < 1e6
  assert (
    'counters of a GTX 1080 Ti (1 M sectors of L2 reads' in (tmp_path / 'report.md').read_text()
  )


@pytest.mark.parametrize(
  'experiment, changes',
  [('nvm_iso_capacity', SMALL), ('codesign', TINY)],
)
@pytest.mark.parametrize(
  'name, options, message',
  [
    ('resnet8.inference.4.csv', {}, 'a profile of resnet8.inference.4; allowed here: resnet8.inf'),
    ('vgg8.inference.2.csv', {}, 'a profile of vgg8.inference.2; allowed here'),
    ('resnet8.forward.2.csv', {}, 'is forward; allowed as a demand: inference, or training'),
    ('resnet8.inference.2.csv', {'counts': '1,2,n/a,4'}, 'has no counter for dram_reads; allowed'),
    ('resnet8.inference.2.csv', {'device': ''}, 'of which GPU. allowed: WORKLOAD.MODE.BATCH.GPU'),
    ('resnet8.inference.2.h200.csv', {}, 'is of GPU h200, but config.gpu='),
  ],
)
def test_demands_that_do_not_fit_are_refused(tmp_path, experiment, changes, name, options, message):
  profile = write(tmp_path, name, FORWARD, **options)
  if options.get('device') == '':  # As of Nsight Compute, which numbers the GPUs.
    (tmp_path / name).write_text((tmp_path / name).read_text().replace('" (0)"', '"0"'))
  with pytest.raises(fields.ConfigError, match=message) as error:
    module = runs.experiment_of(experiment)
    module.run(runs.load_config(experiment, profile=profile, **changes), tmp_path)
  assert '\n' not in str(error.value)


def test_codesign_evaluate_refuses_other_demands():
  from cnnopt_jax.codesign import evaluate  # The experiment has the same name.

  demand = traffic.ProfileDemand(1.0, 1.0, 1.0, 1.0, None, GPU)
  cache = nvm.CacheFigures(1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
  with pytest.raises(ValueError, match='measured: batch 4; allowed: 2'):
    evaluate('resnet8', cache=cache, batch=2, measured={4: demand})
  with pytest.raises(ValueError, match='measured: on a GTX 1080 Ti; allowed: gpu, a H200'):
    evaluate('resnet8', cache=cache, batch=2, gpu='h200', measured={2: demand})
