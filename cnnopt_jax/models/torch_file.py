"""Reads tensors from PyTorch's first file format without PyTorch, and runs no code of the file.

`torch.save` wrote this format until version 1.6, and still does on request. It is a row of pickles
(a magic number, the format's version, sizes of C types, the object, the keys of the storages) and
then, for each storage, its number of elements and its bytes. In the pickled object a storage is a
persistent id and a tensor a call of `_rebuild_tensor_v2` on one.

A pickle is a program that names what it calls. This reader knows `collections.OrderedDict`, and
stand-ins of its own for `torch._utils._rebuild_tensor_v2` and the storage types below; any other
name is refused before anything is imported or called.
"""

import collections
import io
import math
import pathlib
import pickle
import struct
from typing import Any, NamedTuple

import numpy as np

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
DTYPES = {
  'DoubleStorage': '<f8',
  'FloatStorage': '<f4',
  'HalfStorage': '<f2',
  'LongStorage': '<i8',
  'IntStorage': '<i4',
  'ShortStorage': '<i2',
  'CharStorage': '|i1',
  'ByteStorage': '|u1',
  'BoolStorage': '|b1',
}


class TorchFileError(ValueError):
  """A file that is not what it should be, whole and harmless."""


class _Storage(NamedTuple):
  """A storage that the pickled object names: its key, type and number of elements."""

  key: str
  kind: str
  size: int


class _Tensor(NamedTuple):
  """A view of a storage, in elements."""

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


class _Unpickler(pickle._Unpickler):
  """Builds numbers, strings, lists, tuples, dicts, and what `allowed` holds.

  This is the standard library's unpickler in Python: the one in C sizes its memo by an index that
  the file names, so that a few bytes can ask for all memory.
  """

  def __init__(self, stream: io.BytesIO, allowed: dict[tuple[str, str], Any]):
    super().__init__(stream)
    self._allowed = allowed
    self.storages: dict[str, _Storage] = {}

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) not in self._allowed:
      raise TorchFileError(f'it calls {module}.{name}, which is not allowed')
    return self._allowed[module, name]

  def persistent_load(self, pid: Any) -> _Storage:
    tag, kind, key, _, size, view = pid
    if tag != 'storage' or kind not in DTYPES or view is not None:
      raise TorchFileError(f'unknown persistent id {str(pid)[:80]}')
    storage = _Storage(key, kind, size)
    if self.storages.setdefault(key, storage) != storage:
      raise TorchFileError(f'storage {key!r} is named with two types or sizes')
    return storage


def _names() -> dict[tuple[str, str], Any]:
  """The names a file may use. Made anew for each file: pickles can set attributes of functions."""

  def rebuild(storage, offset, shape, strides, requires_grad, hooks):
    del requires_grad, hooks
    return _Tensor(storage, offset, shape, strides)

  return {
    ('collections', 'OrderedDict'): collections.OrderedDict,
    ('torch._utils', '_rebuild_tensor_v2'): rebuild,
    **{('torch', kind): kind for kind in DTYPES},
  }


def _header(stream: io.BytesIO) -> None:
  """Reads the three pickles before the object, which call nothing."""
  if _Unpickler(stream, {}).load() != MAGIC_NUMBER:
    raise TorchFileError('the magic number is missing')
  version = _Unpickler(stream, {}).load()
  if version != PROTOCOL_VERSION:
    raise TorchFileError(f'the format has version {version!r}; allowed: {PROTOCOL_VERSION}')
  if _Unpickler(stream, {}).load().get('little_endian') is not True:
    raise TorchFileError('its numbers are not little-endian')


def _storage_data(stream: io.BytesIO, storages: dict[str, _Storage]) -> dict[str, np.ndarray]:
  """Reads the keys and the elements of all storages, which end the file."""
  keys = _Unpickler(stream, {}).load()
  if sorted(keys) != sorted(storages):
    raise TorchFileError('the storages are not those that the tensors name')
  data = {}
  for key in keys:
    dtype, size = np.dtype(DTYPES[storages[key].kind]), storages[key].size
    if struct.unpack('<q', stream.read(8))[0] != size:
      raise TorchFileError(f'storage {key!r} does not have the {size} elements that tensors name')
    content = stream.read(size * dtype.itemsize)
    if len(content) != size * dtype.itemsize:
      raise TorchFileError(f'the file ends within storage {key!r}')
    data[key] = np.frombuffer(content, dtype)
  if stream.read(1):
    raise TorchFileError('bytes follow the last storage')
  return data


def _array(name: str, tensor: _Tensor, data: dict[str, np.ndarray]) -> np.ndarray:
  """Copies the elements of a tensor out of its storage."""
  numbers = (tensor.offset, *tensor.shape, *tensor.strides)
  if any(type(n) is not int or n < 0 for n in numbers) or len(tensor.shape) != len(tensor.strides):
    raise TorchFileError(f'tensor {name!r} has no valid shape')
  values = data[tensor.storage.key]
  if 0 in tensor.shape:
    return np.zeros(tensor.shape, values.dtype)
  last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides))
  # A step of 0 repeats elements: a small file could ask for an array of any size.
  if last >= len(values) or math.prod(tensor.shape) > len(values):
    raise TorchFileError(f'tensor {name!r} reaches beyond its storage')
  strides = [step * values.itemsize for step in tensor.strides]
  return np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.shape, strides).copy()


def read_torch_file(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """Reads a file that holds a dict of tensors, such as a module's `state_dict`.

  Args:
    path: of the file, in the format before PyTorch 1.6.

  Returns:
    Arrays by name, in the file's order.

  Raises:
    TorchFileError: if the file calls a function that is not allowed, is damaged or cut off, has
      another format, or holds anything but tensors by name; it names the file and the reason.
    OSError: if the file cannot be read.
  """
  content = pathlib.Path(path).read_bytes()
  stream = io.BytesIO(content)
  try:
    if content.startswith(b'PK'):
      raise TorchFileError(
        'it has the zip format of PyTorch 1.6 and later; save it with '
        '_use_new_zipfile_serialization=False'
      )
    _header(stream)
    unpickler = _Unpickler(stream, _names())
    tensors = unpickler.load()
    data = _storage_data(stream, unpickler.storages)
    if not isinstance(tensors, dict):
      raise TorchFileError('it holds no dict')
    for name, tensor in tensors.items():
      if type(name) is not str or type(tensor) is not _Tensor:
        raise TorchFileError(f'entry {str(name)[:80]!r} is not a tensor with a name')
    return {name: _array(name, tensor, data) for name, tensor in tensors.items()}
  except TorchFileError as error:
    raise TorchFileError(f'{path}: {error}') from None
  except Exception as error:  # A damaged pickle may end in an exception of any type.
    raise TorchFileError(
      f'{path}: damaged, cut off or no PyTorch file ({type(error).__name__}: {error})'
    ) from error
