"""Masked modelling: choose what the encoder sees, predict something about the rest, compare."""
