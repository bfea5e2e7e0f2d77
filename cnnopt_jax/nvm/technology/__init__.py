"""Transistors, wires and cells: what an array is made of."""

from cnnopt_jax.nvm.technology.cells import ALIASES, CELLS, named_cell
from cnnopt_jax.nvm.technology.nodes import technology_node
from cnnopt_jax.nvm.technology.wires import WireLayer, wire

__all__ = ['ALIASES', 'CELLS', 'WireLayer', 'named_cell', 'technology_node', 'wire']
