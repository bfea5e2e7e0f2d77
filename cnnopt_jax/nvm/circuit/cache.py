"""`cache_ppa`: a data array and a tag array in one of three access modes."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cnnopt_jax import compilation, precision
from cnnopt_jax.nvm import specs, structures
from cnnopt_jax.nvm.circuit import array

Array = structures.Array

# Modes as data, in the order of `specs.CACHE_MODES`.
_NORMAL, _, _SEQUENTIAL = range(3)


class ArrayTotals(NamedTuple):
  """The figures of an array that a cache is made of.

  Attributes:
    area_mm2: mm^2.
    height_um, width_um: um.
    read_latency_ns, write_latency_ns: ns.
    select_latency_ns: reading a line whose way is known only at the end, once it is known
      (column decoder and H-tree), ns.
    row_latency_ns: reading up to the outputs of the mats, ns.
    read_energy_pj, write_energy_pj: pJ.
    leakage_mw: mW.
    valid: whether the array can be built.
  """

  area_mm2: Array
  height_um: Array
  width_um: Array
  read_latency_ns: Array
  write_latency_ns: Array
  select_latency_ns: Array
  row_latency_ns: Array
  read_energy_pj: Array
  write_energy_pj: Array
  leakage_mw: Array
  valid: Array


class CacheTotals(NamedTuple):
  """Figures of a cache.

  Attributes:
    area_mm2: data and tags.
    hit_latency_ns, miss_latency_ns: until the line, or its absence, is known.
    write_latency_ns: of a line.
    hit_energy_nj, miss_energy_nj, write_energy_nj: of one access.
    leakage_mw: mW, the refresh of cells that need it included.
    valid: whether both arrays can be built.
  """

  area_mm2: Array
  hit_latency_ns: Array
  miss_latency_ns: Array
  write_latency_ns: Array
  hit_energy_nj: Array
  miss_energy_nj: Array
  write_energy_nj: Array
  leakage_mw: Array
  valid: Array


class Bus(NamedTuple):
  """Wires between the banks of a cache.

  Attributes:
    banks: how many there are.
    delay_ns_per_um2: of one segment, over its length squared.
    request_nj_per_um, line_nj_per_um: of an address and of a line, over length.
  """

  banks: Array
  delay_ns_per_um2: Array
  request_nj_per_um: Array
  line_nj_per_um: Array


class CachePPA(NamedTuple):
  """A cache and the two arrays of one of its banks.

  Attributes:
    totals: of all banks.
    data, tag: of one bank, with their breakdowns.
  """

  totals: CacheTotals
  data: array.ArrayPPA
  tag: array.ArrayPPA


def array_totals(
  ppa: array.ArrayPPA, row_latency_ns: Array, column_decoder_ns: Array
) -> ArrayTotals:
  """Picks what a cache needs of an array."""
  return ArrayTotals(
    area_mm2=ppa.area_mm2,
    height_um=ppa.height_um,
    width_um=ppa.width_um,
    read_latency_ns=ppa.read_latency_ns,
    write_latency_ns=ppa.write_latency_ns,
    select_latency_ns=column_decoder_ns + ppa.read_latency_ns - row_latency_ns,
    row_latency_ns=row_latency_ns,
    read_energy_pj=ppa.read_energy_pj,
    write_energy_pj=ppa.write_energy_pj,
    leakage_mw=ppa.leakage_mw,
    valid=ppa.valid,
  )


def combine(data: ArrayTotals, tag: ArrayTotals, mode: Array, bus: Bus) -> CacheTotals:
  """Puts a data and a tag array together, elementwise.

  Normal: hit = max(tag, rows of data) + way select and H-tree. Fast: hit = max(tag, data).
  Sequential: hit = tag + data, and a miss costs the tag alone. A write takes the slower array.
  Several banks stand in a row along their shorter side around a common port: the farthest one is
  (banks - 1) / 2 sides away, the mean one (banks^2 - 1) / (4 banks).

  Args:
    data, tag: of one bank.
    mode: index into `specs.CACHE_MODES`.
    bus: `bank_bus`.

  Returns:
    `CacheTotals` of all banks.
  """
  normal, sequential = mode == _NORMAL, mode == _SEQUENTIAL
  hit = jnp.where(
    sequential,
    tag.read_latency_ns + data.read_latency_ns,
    jnp.where(
      normal,
      (jnp.maximum(tag.read_latency_ns, data.row_latency_ns) + data.select_latency_ns),
      jnp.maximum(tag.read_latency_ns, data.read_latency_ns),
    ),
  )
  write = jnp.maximum(tag.write_latency_ns, data.write_latency_ns)
  read_energy = 1e-3 * (tag.read_energy_pj + data.read_energy_pj)
  miss_energy = jnp.where(sequential, 1e-3 * tag.read_energy_pj, read_energy)
  banks = bus.banks
  side = jnp.minimum(data.height_um, data.width_um)
  delay = (banks - 1) / 2 * bus.delay_ns_per_um2 * side**2
  travelled = (banks**2 - 1) / (4 * banks) * side
  request, line = travelled * bus.request_nj_per_um, travelled * bus.line_nj_per_um
  return CacheTotals(
    area_mm2=banks * (tag.area_mm2 + data.area_mm2),
    hit_latency_ns=hit + 2 * delay,
    miss_latency_ns=tag.read_latency_ns + 2 * delay,
    write_latency_ns=write + delay,
    hit_energy_nj=read_energy + request + line,
    miss_energy_nj=miss_energy + request,
    write_energy_nj=(1e-3 * (tag.write_energy_pj + data.write_energy_pj) + request + line),
    leakage_mw=banks * (tag.leakage_mw + data.leakage_mw),
    valid=tag.valid & data.valid,
  )


def bank_bus(spec: specs.CacheSpec, technology: structures.Technology) -> Bus:
  """The bus of a cache; each bank pitch is driven anew, like a level of the H-tree."""
  return bus_of_wires(bus_width(spec), technology)


def bus_width(spec: specs.CacheSpec) -> tuple[float, float, float]:
  """Banks, address bits and line bits: all that a bus needs of a cache."""
  banks, _ = specs.split_capacity(spec.capacity_bytes)
  return float(banks), float(spec.physical_address_bits), 8.0 * spec.line_bytes


def bus_of_wires(width: tuple[Array, Array, Array], technology: structures.Technology) -> Bus:
  """A bus of that width in the wires between mats."""
  banks, address_bits, line_bits = width
  wire = technology.routing
  delay_ps = 2.3 / 2 * 1e-3 * wire.resistance_ohm_per_um * wire.capacitance_ff_per_um
  bit_nj = 1e-6 * wire.capacitance_ff_per_um * technology.vdd_v**2
  return Bus(banks, 1e-3 * delay_ps, address_bits * bit_nj, line_bits * bit_nj)


def cache_ppa(
  cell: structures.Cell,
  technology: structures.Technology,
  data_organization: structures.Organization,
  tag_organization: structures.Organization,
  spec: specs.CacheSpec,
  mode: specs.Mode,
  *,
  tag_cell: structures.Cell | None = None,
  tag_technology: structures.Technology | None = None,
  nvsim_compatible: bool = False,
) -> CachePPA:
  """Evaluates a cache: pure, elementwise, differentiable in cells and technology.

  Args:
    cell: of the data array.
    technology: of both arrays, and of the bus.
    data_organization, tag_organization: of one bank, from `organizations.py` for the same
      `spec`, `mode` and `nvsim_compatible`; equal batch shapes.
    spec: the cache, for the number of its banks and the width of its bus.
    mode: `NORMAL`, `FAST` or `SEQUENTIAL`.
    tag_cell, tag_technology: of the tag array; the data's by default, as in NVSim.
    nvsim_compatible: as in `array_ppa`.

  Returns:
    A `CachePPA` of float64, in NumPy unless it is traced.
  """
  tag_cell = cell if tag_cell is None else tag_cell
  tag_technology = technology if tag_technology is None else tag_technology
  with precision.float64():
    arguments = jax.tree.map(
      array.as_array,
      (
        cell,
        tag_cell,
        technology,
        tag_technology,
        data_organization,
        tag_organization,
        bank_bus(spec, technology),
        specs.CACHE_MODES.index(mode),
      ),
    )
    return precision.to_numpy(_cache_ppa(*arguments, nvsim_compatible))


def cache_model(
  cell, tag_cell, tech, tag_tech, data_org, tag_org, bus, mode, nvsim_compatible
) -> CachePPA:
  """`cache_ppa` without conversions, for programs that are already in float64."""
  # Both arrays in one vmapped evaluation, which halves what there is to compile.
  model = functools.partial(array.array_model, nvsim_compatible=nvsim_compatible)
  pairs = [
    jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    for trees in ((cell, tag_cell), (tech, tag_tech), (data_org, tag_org))
  ]
  arrays = jax.vmap(model)(*pairs)
  data, tag = (jax.tree.map(lambda field, i=i: field[i], arrays) for i in range(2))
  data_totals, tag_totals = (
    array_totals(ppa, ppa.breakdown.mat_read_latency_ns, ppa.breakdown.column_decoder_latency_ns)
    for ppa in (data, tag)
  )
  return CachePPA(combine(data_totals, tag_totals, mode, bus), data, tag)


_cache_ppa = jax.jit(cache_model, static_argnums=8, compiler_options=compilation.QUICKLY)
