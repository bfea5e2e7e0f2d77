"""A last-level cache with its name and capacity, made of a technology in one call."""

import dataclasses
import pathlib

from cnnopt_jax.nvm import specs, structures
from cnnopt_jax.nvm.circuit.cache import CacheTotals
from cnnopt_jax.nvm.files.cell_files import read_cell
from cnnopt_jax.nvm.search import tuning
from cnnopt_jax.nvm.search.obstacles import obstacles
from cnnopt_jax.nvm.system import CacheFigures
from cnnopt_jax.nvm.technology import cells, nodes

MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class LastLevelCache:
  """A cache as a workload meets it: what accesses cost, and how much it holds.

  Accesses to DRAM follow from the capacity, so `CacheFigures` alone do not say what a workload
  costs. Whoever has figures of their own writes `LastLevelCache('mine', 7 << 20, figures)`.

  Attributes:
    name: of its technology.
    capacity_bytes: of data.
    figures: latencies, energies, leakage and area, Python numbers.
  """

  name: str
  capacity_bytes: int
  figures: CacheFigures

  def __post_init__(self):
    if self.capacity_bytes < 1:
      raise ValueError(f'capacity_bytes={self.capacity_bytes}; allowed: at least 1')

  @classmethod
  def of(cls, name: str, capacity_bytes: int, totals: CacheTotals) -> 'LastLevelCache':
    """Of a modelled cache, such as a `Winner`'s totals."""
    return cls(name, capacity_bytes, CacheFigures(*map(float, CacheFigures.of(totals))))

  def __str__(self) -> str:
    return f'{self.name} {self.capacity_bytes / MIB:g} MiB'


def tuned(
  technology: str | pathlib.Path | structures.Cell,
  *,
  mib: float,
  node_nm: int = 16,
  roadmap: str = 'HP',
  temperature_k: int = 350,
  tag_cell: str | None = 'sram',
) -> LastLevelCache:
  """The EDAP-tuned cache of a memory technology; `edap_tuned` says how it is chosen.

      nvm.tuned('stt', mib=7).figures.read_ns

  The first search compiles for some ten seconds, those after it take a tenth of a second.

  Args:
    technology: a key of `CELLS` or `ALIASES`, the path of a `.cell` file, or a `Cell`.
    mib: capacity, 2^20 bytes; an odd number times a power of two is built of so many banks. Below
      4 KiB there are fewer than 16 ways (`specs.fitting_ways`).
    node_nm, roadmap, temperature_k: as in `technology_node`. 16 nm, DeepNVM's node, is our own
      table; NVSim's are 22 to 120.
    tag_cell: a key of `CELLS` for the tags; None for the cell of the data.

  Returns:
    The cache, named after its technology: the key, the file's stem, or 'cell'.

  Raises:
    ValueError: naming the argument, its value and what is allowed; also if the technology cannot be
      built at this node.
  """
  name, cell = find_cell(technology)
  capacity = _capacity_bytes(mib)
  node = nodes.technology_node(node_nm, roadmap, temperature_k)
  if tag_cell is not None and tag_cell not in cells.CELLS:
    raise ValueError(f'tag_cell={tag_cell!r}; allowed: None, {", ".join(cells.CELLS)}')
  tags = None if tag_cell is None else cells.CELLS[tag_cell]
  ways = specs.fitting_ways(capacity)
  found = tuning.edap_tuned({name: cell}, node, [capacity], tag_cell=tags, associativity=ways)
  if not found:
    raise ValueError(
      f'technology={name!r}: no cache of {mib:g} MiB can be built at {node_nm} nm; '
      + ('; '.join(obstacles(cell, node)) or 'allowed: another node, capacity or cell')
    )
  return LastLevelCache.of(name, capacity, found[name, capacity].totals)


def _capacity_bytes(mib: float) -> int:
  capacity = round(mib * MIB) if 0 < mib < float('inf') else 0
  if not capacity or capacity != mib * MIB:
    raise ValueError(f'mib={mib}; allowed: whole bytes, above 0')
  try:
    ways = specs.fitting_ways(capacity)
    specs.validate_spec(specs.CacheSpec(capacity, associativity=ways))
  except ValueError as error:
    raise ValueError(f'mib={mib}: {error}') from None
  return capacity


def find_cell(technology: str | pathlib.Path | structures.Cell) -> tuple[str, structures.Cell]:
  """The cell of a technology, and a name for it.

  Args:
    technology: as in `tuned`.

  Returns:
    The key, the file's stem (its name, where the stem is a key), or 'cell'; and the cell.

  Raises:
    ValueError: for an unknown name, or a file that cannot be read or holds no cell.
  """
  if isinstance(technology, structures.Cell):
    return 'cell', technology
  key = str(technology)
  if key in cells.CELLS or key in cells.ALIASES:
    return key, cells.named_cell(key)
  if key.endswith('.cell'):
    path = pathlib.Path(technology)
    try:
      known = path.stem in cells.CELLS or path.stem in cells.ALIASES
      return path.name if known else path.stem, read_cell(path)
    except OSError as error:
      raise ValueError(
        f'technology={key!r}: {error.strerror}; allowed: a readable .cell file'
      ) from None
  raise ValueError(
    f'technology={key!r}; allowed: {", ".join((*cells.CELLS, *cells.ALIASES))}, '
    'the path of a .cell file, or a Cell'
  )
