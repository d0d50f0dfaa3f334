"""Recipes of the forensics wing."""
