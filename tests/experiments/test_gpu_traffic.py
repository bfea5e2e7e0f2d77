"""GPU, library, type of products and algorithms of a config: what they do, what is refused."""

import csv

import pytest

from cnnopt_jax import models, traffic
from experiments import codesign, nvm_eval, nvm_profile
from experiments.common import fields, gpu_traffic
from tests.experiments import runs, test_profiles

OWN = {'base': 'v100', 'l2_bytes': 8 << 20, 'name': 'Mine 1'}
EVALUATED = dict(workloads=('resnet8',), inference_batches=(1,), training_batches=())


@pytest.mark.parametrize('name', ['nvm_iso_capacity', 'codesign', 'nvm_profile'])
@pytest.mark.parametrize(
  'gpu, message',
  [
    ('gtx', "config.gpu='gtx'; allowed: one of gtx_1080_ti"),
    (3, 'config.gpu=3; allowed: one of gtx_1080_ti'),
    ({'base': 'gtx'}, "config.gpu.base='gtx'; allowed: one of gtx_1080_ti"),
    ({'base': 'v100', 'sm': 3}, 'config.gpu.sm; allowed: base, name, sms'),
    ({'base': 'v100', 'sms': 0}, 'config.gpu.sms=0; allowed: a whole number of at least 1'),
    ({'base': 'v100', 'clock_hz': '1'}, "config.gpu.clock_hz='1'; allowed: a number above 0"),
    ({'base': 'v100', 'tf32_macs': -1}, 'config.gpu.tf32_macs=-1; allowed: a number above 0 or 0'),
    ({'base': 'v100', 'tiles': ((1,),)}, r'config.gpu.tiles=\(\(1,\),\); allowed: pairs'),
    ({'sms': 3}, 'config.gpu.name is missing'),
  ],
)
def test_a_wrong_gpu_is_refused_in_one_line(name, gpu, message):
  with pytest.raises(fields.ConfigError, match=message) as error:
    runs.load_config(name, gpu=gpu)
  assert '\n' not in str(error.value)


def test_a_gpu_of_ones_own():
  config = runs.load_config('nvm_profile', gpu=OWN, library='xla')
  gpu = gpu_traffic.gpu_of(config)
  assert (gpu.name, gpu.l2_bytes, gpu.sms) == ('Mine 1', 8 << 20, traffic.V100.sms)
  assert gpu_traffic.described(config) == (
    "GPU: Mine 1; library: XLA with cuDNN; products in float32; algorithms: the library's choice"
  )
  assert config.to_dict()['gpu'] == OWN


@pytest.mark.parametrize('name', ['nvm_iso_capacity', 'codesign', 'nvm_profile'])
def test_types_that_the_gpu_lacks_are_refused(name, tmp_path):
  module = runs.experiment_of(name)
  with pytest.raises(fields.ConfigError, match="config.math='tf32' on a V100; allowed: float32"):
    module.run(runs.load_config(name, gpu='v100', math='tf32'), tmp_path)
  library = gpu_traffic.library_of(runs.load_config(name, gpu='a100', math='bfloat16'))
  assert (library.math, library.activation_bits) == ('bfloat16', 16)


LAYERS = {'vgg': ['conv1_1/conv', 'conv1_2/conv', 'fc6/dense'], 'alexnet': ['conv1/conv']}


def test_pairs_of_layers_and_algorithms():
  text = 'conv1_1=implicit_gemm, conv1_2:weight_gradient=winograd_nonfused'
  config = runs.load_config('nvm_iso_capacity', algorithms=text)
  assert gpu_traffic.algorithms_of(config, LAYERS) == {
    'vgg': {('conv1_1/conv', kind): 'implicit_gemm' for kind in traffic.KERNEL_KINDS}
    | {('conv1_2/conv', 'weight_gradient'): 'winograd_nonfused'},
    'alexnet': {},
  }


@pytest.mark.parametrize(
  'text, message',
  [
    ('conv9=implicit_gemm', "'conv9' is no layer; allowed: of vgg conv1_1/conv, conv1_2/conv"),
    ('conv1_1=winograd', "config.algorithms='conv1_1=winograd'; allowed: LAYER=ALGORITHM or"),
    ('conv1_1', "'conv1_1': of which workload"),
    ('resnet8.inference.2.csv', 'No such file'),
  ],
)
def test_other_algorithms_are_refused(text, message):
  config = runs.load_config('nvm_iso_capacity', algorithms=text)
  with pytest.raises(fields.ConfigError, match=message) as error:
    gpu_traffic.algorithms_of(config, LAYERS)
  assert '\n' not in str(error.value)


