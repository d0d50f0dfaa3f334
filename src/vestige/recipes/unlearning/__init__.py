"""Recipes of the unlearning wing."""
