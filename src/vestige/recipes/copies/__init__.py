"""Recipes of copy detection."""
