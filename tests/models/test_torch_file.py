"""PyTorch's first file format, written here byte by byte, and files that must be refused."""

import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest

from cnnopt_jax.models import TorchFileError, read_torch_file

# Opcodes of pickle protocol 2, as `pickletools` documents them.
MARK, TUPLE, REDUCE, SETITEMS, STOP = b'(', b't', b'R', b'u', b'.'
START = b'\x80\x02'


def text(value):
  return b'X' + struct.pack('<I', len(value)) + value.encode()


def integer(value):
  return b'J' + struct.pack('<i', value)


def call(module, name, *arguments):
  return named(module, name) + MARK + b''.join(arguments) + TUPLE + REDUCE


def named(module, name):
  return f'c{module}\n{name}\n'.encode()


def tensor(kind, key, size, offset, shape, strides):
  storage = (
    MARK
    + text('storage')
    + named('torch', kind)
    + text(key)
    + text('cpu')
    + integer(size)
    + b'N'
    + TUPLE
    + b'Q'
  )
  numbers = lambda values: MARK + b''.join(map(integer, values)) + TUPLE
  return call(
    'torch._utils',
    '_rebuild_tensor_v2',
    storage,
    integer(offset),
    numbers(shape),
    numbers(strides),
    b'\x89',
    call('collections', 'OrderedDict'),
  )


def state_dict(**tensors):
  entries = b''.join(text(name) + value for name, value in tensors.items())
  return START + call('collections', 'OrderedDict') + MARK + entries + SETITEMS + STOP


def header(magic=None, version=1001, little_endian=b'\x88'):
  number = bytes.fromhex('6cfc9c46f9206aa85019')  # Little-endian, ten bytes.
  magic = START + b'\x8a\x0a' + number + STOP if magic is None else magic
  sizes = b'}' + MARK + text('little_endian') + little_endian + SETITEMS
  return magic + START + integer(version) + STOP + START + sizes + STOP


def storages(**arrays):
  keys = b']' + MARK + b''.join(map(text, arrays)) + b'e'
  return (
    START
    + keys
    + STOP
    + b''.join(struct.pack('<q', array.size) + array.tobytes() for array in arrays.values())
  )


FLOATS = np.arange(24, dtype='<f4') / 7
LONGS = np.array([2**40], '<i8')
GOOD = (
  header()
  + state_dict(
    plain=tensor('FloatStorage', 'a', 24, 0, (2, 3, 4), (12, 4, 1)),
    transposed=tensor('FloatStorage', 'a', 24, 6, (3, 2), (1, 3)),
    counter=tensor('LongStorage', 'b', 1, 0, (), ()),
    empty=tensor('FloatStorage', 'a', 24, 0, (0, 3), (3, 1)),
  )
  + storages(a=FLOATS, b=LONGS)
)


def read(tmp_path, content):
  path = tmp_path / 'net.pth'
  path.write_bytes(content)
  return read_torch_file(path)


def test_reads_views_of_shared_storages(tmp_path):
  arrays = read(tmp_path, GOOD)
  assert list(arrays) == ['plain', 'transposed', 'counter', 'empty']
  np.testing.assert_array_equal(arrays['plain'], FLOATS.reshape(2, 3, 4))
  np.testing.assert_array_equal(arrays['transposed'], FLOATS[6:12].reshape(2, 3).T)
  assert arrays['counter'] == 2**40 and arrays['counter'].dtype == np.int64
  assert arrays['empty'].shape == (0, 3)


def test_every_truncation_is_refused(tmp_path):
  for length in range(len(GOOD)):
    with pytest.raises(TorchFileError, match=r'net\.pth'):
      read(tmp_path, GOOD[:length])


def test_a_changed_byte_changes_values_or_is_refused(tmp_path):
  refused = 0
  for i in range(len(GOOD)):
    try:
      read(tmp_path, GOOD[:i] + bytes([GOOD[i] ^ 0x55]) + GOOD[i + 1 :])
    except TorchFileError:
      refused += 1
  assert refused > (len(GOOD) - FLOATS.nbytes - LONGS.nbytes) / 2


ONE = lambda **kwargs: tensor(
  'FloatStorage', 'a', 24, **{'offset': 0, 'shape': (24,), 'strides': (1,), **kwargs}
)


