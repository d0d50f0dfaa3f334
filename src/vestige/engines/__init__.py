"""Shared engines: training, masked modelling, diffusion, adversarial optimisation."""
