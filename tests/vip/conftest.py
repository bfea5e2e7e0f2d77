import jax
import pytest


@pytest.fixture(autouse=True)
def float64():
  """Comparisons with the oracle are in float64; tests of other types name them."""
  with jax.enable_x64(True):
    yield
