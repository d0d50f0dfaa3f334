"""Runs and measurements of masked pretraining."""
