"""The largest cache in an area against all tuned caches, and a cache of a technology by name."""

import pytest

from cnnopt_jax import nvm

MIB = 1 << 20
SRAM_TAGS = dict(tag_cell=nvm.CELLS['sram'])


def _tuned_areas(name, node_nm, most_mib, **options):
  """`{MiB: mm^2}` of every capacity."""
  found = nvm.edap_tuned(
    {name: nvm.CELLS[name]},
    nvm.technology_node(node_nm),
    [mib * MIB for mib in range(1, most_mib + 1)],
    **options,
  )
  return {capacity // MIB: winner.totals.area_mm2 for (_, capacity), winner in found.items()}


def test_the_largest_of_all_that_fit():
  tech = nvm.technology_node(16)
  areas = _tuned_areas('stt', 16, 12, **SRAM_TAGS)
  # Eight MiB are one bank, seven are seven, and larger: the search must not stop at six.
  assert areas[8] < areas[7]
  budgets = [0.1, 0.6, areas[8], (areas[7] + areas[8]) / 2]
  for budget in budgets:
    # The bits alone of anything above 12 MiB are larger than this.
    assert budget < 13 * 8 * MIB * 54 * 16e-6**2
    fitting = [mib for mib, area in areas.items() if area <= budget]
    winner = nvm.largest_within_area(nvm.CELLS['stt'], tech, budget, name='stt', **SRAM_TAGS)
    if not fitting:
      assert winner is None
    else:
      assert (winner.cell, winner.capacity_bytes) == ('stt', max(fitting) * MIB)
      assert winner.totals.area_mm2 == areas[max(fitting)]
  least = dict(least_mib=9, **SRAM_TAGS)
  assert nvm.largest_within_area(nvm.CELLS['stt'], tech, areas[8], **least) is None


def test_options_are_those_of_the_search():
  tech, options = nvm.technology_node(22), dict(modes=[nvm.Mode.FAST], associativity=8)
  areas = _tuned_areas('sot', 22, 4, **options)
  winner = nvm.largest_within_area(nvm.CELLS['sot'], tech, areas[2], **options)
  assert winner.mode == nvm.Mode.FAST and winner.totals.area_mm2 == areas[2]


def test_what_cannot_be_built_fits_nowhere():
  tech = nvm.technology_node(16)
  assert nvm.largest_within_area(nvm.CELLS['pcram'], tech, 0.1) is None
  with pytest.raises(ValueError, match='least_mib=0; allowed: at least 1'):
    nvm.largest_within_area(nvm.CELLS['stt'], tech, 1.0, least_mib=0)
  with pytest.raises(ValueError, match='area_mm2=inf; allowed'):
    nvm.largest_within_area(nvm.CELLS['stt'], tech, float('inf'))


def test_tuned_is_the_winner_at_the_stated_node():
  cache = nvm.tuned('paper_stt', mib=1)
  tech = nvm.technology_node(16, 'HP', 350)
  winner = nvm.edap_tuned({'x': nvm.CELLS['paper_stt']}, tech, [MIB], **SRAM_TAGS)['x', MIB]
  assert (cache.name, cache.capacity_bytes, str(cache)) == ('paper_stt', MIB, 'paper_stt 1 MiB')
  assert cache.figures == nvm.CacheFigures.of(winner.totals)
  assert all(type(figure) is float for figure in cache.figures)
  assert nvm.tuned('paperSTT', mib=1).figures == cache.figures
  own = nvm.tuned(nvm.CELLS['paper_stt'], mib=1, tag_cell=None, node_nm=22)
  assert own.name == 'cell' and own.figures.area_mm2 > cache.figures.area_mm2


def test_a_file_is_a_technology(tmp_path):
  from .test_cell_files import STT

  path = tmp_path / 'mine.cell'
  path.write_text(STT)
  cache = nvm.tuned(path, mib=1.5)
  assert str(cache) == 'mine 1.5 MiB' and cache.capacity_bytes == 3 * MIB // 2
  assert cache.figures == nvm.tuned('stt', mib=1.5).figures


@pytest.mark.parametrize(
  'arguments, message',
  [
    (dict(technology='dna', mib=1), "technology='dna'; allowed: sram, stt"),
    (dict(technology='none.cell', mib=1), "technology='none.cell': No such file"),
    (dict(technology='stt', mib=0), 'mib=0; allowed: whole bytes, above 0'),
    (dict(technology='stt', mib=float('nan')), 'mib=nan; allowed'),
    (dict(technology='stt', mib=1 / 3), 'mib=0.33.*allowed: whole bytes'),
    (dict(technology='stt', mib=2**-13), 'mib=0.0001.*odd number times a power'),
    (dict(technology='stt', mib=1, node_nm=7), 'node_nm=7; allowed: 22 to'),
    (dict(technology='stt', mib=1, tag_cell='dna'), "tag_cell='dna'; allowed: None, sram"),
    (dict(technology='pcram', mib=1), 'no cache of 1 MiB can be built at 16 nm'),
  ],
)
def test_bad_requests_are_named(arguments, message):
  technology = arguments.pop('technology')
  with pytest.raises(ValueError, match=message):
    nvm.tuned(technology, **arguments)


def test_a_file_keeps_its_name_apart_from_the_built_in_cells(tmp_path):
  for name, expected in (('sram', 'sram.cell'), ('mine', 'mine')):
    path = tmp_path / f'{name}.cell'
    path.write_text('-MemCellType: SRAM\n-CellArea (F^2): 99\n-CellAspectRatio: 1\n')
    assert nvm.find_cell(path)[0] == expected


def test_a_kibibyte_of_sram():
  """16 lines: 4 sets of 4 ways."""
  small, large = (nvm.tuned('sram', mib=mib) for mib in (1 / 1024, 1))
  assert nvm.fitting_ways(1 << 10) == 4 and nvm.fitting_ways(4 << 10) == 16
  for name in ('read_ns', 'write_nj', 'leakage_mw', 'area_mm2'):
    assert 0 < getattr(small.figures, name) < getattr(large.figures, name)


def test_a_cache_has_a_capacity():
  figures = nvm.CacheFigures(1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
  with pytest.raises(ValueError, match='capacity_bytes=0; allowed: at least 1'):
    nvm.LastLevelCache('mine', 0, figures)
