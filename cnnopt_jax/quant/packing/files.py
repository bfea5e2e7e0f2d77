"""Packed parameters in one safetensors file, written as a whole, read with every byte checked.

Tensors: a leaf in float stands under its path; the codes and steps of a packed leaf under
'path#codes' and 'path#steps', those of the slices of a stack under 'path#0#codes' and so on; a leaf
whose record says `unit_steps` has no steps there. The header's metadata have one entry,
'cnnopt_jax', a JSON text:

    {"format": ..., "plan": [{"path", "role", ...}], "metadata": {...}, "sha256": "..."}

with a record (`records`) of each leaf in its plan, the caller's metadata, and the checksum of this
text without the checksum, followed by the bytes of the tensors in the order of their names.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from cnnopt_jax.quant.packing import records
from cnnopt_jax.quant.packing.leaves import Packed, PackedLeaf, parts
from cnnopt_jax.quant.packing.params import PackedParams
from cnnopt_jax.workload import path_string

_FORMAT = 'cnnopt_jax packed parameters 1'

# The format's names of types; it has more, of which an older version of its library knows nothing.
_TYPES = {
  'bool': 'BOOL',
  'uint8': 'U8',
  'int8': 'I8',
  'uint16': 'U16',
  'int16': 'I16',
  'uint32': 'U32',
  'int32': 'I32',
  'uint64': 'U64',
  'int64': 'I64',
  'float16': 'F16',
  'bfloat16': 'BF16',
  'float32': 'F32',
  'float64': 'F64',
}
_LENGTH_BYTES = 8  # Of the number at the start of the file, the header's length.
_METADATA = '__metadata__'  # The format's own key for a file's metadata.
_ENTRY = 'cnnopt_jax'  # One, since the library writes several in any order.


class FileSize(NamedTuple):
  """Bytes of a file of packed parameters, by what they hold.

  Attributes:
    header: names, shapes, plan, metadata and checksum, and the header's own length.
    codes: of quantized leaves.
    steps: of quantized leaves.
    floats: leaves, or slices of them, that are not quantized.
  """

  header: int
  codes: int
  steps: int
  floats: int

  @property
  def total(self) -> int:
    return sum(self)


def save(
  path: str | os.PathLike, packed: PackedParams, metadata: Mapping[str, Any] | None = None
) -> FileSize:
  """Writes packed parameters to a file, which appears as a whole or not at all.

  Args:
    path: of the file; one that exists is replaced. Its folder must exist.
    packed: to write.
    metadata: anything that JSON can hold, for `load_metadata`.

  Returns:
    What the file holds, in bytes.

  Raises:
    ValueError: if two leaves would have one name in the file, a leaf is of a type that the format
      lacks, or the metadata are not JSON.
  """
  path = pathlib.Path(path)
  content = _serialized(packed, metadata)
  temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
  try:
    with open(temporary, 'wb') as file:
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)
  return _size(packed, content)


def file_size(packed: PackedParams, metadata: Mapping[str, Any] | None = None) -> FileSize:
  """What the file that `save` would write holds, in bytes.

      codes = sum of ceil(size bits / 8) over quantized leaves (ceil(size / 5) if ternary)
      steps = 4 bytes a step (8 of a float64 leaf), none where all are 1 (`PackedLeaf.steps`)

  Args:
    packed: as in `save`.
    metadata: as in `save`.

  Returns:
    Bytes by what they hold; `total` is the file's length.

  Raises:
    ValueError: as `save`.
  """
  return _size(packed, _serialized(packed, metadata))


def load(path: str | os.PathLike, like: Any = None) -> PackedParams:
  """Reads what `save` wrote.

  Args:
    path: of the file.
    like: a tree with the structure of the parameters, leaves of their shapes (such as
      `jax.ShapeDtypeStruct`); None for nested dicts, by the parts of the leaves' paths, which is
      the structure of parameters that were nested dicts.

  Returns:
    The packed parameters, bit for bit.

  Raises:
    ValueError: naming the file and what is wrong with it: it is damaged, cut off, or not written by
      `save`; or how it differs from `like`.
    OSError: if it cannot be read.
  """
  content = _read(path)
  try:
    if like is None:
      tree = records.nested(content.paths)
      return _arranged(content, jax.tree.leaves(tree), jax.tree.structure(tree))
    return _arranged(content, _places(content, like), jax.tree.structure(like))
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from None


def load_metadata(path: str | os.PathLike) -> dict[str, Any]:
  """The metadata that `save` was given.

  Args:
    path: of the file.

  Returns:
    The metadata.

  Raises:
    ValueError: as `load`.
    OSError: if it cannot be read.
  """
  return _read(path).metadata


class _Content(NamedTuple):
  """Of a file: its leaves in the order of its plan."""

  paths: tuple[str, ...]
  roles: tuple[str, ...]
  leaves: tuple[Packed, ...]
  metadata: dict[str, Any]


def _serialized(packed: PackedParams, metadata: Mapping[str, Any] | None) -> bytes:
  tensors: dict[str, np.ndarray] = {}
  plan = []
  for path, role, leaf in zip(packed.paths, packed.roles, packed.leaves, strict=True):
    try:
      leaf = jax.tree.map(np.asarray, leaf)
    except TypeError as error:
      raise ValueError(f'{path}: no array of numbers ({error})') from None
    for name, array in zip(records.tensor_names(path, leaf), jax.tree.leaves(leaf), strict=True):
      if array.dtype.name not in _TYPES:
        raise ValueError(f'{path}: dtype={array.dtype.name}; allowed: {", ".join(_TYPES)}')
      if name in tensors or name == _METADATA:
        raise ValueError(f'{path}: the name {name!r} is taken; allowed: one tensor a name')
      # The library would write the memory behind a view that skips elements.
      tensors[name] = np.ascontiguousarray(array).reshape(array.shape)
    plan.append({'path': path, 'role': role, **records.record(leaf)})
  content = {'format': _FORMAT, 'plan': plan, 'metadata': dict(metadata or {})}
  try:
    content = json.loads(json.dumps(content, allow_nan=False))
  except (TypeError, ValueError) as error:
    raise ValueError(f'metadata: {error}; allowed: what JSON can hold') from None
  content['sha256'] = _checksum(content, tensors)
  return safetensors_numpy.save(tensors, {_ENTRY: _text(content)})


def _text(content: Mapping[str, Any]) -> str:
  return json.dumps(content, separators=(',', ':'))


def _checksum(content: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
  digest = hashlib.sha256(_text(content).encode())
  for name in sorted(tensors):
    digest.update(tensors[name].reshape(-1).view(np.uint8).data)
  return digest.hexdigest()


def _size(packed: PackedParams, content: bytes) -> FileSize:
  sizes = dict.fromkeys(('codes', 'steps', 'floats'), 0)
  for leaf in packed.leaves:
    for part in parts(leaf):
      if isinstance(part, PackedLeaf):
        sizes['codes'] += part.codes.nbytes
        sizes['steps'] += 0 if part.steps is None else part.steps.nbytes
      else:
        sizes['floats'] += np.asarray(part).nbytes
  return FileSize(_LENGTH_BYTES + _header_length(content), **sizes)


def _header_length(content: bytes) -> int:
  return int.from_bytes(content[:_LENGTH_BYTES], 'little')


def _read(path: str | os.PathLike) -> _Content:
  content = pathlib.Path(path).read_bytes()
  try:
    return _parsed(content)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from None


def _parsed(content: bytes) -> _Content:
  try:
    tensors = dict(safetensors.deserialize(content))
  except safetensors.SafetensorError as error:
    raise ValueError(f'no safetensors file, or cut off ({error})') from None
  header = json.loads(content[_LENGTH_BYTES : _LENGTH_BYTES + _header_length(content)])
  text = header.get(_METADATA, {}).get(_ENTRY)
  if text is None:
    raise ValueError(f'a safetensors file with no {_ENTRY!r} in its metadata: not of quant.save')
  try:
    known = json.loads(text)
    if known['format'] != _FORMAT:
      raise ValueError(f'format={known["format"]!r}; allowed: {_FORMAT!r}')
    paths = tuple(str(entry['path']) for entry in known['plan'])
    roles = tuple(str(entry['role']) for entry in known['plan'])
    leaves = tuple(records.abstract(entry) for entry in known['plan'])
    metadata, given = known['metadata'], known.pop('sha256')
  except json.JSONDecodeError as error:
    raise ValueError(f'its metadata are no JSON ({error})') from None
  except (KeyError, TypeError, AttributeError) as error:
    raise ValueError(
      f'its metadata lack an entry, or have it of another kind ({error!r})'
    ) from None
  arrays = {}
  for path, leaf in zip(paths, leaves):
    for name, expected in zip(records.tensor_names(path, leaf), jax.tree.leaves(leaf)):
      arrays[name] = _array(name, tensors.pop(name, None), expected)
  if tensors:
    raise ValueError(f'tensor {min(tensors)!r} is not in its plan')
  if _checksum(known, arrays) != given:
    raise ValueError('its checksum is wrong: bytes have changed since it was written')
  structure = jax.tree.structure(leaves)
  leaves = jax.tree.unflatten(structure, [_held(array) for array in arrays.values()])
  return _Content(paths, roles, leaves, metadata)


def _array(name: str, tensor: Mapping[str, Any] | None, expected: Any) -> np.ndarray:
  """A tensor of a file as an array of the type and shape that the plan states."""
  if tensor is None:
    raise ValueError(f'tensor {name!r} is missing')
  found = (tensor['dtype'], tuple(tensor['shape']))
  if found != (_TYPES.get(expected.dtype.name), expected.shape):
    raise ValueError(
      f'tensor {name!r} is {found[0]} {found[1]}; its plan says '
      f'{_TYPES.get(expected.dtype.name)} {expected.shape}'
    )
  return np.frombuffer(tensor['data'], expected.dtype).reshape(expected.shape)


def _held(array: np.ndarray) -> Any:
  """An array of JAX, or of NumPy if JAX would change its type."""
  kept = jax.dtypes.canonicalize_dtype(array.dtype) == array.dtype
  return jnp.asarray(array) if kept else array.copy()


def _places(content: _Content, like: Any) -> list[int]:
  """For each leaf of a tree, the place of its path in the file."""
  flat = jax.tree_util.tree_flatten_with_path(like)[0]
  shapes = {path_string(path): np.shape(leaf) for path, leaf in flat}
  places = {path: i for i, path in enumerate(content.paths)}
  if different := sorted(set(shapes) ^ set(places)):
    where = 'the file' if different[0] in places else 'like'
    raise ValueError(f'path={different[0]!r} is only in {where}; allowed: a tree of the same paths')
  for path, shape in shapes.items():
    known = content.leaves[places[path]]
    if known.shape != shape:
      raise ValueError(
        f'{path} is {known.shape} in the file and {shape} in like; allowed: the same'
      )
  return [places[path_string(path)] for path, _ in flat]


def _arranged(
  content: _Content, places: list[int], structure: jax.tree_util.PyTreeDef
) -> PackedParams:
  return PackedParams(
    tuple(content.leaves[i] for i in places),
    tuple(content.paths[i] for i in places),
    tuple(content.roles[i] for i in places),
    structure,
  )
