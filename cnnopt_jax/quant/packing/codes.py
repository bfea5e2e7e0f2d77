"""Integers of a few bits, packed without gaps into bytes: pure functions of arrays.

Codes form a stream of bits, code i at bits i b to (i + 1) b - 1, lowest first; bit k of the stream
is bit k mod 8 of byte k // 8. Codes of 3, 5, 6 and 7 bits thus cross the borders of bytes.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

# Five digits of base 3 fit a byte: 3^5 = 243.
_DIGITS = 5


def packed_size(size: int, bits: int) -> int:
  """Bytes that codes of `bits` bits take, ceil(size bits / 8)."""
  return -(-size * bits // 8)


def packed_ternary_size(size: int) -> int:
  """Bytes that ternary codes take, ceil(size / 5)."""
  return -(-size // _DIGITS)


@functools.partial(jax.jit, static_argnames='bits')
def pack_codes(codes: jax.Array, bits: int) -> jax.Array:
  """Packs codes of a few bits into bytes.

  Args:
    codes: integers of 0 to 2**bits - 1 (not checked), any shape, taken in row-major order.
    bits: 1 to 8; static.

  Returns:
    Bytes, uint8 [ceil(size bits / 8)]; bits beyond the last code are 0.

  Raises:
    ValueError: if the bitwidth is not allowed.
  """
  count, width = _group(bits)
  groups = _rows(codes, count)

  def byte(j: int) -> jax.Array:
    parts = [_shifted(groups[:, i], i * bits - 8 * j) for i in range(count) if _meet(i, j, bits)]
    return functools.reduce(jnp.bitwise_or, parts)

  return _joined([byte(j) for j in range(width)])[: packed_size(codes.size, bits)]


@functools.partial(jax.jit, static_argnames=('bits', 'shape'))
def unpack_codes(packed: jax.Array, bits: int, shape: tuple[int, ...]) -> jax.Array:
  """The codes that `pack_codes` packed.

  Args:
    packed: uint8 [ceil(size bits / 8)].
    bits: 1 to 8; static.
    shape: of the codes; static.

  Returns:
    Codes of 0 to 2**bits - 1, uint8 of that shape.

  Raises:
    ValueError: if the bitwidth is not allowed, or the bytes are not as many as the shape takes.
  """
  count, width = _group(bits)
  _check_length(packed, packed_size(math.prod(shape), bits), f'{bits} bits', shape)
  groups = _rows(packed, width)

  def code(i: int) -> jax.Array:
    parts = [_shifted(groups[:, j], 8 * j - i * bits) for j in range(width) if _meet(i, j, bits)]
    return functools.reduce(jnp.bitwise_or, parts) & (2**bits - 1)

  return _joined([code(i) for i in range(count)])[: math.prod(shape)].reshape(shape)


@jax.jit
def pack_ternary(codes: jax.Array) -> jax.Array:
  """Packs ternary codes five to a byte, the first one as the lowest digit of base 3.

  Args:
    codes: integers of 0 to 2 (not checked), any shape, taken in row-major order.

  Returns:
    Bytes of 0 to 242, uint8 [ceil(size / 5)]; digits beyond the last code are 0.
  """
  groups = _rows(codes, _DIGITS)
  packed = groups[:, -1]
  for i in reversed(range(_DIGITS - 1)):
    packed = 3 * packed + groups[:, i]
  return packed


@functools.partial(jax.jit, static_argnames='shape')
def unpack_ternary(packed: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """The codes that `pack_ternary` packed.

  Args:
    packed: uint8 [ceil(size / 5)].
    shape: of the codes; static.

  Returns:
    Codes of 0 to 2, uint8 of that shape.

  Raises:
    ValueError: if the bytes are not as many as the shape takes.
  """
  _check_length(packed, packed_ternary_size(math.prod(shape)), 'ternary codes', shape)
  digits = [packed // jnp.uint8(3**i) % jnp.uint8(3) for i in range(_DIGITS)]
  return _joined(digits)[: math.prod(shape)].reshape(shape)


def packed_on_host(codes: np.ndarray, bits: int, *, ternary: bool = False) -> np.ndarray:
  """What `pack_codes`, or `pack_ternary`, makes of codes, by NumPy: nothing to compile."""
  flat = np.ravel(codes).astype(np.uint8)
  if ternary:
    digits = np.pad(flat, (0, -flat.size % _DIGITS)).reshape(-1, _DIGITS)
    return (digits @ 3 ** np.arange(_DIGITS)).astype(np.uint8)
  stream = (flat[:, None] >> np.arange(bits, dtype=np.uint8)) & 1
  return np.packbits(stream, bitorder='little')


def unpacked_on_host(
  packed: np.ndarray, bits: int, shape: tuple[int, ...], *, ternary: bool = False
) -> np.ndarray:
  """What `unpack_codes`, or `unpack_ternary`, makes of bytes, by NumPy."""
  size = math.prod(shape)
  if ternary:
    digits = packed[:, None] // 3 ** np.arange(_DIGITS) % 3
    return digits.astype(np.uint8).ravel()[:size].reshape(shape)
  stream = np.unpackbits(packed, count=size * bits, bitorder='little').reshape(size, bits)
  return (stream << np.arange(bits, dtype=np.uint8)).sum(1, dtype=np.uint8).reshape(shape)


def _group(bits: int) -> tuple[int, int]:
  """The fewest codes that fill whole bytes, and how many bytes those are."""
  if isinstance(bits, bool) or bits not in range(1, 9):
    raise ValueError(f'bits={bits!r}; allowed: 1 to 8')
  common = math.gcd(bits, 8)
  return 8 // common, bits // common


def _meet(i: int, j: int, bits: int) -> bool:
  """Whether code i of a group has bits in byte j of it."""
  return i * bits < 8 * (j + 1) and 8 * j < (i + 1) * bits


def _shifted(x: jax.Array, left: int) -> jax.Array:
  """Bytes shifted towards their highest bit, or the other way; bits that leave a byte are lost."""
  return x << left if left >= 0 else x >> -left


def _rows(x: jax.Array, length: int) -> jax.Array:
  """As bytes in row-major order, [ceil(size / length), length], filled up with zeros."""
  flat = jnp.ravel(x).astype(jnp.uint8)
  return jnp.pad(flat, (0, -flat.size % length)).reshape(-1, length)


def _joined(columns: list[jax.Array]) -> jax.Array:
  return jnp.stack(columns, axis=-1).ravel()


def _check_length(packed: jax.Array, expected: int, what: str, shape: tuple[int, ...]) -> None:
  if packed.dtype != jnp.uint8 or packed.shape != (expected,):
    raise ValueError(
      f'packed: {packed.dtype} {packed.shape}; allowed: uint8 ({expected},) for {what} of shape '
      f'{shape}'
    )
