"""Recipes of the pretraining wing."""
