"""Runs of generative models."""
