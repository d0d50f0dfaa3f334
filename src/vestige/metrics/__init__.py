"""Measures of quality, detection and agreement."""
