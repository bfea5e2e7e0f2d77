"""Which organisations there are: counts, conservation, the rule for odd capacities."""

import itertools

import numpy as np
import pytest

from cnnopt_jax import nvm
from cnnopt_jax.nvm import specs
from cnnopt_jax.nvm.search import factoring, organizations

MB = 1 << 20
MODES = (nvm.Mode.NORMAL, nvm.Mode.FAST, nvm.Mode.SEQUENTIAL)


@pytest.mark.parametrize(
  'space, count',
  [
    (nvm.CACTI_SPACE, 10 * 10 * 9**3),
    (nvm.TAG_SPACE, 28 * 28 * 9 * 13 * 3),
    (nvm.WIDE_SPACE._replace(max_mats=2, max_mux=1), 6 * 6 * 9 * 8),
  ],
)
def test_raw_counts(space, count):
  partition, style = organizations.partitions(space)
  assert len(style) == count
  assert len(np.unique(np.stack([*partition, style]), axis=1).T) == count


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('space', [nvm.CACTI_SPACE, nvm.WIDE_SPACE._replace(max_mats=3, max_mux=2)])
def test_every_data_array_holds_the_cache(mode, space):
  org = nvm.data_organizations(nvm.CacheSpec(2 * MB), mode, space)
  cells = (
    org.rows
    * org.columns
    * org.mat_rows
    * org.mat_columns
    * org.subarray_rows
    * org.subarray_columns
  )
  assert len(cells) > 100 and (cells == 8 * 2 * MB).all()


def test_every_tag_array_holds_all_tags():
  spec = nvm.CacheSpec(MB)
  org = nvm.tag_organizations(spec, nvm.Mode.SEQUENTIAL)
  cells = (
    org.rows
    * org.columns
    * org.mat_rows
    * org.mat_columns
    * org.subarray_rows
    * org.subarray_columns
  )
  # 1024 sets of 16 ways; 48 - 10 index - 6 offset + 2 state bits, rounded up between parts.
  assert specs.tag_bits(spec) == 34
  assert (cells == 16384 * org.tag_bits).all() and org.tag_bits.min() == 34
  assert org.tag_bits.max() < 2 * 34


@pytest.mark.parametrize('mode', MODES)
def test_outputs_carry_a_line(mode):
  org = nvm.data_organizations(nvm.CacheSpec(MB), mode)
  outputs = org.columns / (org.mux_senseamp * org.mux_output1 * org.mux_output2)
  selected = (
    outputs
    * org.active_mat_rows
    * org.active_mat_columns
    * org.active_subarray_rows
    * org.active_subarray_columns
  )
  assert (selected == 512 * (16 if mode is nvm.Mode.FAST else 1)).all()


def test_enumeration_agrees_with_loops():
  """Sequential data arrays of 64 KiB by nested loops over counts."""
  expected = set()
  counts = [2**k for k in range(10)]
  degrees = [2**k for k in range(9)]
  for mat_rows, mat_columns in itertools.product(counts, counts):
    bits, sets = 512 // mat_columns, (8 * 65536 // 512) // mat_rows
    if bits < 4 or sets <= 1:
      continue
    for mux in itertools.product(degrees, repeat=3):
      product = int(np.prod(mux))
      # Inverter chains of fixed length drive 65,536 columns.
      if sets % product == 0 and bits // 4 * product <= 65536:
        expected.add((mat_rows, mat_columns, *mux, sets // product, bits // 4 * product))
  org = nvm.data_organizations(nvm.CacheSpec(65536), nvm.Mode.SEQUENTIAL)
  found = set(
    zip(
      *(
        np.asarray(getattr(org, name), int).tolist()
        for name in (
          'mat_rows',
          'mat_columns',
          'mux_senseamp',
          'mux_output1',
          'mux_output2',
          'rows',
          'columns',
        )
      )
    )
  )
  assert found == expected


@pytest.mark.parametrize('mb, banks, bank_mb', [(1, 1, 1), (3, 3, 1), (7, 7, 1), (10, 5, 2)])
def test_capacities_that_are_no_power_of_two(mb, banks, bank_mb):
  assert specs.split_capacity(mb * MB) == (banks, bank_mb * MB)


@pytest.mark.parametrize(
  'spec, field',
  [
    (nvm.CacheSpec(MB, line_bytes=48), 'line_bytes'),
    (nvm.CacheSpec(MB, associativity=12), 'associativity'),
    (nvm.CacheSpec(MB + 64), 'capacity_bytes'),
    (nvm.CacheSpec(0), 'capacity_bytes'),
  ],
)
def test_impossible_caches_are_refused(spec, field):
  with pytest.raises(ValueError, match=field):
    specs.validate_spec(spec)


def test_factors_put_organisations_together_again():
  org = nvm.tag_organizations(nvm.CacheSpec(MB), nvm.Mode.SEQUENTIAL)
  org = organizations.select(org, np.arange(0, len(org.rows), 37))
  factored = factoring.factor(org)
  assert len(factored.mats.rows) < len(org.rows)
  for name in factoring.MAT_ONLY_FIELDS:
    np.testing.assert_array_equal(
      getattr(factored.mats, name)[factored.mat_index], getattr(org, name)
    )
  columns = factored.requests.columns[factored.driver_index[0]]
  np.testing.assert_array_equal(columns, factored.mats.columns)
