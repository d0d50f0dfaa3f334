"""Inversion, SDEdit and inpainting on a Gaussian mixture whose score is known."""

from __future__ import annotations

import pytest
import torch

from vestige.core.errors import UsageError
from vestige.engines.diffusion.editing import repaint, sdedit, start_at
from vestige.engines.diffusion.inversion import invert
from vestige.engines.diffusion.samplers import Denoiser, Step, sample
from vestige.engines.diffusion.schedules import cosine, grid

TABLE = cosine()
CENTRES = torch.stack([torch.linspace(-0.8, 0.8, 16), torch.linspace(0.6, -0.6, 16), torch.full((16,), 0.3)])
WIDTH = 0.15


def mixture(x: torch.Tensor, time: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
    """E[x0 | x] for x0 ~ mean of N(centre_k, WIDTH²), computed in float64; x: N×1×4×4."""
    a, s = TABLE.alpha[int(time[0])], TABLE.sigma[int(time[0])]
    flat = x.double().flatten(1)
    variance = a**2 * WIDTH**2 + s**2
    away = flat[:, None] - a * CENTRES.double()
    weights = torch.softmax(-(away**2).sum(-1) / (2 * variance), -1)
    mean = CENTRES.double() + a * WIDTH**2 / variance * away
    return (weights[..., None] * mean).sum(1).reshape(x.shape).to(x.dtype)


def denoiser() -> Denoiser:
    return Denoiser(mixture, TABLE, "x0")


def draws(n: int = 6) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return (CENTRES[torch.arange(n) % 3] + WIDTH * torch.randn(n, 16, generator=g)).reshape(n, 1, 4, 4)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(10 * torch.log10(4 / (a - b).square().mean()))


def round_trip(steps: int, fixed_point: int = 0) -> float:
    levels = grid(TABLE, steps)
    x0 = draws()
    back = sample(denoiser(), invert(denoiser(), x0, levels, fixed_point=fixed_point), levels)
    return psnr(back, x0)


def test_inversion_returns_the_image_and_improves_with_steps_and_iterations():
    at_50 = round_trip(50)
    assert at_50 > 30
    assert round_trip(200) > at_50 + 3
    assert round_trip(50, fixed_point=4) > at_50 + 5


def test_inverted_latents_look_like_noise():
    latents = invert(denoiser(), draws(60), grid(TABLE, 100), fixed_point=2)
    assert abs(float(latents.mean())) < 0.15
    assert float(latents.std()) == pytest.approx(1, abs=0.2)


def test_inversion_counts_its_calls_and_shows_its_steps():
    seen, used = [], denoiser()
    invert(used, draws(1), [600, 300], fixed_point=2, on_step=lambda s: seen.append(s.level))
    assert used.calls == 6
    assert seen == [300, 600]
    with pytest.raises(UsageError, match="fall"):
        invert(used, draws(1), [1, 2])


def test_sdedit_keeps_more_of_the_picture_at_lower_strength():
    x0, levels = draws(30), grid(TABLE, 40)
    near, far = (
        float((sdedit(denoiser(), x0, levels, s, torch.Generator().manual_seed(1)) - x0).square().mean())
        for s in (0.2, 1.0)
    )
    assert near < 0.1 < far


def test_sdedit_moves_a_foreign_picture_onto_the_data():
    foreign = CENTRES[0].reshape(1, 1, 4, 4) + 0.6
    edited = sdedit(denoiser(), foreign, grid(TABLE, 40), 0.8, torch.Generator().manual_seed(0))
    distances = [(edited.flatten() - c).square().mean().sqrt() for c in CENTRES]
    assert min(distances) < 2 * WIDTH


def test_sdedit_mask_keeps_the_outside_exactly():
    x0, mask = draws(2), torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    mask[..., :2] = True
    edited = sdedit(denoiser(), x0, grid(TABLE, 10), 0.9, torch.Generator().manual_seed(0), mask=mask)
    assert torch.equal(edited[~mask], x0[~mask])
    assert not torch.equal(edited[mask], x0[mask])


def test_repaint_keeps_known_pixels_and_agrees_with_them():
    x0 = CENTRES.reshape(3, 1, 4, 4).repeat(30, 1, 1, 1)
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    mask[..., 1:] = True  # only the first column is known; it tells the three centres apart
    levels = grid(TABLE, 40)
    filled = repaint(denoiser(), x0, mask, levels, torch.Generator().manual_seed(0), repeats=10)
    assert torch.equal(filled[~mask.expand_as(x0)], x0[~mask.expand_as(x0)])
    plain = repaint(denoiser(), x0, mask, levels, torch.Generator().manual_seed(0), repeats=1)
    wrong, wrong_plain = ((f - x0).flatten(1).square().mean(1) > 4 * WIDTH**2 for f in (filled, plain))
    assert float(wrong.float().mean()) < 0.15
    assert float(wrong.float().mean()) < float(wrong_plain.float().mean()) - 0.15


def test_edits_refuse_bad_options():
    g = torch.Generator()
    with pytest.raises(UsageError, match="strength"):
        start_at([3, 2, 1], 0)
    with pytest.raises(UsageError, match="at least 1"):
        repaint(denoiser(), draws(1), torch.ones(1, 1, 4, 4), [5], g, jump=0)
    with pytest.raises(UsageError, match="does not fit"):
        repaint(denoiser(), draws(1), torch.ones(1, 1, 5, 4), [5], g)
    assert start_at(list(range(10, 0, -1)), 0.3) == [3, 2, 1]


def test_hooks_can_steer_a_sample():
    goal = torch.full((1, 1, 4, 4), 0.3)

    def pull(state: Step) -> None:
        state.x = (
            state.x
            if state.next_level < 0
            else state.x + 0.2 * float(TABLE.alpha[state.next_level]) * (goal - state.x0)
        )

    start = torch.randn(12, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    steered = sample(denoiser(), start, grid(TABLE, 40), on_step=pull)
    free = sample(denoiser(), start, grid(TABLE, 40))
    assert (steered - goal).square().mean() < 0.3 * (free - goal).square().mean()
