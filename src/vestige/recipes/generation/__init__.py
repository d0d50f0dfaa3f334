"""Recipes of the generation wing."""
