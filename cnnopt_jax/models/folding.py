"""Quantization steps folded into the norms after their layers."""

from collections.abc import Container

_KERNEL, _SCALE = 'conv/kernel', 'norm/scale'


def norm_after(path: str, paths: Container[str]) -> str | None:
  """The scale of the norm that a conv unit applies after its kernel.

  Args:
    path: of a parameter, below 'params'.
    paths: of all parameters of the network.

  Returns:
    Its path; None if `path` is no kernel of a conv unit, or its unit has no norm.
  """
  if not f'/{path}'.endswith(f'/{_KERNEL}'):
    return None
  scale = path.removesuffix(_KERNEL) + _SCALE
  return scale if scale in paths else None
