"""Launches of a profile, joined into layers: by NVTX ranges, a mapping, or their order."""

import pytest

from cnnopt_jax import traffic

# A convolution of two kernels, one of a single kernel behind a fill, and what lies between.
KERNELS = (
  'winograd_transform',
  'volta_sgemm_32x128_nn',
  'add_elementwise_kernel',
  'max_pool',
  '[CUDA memset]',
  'implicit_convolve_sgemm',
  'void splitKreduce_kernel<float>',
  'cudnn::bn_fw_tr_1C11',
  'reduce_kernel',
)


@pytest.fixture
def launches():
  return tuple(
    traffic.LaunchProfile(
      kernel, l2_reads=2**i, l2_writes=1, seconds=0.5, dram_reads=None if i == 5 else 1
    )
    for i, kernel in enumerate(KERNELS)
  )


def test_by_order(launches):
  found = traffic.group_by_layer(launches, 'order', layers=['a', 'b'])
  assert {path: layer.indices for path, layer in found.items()} == {
    'a': (0, 1),
    '': (2, 3, 7, 8),
    'b': (4, 5, 6),
  }
  assert found['a'] == ('a', (0, 1), 1.0, 3, 2, 2, None)
  assert found['b'] == ('b', (4, 5, 6), 1.5, 112, 3, None, None)
  with pytest.raises(traffic.ProfileError, match='2 runs of .*; allowed: as many as the 3 layers'):
    traffic.group_by_layer(launches, 'order', layers=['a', 'b', 'c'])


def test_by_nvtx(launches):
  named = [one._replace(nvtx='step/a' if i < 2 else None) for i, one in enumerate(launches)]
  found = traffic.group_by_layer(named)
  assert list(found) == ['step/a', ''] and found['step/a'].l2_reads == 3
  assert found[''].indices == (2, 3, 4, 5, 6, 7, 8)
  with pytest.raises(traffic.ProfileError, match='no launch has an NVTX range'):
    traffic.group_by_layer(launches)


@pytest.mark.parametrize(
  'text',
  [
    'a 0-2\nb 4-7  # behind the pooling\nb 8-9\n',
    'layer,start,stop\na,0,2\nb,4,7\nb,8,9\n',
    '{"a": [0, 2], "b": [[4, 7], [8, 9]]}',
    '{"a": "0-2", "b": ["4-7", "8-9"]}',
  ],
)
def test_by_a_users_mapping(launches, tmp_path, text):
  path = tmp_path / 'layers.txt'
  path.write_text(text)
  ranges = traffic.read_layer_ranges(path)
  assert ranges == {'a': ((0, 2),), 'b': ((4, 7), (8, 9))}
  found = traffic.group_by_layer(launches, 'ranges', ranges=ranges)
  assert {path: layer.l2_reads for path, layer in found.items()} == {
    'a': 3,
    'b': 16 + 32 + 64 + 256,
    '': 4 + 8 + 128,
  }


@pytest.mark.parametrize(
  'text, message',
  [
    ('', 'line 1: no layer'),
    ('a 0-2\nb\n', "line 2: 'b'; allowed"),
    ('a 2-2\n', 'line 1: 2-2 is empty'),
    ('a 0-2\nb 1-3\n', 'line 2: launches 1-3 are given twice'),
    ('{"a": [0]}', r"field 'a': 0; allowed: \[START, STOP\]"),
    ('{"a": [-1, 2]}', "field 'a'"),
    ('{"a": [0, 2]', 'line 1: Expecting'),
  ],
)
def test_broken_mappings_are_refused(tmp_path, text, message):
  path = tmp_path / 'layers.txt'
  path.write_text(text)
  with pytest.raises(traffic.ProfileError, match=message) as error:
    traffic.read_layer_ranges(path)
  assert str(path) in str(error.value) and '\n' not in str(error.value)


def test_what_does_not_fit_is_refused(launches, tmp_path):
  with pytest.raises(ValueError, match='a: launches 8-10; allowed: from 0 to 9'):
    traffic.group_by_layer(launches, 'ranges', ranges={'a': [(8, 10)]})
  with pytest.raises(ValueError, match='b: launches 1-3 are also those of a'):
    traffic.group_by_layer(launches, 'ranges', ranges={'a': [(0, 2)], 'b': [(1, 3)]})
  with pytest.raises(ValueError, match="by='order'; allowed: .*layers with by='order'"):
    traffic.group_by_layer(launches, 'order')
  with pytest.raises(ValueError, match="by='time'; allowed: nvtx, ranges, order"):
    traffic.group_by_layer(launches, 'time')
  with pytest.raises(traffic.ProfileError, match='a summary of a profile has no order'):
    traffic.group_by_layer([launches[0]._replace(launches=2)], 'nvtx')
  path = tmp_path / 'layers.txt'
  path.write_bytes(b'\xff\xfe\x00')
  with pytest.raises(traffic.ProfileError, match='not text'):
    traffic.read_layer_ranges(path)