@pytest.mark.parametrize(
  'content, reason',
  [
    (b'', 'damaged, cut off or no PyTorch file'),
    (b'PK\x03\x04 and so on', 'zip format'),
    (pickle.dumps({'weight': 1}), 'magic number'),
    (header(version=1002), 'version 1002; allowed: 1001'),
    (header(little_endian=b'\x89'), 'not little-endian'),
    (GOOD + b'\0', 'bytes follow'),
    (header() + START + integer(5) + STOP + storages(), 'no dict'),
    (header() + state_dict(a=integer(5)) + storages(), "'a' is not a tensor"),
    (header() + state_dict(w=ONE()) + storages(b=FLOATS), 'not those that the tensors name'),
    (header() + state_dict(w=ONE()) + storages(a=FLOATS[1:]), 'does not have the 24 elements'),
    (header() + state_dict(w=ONE()) + storages(a=FLOATS)[:-1], "ends within storage 'a'"),
    (header() + state_dict(w=ONE(offset=1)) + storages(a=FLOATS), "'w' reaches beyond"),
    (header() + state_dict(w=ONE(offset=-1)) + storages(a=FLOATS), "'w' has no valid shape"),
    (header() + state_dict(w=ONE(strides=(-1,))) + storages(a=FLOATS), "'w' has no valid shape"),
    (header() + state_dict(w=ONE(strides=())) + storages(a=FLOATS), "'w' has no valid shape"),
    # A terabyte out of 24 numbers.
    (
      header() + state_dict(w=ONE(shape=(2**19, 2**19), strides=(0, 0))) + storages(a=FLOATS),
      "'w' reaches beyond",
    ),
    (
      header()
      + state_dict(v=ONE(), w=tensor('LongStorage', 'a', 24, 0, (24,), (1,)))
      + storages(a=FLOATS),
      "storage 'a' is named with two types",
    ),
    (
      header() + state_dict(w=tensor('QInt8Storage', 'a', 24, 0, (24,), (1,))),
      'torch.QInt8Storage, which is not allowed',
    ),
  ],
)
def test_what_is_wrong_is_said(tmp_path, content, reason):
  with pytest.raises(TorchFileError, match=reason) as caught:
    read(tmp_path, content)
  assert str(tmp_path / 'net.pth') in str(caught.value) and '\n' not in str(caught.value)


def test_few_bytes_do_not_take_much_memory(tmp_path):
  # LONG_BINPUT with a great index: a memo kept as a list would take a quarter of a gigabyte.
  remember = b'r' + struct.pack('<I', 2**24)
  content = header() + state_dict(w=ONE() + remember) + storages(a=FLOATS)
  tracemalloc.start()
  try:
    assert list(read(tmp_path, content)) == ['w']
    assert tracemalloc.get_traced_memory()[1] < 2**22
  finally:
    tracemalloc.stop()


class Touch:
  """Pickles as a call that makes a file."""

  def __init__(self, path, function=os.system, command='touch {}'):
    self.path, self.function, self.command = path, function, command

  def __reduce__(self):
    return self.function, (self.command.format(self.path),)


def attacks(canary):
  system = Touch(canary)
  evaluate = Touch(canary, eval, "open('{}', 'w')")
  command = text(f'touch {canary}')
  for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
    yield header() + pickle.dumps({'w': system}, protocol), f'{os.name}.system'
    nested = pickle.dumps({'w': [{'x': (evaluate,)}]}, protocol)
    yield header() + nested, r'(__builtin__|builtins)\.eval'
    yield pickle.dumps(system, protocol) + GOOD, f'{os.name}.system'
  yield header() + state_dict(w=call('os', 'system', command)) + storages(), r'os\.system'
  # Inside the arguments of a tensor, in place of a storage's key, and among the keys.
  yield (
    header()
    + state_dict(w=call('torch._utils', '_rebuild_tensor_v2', call('os', 'system', command))),
    r'os\.system',
  )
  yield header() + state_dict() + START + call('os', 'system', command) + STOP, r'os\.system'
  # The opcodes INST and OBJ, and attributes of what is allowed.
  yield header() + MARK + command + b'ios\nsystem\n' + STOP, r'os\.system'
  yield header() + START + MARK + named('os', 'system') + command + b'o' + STOP, r'os\.system'
  dotted = b'\x80\x04' + text('collections') + text('OrderedDict.fromkeys') + b'\x93' + STOP
  yield header() + dotted, r'collections\.OrderedDict\.fromkeys'
  yield header() + START + named('collections', '_sys') + STOP, r'collections\._sys'
  yield header() + START + named('torch', 'load') + STOP, r'torch\.load'


def test_calls_are_refused_by_name_and_never_made(tmp_path):
  canary = tmp_path / 'canary'
  count = 0
  for content, name in attacks(canary):
    with pytest.raises(TorchFileError, match=f'calls {name}, which is not allowed'):
      read(tmp_path, content)
    count += 1
  assert count >= 20 and not canary.exists()
  pickle.loads(pickle.dumps(Touch(canary)))  # The canary sings where calls are made.
  assert canary.exists()


def test_a_file_cannot_change_how_the_next_is_read(tmp_path):
  # BUILD with slots sets attributes of the stand-in for `_rebuild_tensor_v2`.
  slots = (
    START
    + named('torch._utils', '_rebuild_tensor_v2')
    + b'N'
    + b'}'
    + MARK
    + text('__defaults__')
    + MARK
    + integer(1) * 5
    + TUPLE
    + SETITEMS
    + b'\x86b'
    + STOP
  )
  with pytest.raises(TorchFileError):
    read(tmp_path, header() + slots + storages())
  assert len(read(tmp_path, GOOD)) == 4
