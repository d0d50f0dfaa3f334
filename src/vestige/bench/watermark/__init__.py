"""Marks against attacks: cells, methods, tables and the page."""
