"""`check_algorithms`: whether algorithms that are asked for can compute their layers."""

from collections.abc import Mapping

from cnnopt_jax.traffic import algorithms, geometry
from cnnopt_jax.traffic.kernels import Array
from cnnopt_jax.traffic.libraries import Library
from cnnopt_jax.workload import LayerTable


def check_algorithms(
  table: LayerTable,
  library: Library,
  chosen: Mapping[str | tuple[str, str], str],
  *,
  training: bool = False,
) -> None:
  """Refuses algorithms that their layers cannot be computed by, without predicting anything.

  Args:
    table, library, chosen, training: as in `predict_traffic`.

  Raises:
    ValueError: in one line, naming layer, kind of kernel and algorithm.
  """
  paths = {layer.path: layer for layer in table.layers}
  for key, name in chosen.items():
    path, kind = (key, algorithms.KINDS[0]) if isinstance(key, str) else key
    if path not in paths or kind not in algorithms.KINDS:
      shown = ', '.join(paths)
      raise ValueError(f'{key!r}; allowed: paths of layers, or pairs with a kind: {shown}')
    if name not in algorithms.ALGORITHMS:
      raise ValueError(f'{path} by {name!r}; allowed: {", ".join(algorithms.ALGORITHMS)}')
  if not chosen:
    return
  schedule = library.schedule(table, training)
  some = Array(0, 0, library.activation_bits / 8)
  for launch in schedule.launches:
    if launch.layer < 0:
      continue
    name = chosen.get((launch.path, launch.kind), chosen.get(launch.path, ''))
    forward = geometry.forward_geometry(table.layers[launch.layer], 1)
    problem = algorithms.Problem(launch.kind, forward, some, some, some, 0)
    if name and (why := algorithms.refusal(library, problem, name)):
      raise ValueError(f'{launch.path} ({launch.kind}) by {name!r}: {why}')
