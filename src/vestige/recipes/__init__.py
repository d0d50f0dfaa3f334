"""Recipes: one file a trainable thing."""
