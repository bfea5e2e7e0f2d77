"""The fastest tiles measured, by device kind, then by samples in a row, channels and type.

None was measured yet: every tile comes from `rows.heuristic`. `python -m experiments.kernel_bench
--tune` prints entries for the GPU that it runs on.
"""

from cnnopt_jax.kernels.rows import Tile

TILES: dict[str, dict[tuple[int, int, str], Tile]] = {}
