"""The one place that imports Pallas: Mosaic GPU of JAX 0.10.2 to 0.12, its interpreter, its target.

Imported when a kernel is traced, not before: it takes half a second, and the XLA forms need none of
it. Kernels are written against `plgpu.kernel`; Triton lowering and `pl.pallas_call` on GPUs are
deprecated. Names that moved between versions are resolved here, and a version that moved another
fails with a message that says which.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

_interpreter: contextvars.ContextVar[Any] = contextvars.ContextVar('interpreter', default=None)


@functools.cache
def _modules():
  """`pl` and `plgpu`."""
  from jax.experimental import pallas
  from jax.experimental.pallas import mosaic_gpu

  return pallas, mosaic_gpu


def ds(start: Any, size: int) -> Any:
  """A slice of a reference, from `start`, which may be traced."""
  return _modules()[0].ds(start, size)


def when(condition: Any) -> Callable[[Callable[[], None]], None]:
  """Runs the function it decorates if a traced condition holds."""
  return _modules()[0].when(condition)


def smem(shape: Sequence[int], dtype: Any) -> Any:
  """Type of a block in shared memory."""
  return _modules()[1].SMEM(tuple(shape), dtype)


def kernel(
  body: Callable[..., None],
  *,
  name: str,
  out_type: Any,
  grid: Sequence[int],
  grid_names: Sequence[str],
  scratch_types: Sequence[Any] = (),
  **threads: Any,
) -> Callable[..., Any]:
  """`plgpu.kernel` of one warpgroup a program, without implicit barriers: bodies call `barrier`."""
  plgpu = _modules()[1]
  return plgpu.kernel(
    body,
    out_type=out_type,
    grid=tuple(grid),
    grid_names=tuple(grid_names),
    scratch_types=list(scratch_types),
    kernel_name=name,
    **threads,
    interpret=_interpreter.get() or False,
    compiler_params=plgpu.CompilerParams(unsafe_no_auto_barriers=True),
  )


def barrier() -> None:
  """All lanes of the program have written to shared memory what stands before, and may read it."""
  _modules()[1].commit_smem()


def load(ref: Any, index: tuple[Any, ...], *, shape: tuple[int, int], vector: int) -> jax.Array:
  """`ref[index]` with a given number of neighbouring elements in a lane.

  Left alone, Mosaic gives a lane 8 bytes, so that blocks of different types do not combine. The
  interpreter of JAX 0.10 knows no layouts, which change no value.

  Args:
    ref: in global or shared memory.
    index: of a two-dimensional block.
    shape: of the block.
    vector: elements; `128 * vector` divides the block's.
  """
  if interpreting():
    return ref[index]
  plgpu = _modules()[1]
  # The cast is free: the load takes its layout from it.
  return plgpu.layout_cast(ref[index], plgpu.Layout.WG_STRIDED(shape, vec_size=vector))


def zeros(shape: tuple[int, int], vector: int) -> jax.Array:
  """float32 zeros laid out as `load` lays out."""
  if interpreting():
    return jnp.zeros(shape, jnp.float32)
  plgpu = _modules()[1]
  return plgpu.layout_cast(
    jnp.zeros(shape, jnp.float32), plgpu.Layout.WG_STRIDED(shape, vec_size=vector)
  )


def interpreting() -> bool:
  return _interpreter.get() is not None


@contextlib.contextmanager
def interpreted() -> Iterator[None]:
  """Kernels traced here run on the CPU in Mosaic's interpreter, with race detection.

  Raises:
    ImportError: naming what this JAX has moved.
    RuntimeError: on leaving, if a race was found.
  """
  params, get_races, reset = _interpreter_api()
  reset()
  token = _interpreter.set(params(detect_races=True))
  try:
    yield
    with contextlib.suppress(AssertionError):  # No kernel ran.
      if get_races().races_found:
        raise RuntimeError('the interpreter found a race; it was printed above')
  finally:
    _interpreter.reset(token)
    reset()


def _interpreter_api():
  try:
    # Public as plgpu.InterpretGPUParams from JAX 0.11; the rest is private in all versions.
    from jax._src.pallas.mosaic_gpu.interpret import interpret_pallas_call, params

    return (
      params.InterpretGPUParams,
      interpret_pallas_call.get_races,
      interpret_pallas_call.reset_gpu_interpret_mode_state,
    )
  except (ImportError, AttributeError) as error:
    raise ImportError(
      f'JAX {jax.__version__} has moved the interpreter of Mosaic GPU ({error}); '
      'kernels/pallas.py knows that of 0.10.2 to 0.12'
    ) from error


def target() -> tuple[str, str]:
  """Platform and kind of the device that is traced for: the abstract one, if set, else the first.

  Returns:
    Such as `('cuda', 'NVIDIA H200')` or `('cpu', 'cpu')`.
  """
  if abstract():
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.platform, device.device_kind
  device = jax.devices()[0]
  return ('cuda' if capability() else device.platform), device.device_kind


def abstract() -> bool:
  """Whether a device is traced for that is not the one here, as `tracing_for` arranges.

  Under `jax.shard_map` the mesh has an abstract device too: that of the machine.
  """
  device = getattr(jax.sharding.get_abstract_mesh(), 'abstract_device', None)
  return device is not None and device.device_kind != jax.devices()[0].device_kind


def capability() -> float:
  """CUDA compute capability of the first device, such as 9.0; infinite for an abstract one."""
  if abstract():
    return float('inf')
  try:
    return float(jax.devices()[0].compute_capability)
  except (AttributeError, ValueError):  # Not a GPU, or not of NVIDIA.
    return 0.0


@contextlib.contextmanager
def tracing_for(device_kind: str, cores: int) -> Iterator[None]:
  """Traces for a GPU that is not there, so that `jit(f).trace(x).lower(...)` lowers for it."""
  device = jax.sharding.AbstractDevice(device_kind, cores, 'cuda')
  with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), (), abstract_device=device)):
    yield
