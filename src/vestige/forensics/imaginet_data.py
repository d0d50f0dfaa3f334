"""The four generators that the small ImagiNet is made with, of four families."""

from __future__ import annotations

from vestige.data.fakes import FakeSource, as_float, fitted_sources, squares
from vestige.data.fakes_synthesis import drawn_coefficients
from vestige.data.scenes import render_pack
from vestige.engines.fakes import shipped_sources


def four_generators(seed: int = 0) -> list[FakeSource]:
    """An autoencoder, an adversarial generator, drawn coefficients and a fitted decoder; the last is fitted to scenes
    that are used for nothing else."""
    shipped = {source.name: source for source in shipped_sources(diffusion=False)}
    scenes = squares(render_pack(30, 128, 90_000 + seed).images, 64, per_photo=2, seed=seed)[0]
    fitted = fitted_sources(as_float(scenes), (2,), seed=seed)[0]
    synthesis = FakeSource("drawn_coefficients", "synthesis", drawn_coefficients)
    return [shipped["zoo_vae"], shipped["zoo_gan_sr"], synthesis, fitted]
