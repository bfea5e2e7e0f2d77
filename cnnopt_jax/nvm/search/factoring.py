"""Organisations in factored form: every distinct mat and driver once.

Thousands of organisations differ only in how mats are arranged; thousands of mats share a word
line driver. A `Factored` holds the distinct drivers and mats of a set of organisations and the
indices that put them together again. It depends on integers alone, so it is made on the host,
once per cache and mode, and serves every cell and technology.
"""

from typing import NamedTuple

import numpy as np

from cnnopt_jax.nvm import structures
from cnnopt_jax.nvm.circuit import subarray
from cnnopt_jax.nvm.search import organizations

# What a mat depends on; the other fields of an organisation say how mats make a bank.
_MAT_FIELDS = (
  'subarray_rows',
  'subarray_columns',
  'active_subarray_rows',
  'active_subarray_columns',
  'mux_senseamp',
  'mux_output1',
  'mux_output2',
  'rows',
  'columns',
  'row_address_bits',
  'ways',
  'tag_bits',
  'is_tag',
  'set_ways',
  'write_share',
  'buffering',
)


# What only one of the two needs.
MAT_ONLY_FIELDS = (
  'mux_senseamp',
  'mux_output1',
  'mux_output2',
  'rows',
  'columns',
  'row_address_bits',
  'ways',
  'tag_bits',
  'set_ways',
  'write_share',
  'buffering',
)
BANK_ONLY_FIELDS = (
  'mat_rows',
  'mat_columns',
  'active_mat_rows',
  'active_mat_columns',
  'address_bits',
  'distributed_bits',
  'broadcast_bits',
  'wire_share',
)


class Factored(NamedTuple):
  """`N` organisations from `M` mats from `D` drivers.

  Attributes:
    requests: distinct drivers, `[D]`.
    driver_index: drivers of each mat, `[5, M]`.
    mats: one organisation with each distinct mat, `[M]`.
    mat_index: mat of each organisation, `[N]`.
    organizations: all, `[N]`.
  """

  requests: subarray.DriverRequest
  driver_index: np.ndarray
  mats: structures.Organization
  mat_index: np.ndarray
  organizations: structures.Organization


def factor(org: structures.Organization) -> Factored:
  """Factors organisations `[N]`."""
  first, mat_index = _distinct([getattr(org, name) for name in _MAT_FIELDS])
  mats = organizations.select(org, first)
  requests = subarray.driver_requests(mats, np)
  flat = [np.ravel(field) for field in requests]
  first, driver_index = _distinct(flat)
  return Factored(
    requests=subarray.DriverRequest(*(field[first] for field in flat)),
    driver_index=driver_index.reshape(requests.role.shape),
    mats=mats,
    mat_index=mat_index,
    organizations=org,
  )


def _distinct(columns: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
  """First index of each distinct row of a table given by columns, and each row's number."""
  code = np.zeros(len(columns[0]), np.int64)
  for column in columns:
    values, digit = np.unique(column, return_inverse=True)
    code = code * len(values) + digit
  _, first, inverse = np.unique(code, return_index=True, return_inverse=True)
  return first.astype(np.int32), inverse.astype(np.int32)
