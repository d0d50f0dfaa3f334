"""Erasers of knowledge against retraining: worlds, tuning, tables."""
