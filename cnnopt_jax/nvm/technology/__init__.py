"""Transistors, wires and cells: what an array is made of."""
