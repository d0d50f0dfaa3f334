"""Recipes of the watermark wing."""
