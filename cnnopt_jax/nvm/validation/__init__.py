"""Figures that others print or publish, and how far the model is from them."""
