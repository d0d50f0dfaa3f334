"""Diffusion models: noise schedules, losses, samplers, inversion, editing, latent and discrete forms, pipelines.

One `Denoiser` (a network, a schedule and what the network predicts) serves every sampler, editor and inversion.
"""
