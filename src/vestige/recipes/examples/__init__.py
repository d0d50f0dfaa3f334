"""Recipes of the examples wing."""