def test_algorithms_that_cannot_compute_their_layer_are_refused(tmp_path):
  message = r"resnet8, stem/conv \(forward\) by 'depthwise': it is not depth-wise"
  asked = dict(algorithms='stem=depthwise')
  for name, options in (
    ('nvm_iso_capacity', EVALUATED),
    ('codesign', test_profiles.TINY),
    ('nvm_profile', {'profiles': test_profiles.write(tmp_path, 'resnet8.forward.2.csv', 'conv')}),
  ):
    with pytest.raises(fields.ConfigError, match=message) as error:
      runs.experiment_of(name).run(runs.load_config(name, **options, **asked), tmp_path)
    assert '\n' not in str(error.value)


def test_the_evaluation_says_what_it_took(tmp_path):
  options = dict(gpu=OWN, library='xla', algorithms='stem:forward=winograd_nonfused')
  nvm_eval.run(runs.load_config('nvm_iso_capacity', **EVALUATED, **options), tmp_path)
  report = test_profiles.report_of(tmp_path)
  assert 'GPU: Mine 1; library: XLA with cuDNN; products in float32' in report
  assert 'winograd_nonfused 1.' in report


def test_codesign_of_a_library_with_virtual_maps(tmp_path):
  """The unit that is asked for is virtual in the second plan: the library chooses for it."""
  options = test_profiles.TINY | dict(bits=(32,), capacities_mib=(1,), library='xla')
  asked = dict(algorithms='stem=winograd_nonfused')
  codesign.run(runs.load_config('codesign', **options, **asked), tmp_path)
  report = test_profiles.report_of(tmp_path)
  assert 'library: XLA with cuDNN' in report and 'algorithms asked for: stem=wino' in report
  assert 'winograd_nonfused 1.' in report
  assert 'compared with the counters of a V100, for VGG-16 in PyTorch' in report


NAMES = {'winograd_fused': 'volta_scudnn_winograd_128x128', 'implicit_gemm': 'volta_sgemm_64x64'}


def test_algorithms_of_the_profile_that_is_compared(tmp_path):
  model = models.create('resnet8', num_classes=1000)
  table = models.layer_table(model, models.default_image_shape('resnet8'))
  names = {layer.path: 'implicit_gemm' for layer in table.layers} | {'stem/conv': 'winograd_fused'}
  kernels = [k for name in names.values() for k in (NAMES[name], 'relu_elementwise')]
  profile = test_profiles.write(tmp_path, 'resnet8.forward.2.csv', *kernels)
  options = dict(algorithms='profile', layers='order')
  _, rows = test_profiles.compared(tmp_path, profile, **options)
  with open(tmp_path / 'layers.csv', newline='') as file:
    layers = {row['layer']: row['algorithms'] for row in csv.DictReader(file)}
  assert layers == names
  assert 'Algorithms, by layers of all cases: forward implicit_gemm 7, winograd_fused 1;' in (
    test_profiles.report_of(tmp_path)
  )
  chosen = {(path, 'forward'): name for path, name in names.items()}
  train = models.layer_table(model, models.default_image_shape('resnet8'), train=True)
  found = traffic.predict_traffic(train, test_profiles.GPU, 2, training=True, chosen=chosen)
  part = traffic.part_of(found, 'forward')
  assert float(rows[0]['predicted']) == pytest.approx(sum(row.l2_reads for row in part))
  config = runs.load_config('nvm_profile', profiles=profile, algorithms='profile')
  with pytest.raises(fields.ConfigError, match="'profile' with config.layers=''; allowed: layers"):
    nvm_profile.run(config, tmp_path)
  # The same file where no profile is compared.
  config = runs.load_config('nvm_iso_capacity', algorithms=profile, layers='order', **EVALUATED)
  assert nvm_eval.plan.algorithms(config) == {'resnet8': chosen}


def test_figures_on_the_command_line(tmp_path):
  code, _, error = runs.run('nvm_eval', tmp_path, gpu="{'base': 'v100', 'sms': 0}")
  assert code == 2 and error == 'error: config.gpu.sms=0; allowed: a whole number of at least 1\n'
