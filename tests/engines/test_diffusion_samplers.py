"""Schedules, losses and samplers against closed forms and diffusers' schedulers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vestige.core.errors import UsageError
from vestige.engines.diffusion import schedules
from vestige.engines.diffusion.losses import (
    diffusion_loss,
    logit_normal_levels,
    min_snr_weight,
    stratified_levels,
)
from vestige.engines.diffusion.pipeline import diffusers_scheduler
from vestige.engines.diffusion.samplers import Denoiser, Step, sample
from vestige.engines.diffusion.schedules import PREDICTIONS, grid, schedule, target, to_eps, to_x0


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth_network(x: torch.Tensor, time: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
    """A fixed nonlinear function of x, time and condition."""
    t = time.float().reshape(-1, *[1] * (x.ndim - 1)) / 1000
    out = torch.tanh(x * 0.7 + t) - 0.3 * x.roll(1, -1)
    return out if condition is None else out + condition.reshape(-1, *[1] * (x.ndim - 1))


def gaussian(table: schedules.Schedule, mean: float = 0.4, std: float = 0.3) -> Denoiser:
    """The exact x0 denoiser of N(mean, std²)."""

    def x0(x: torch.Tensor, time: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
        index = int((table.times - float(time[0])).abs().argmin())
        a, s = table.alpha[index], table.sigma[index]
        return mean + (a * std**2 / (a**2 * std**2 + s**2)) * (x - a * mean)

    return Denoiser(x0, table, "x0")


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "cosine"])
def test_schedules_equal_diffusers(name):
    ours = schedule(name)
    theirs = diffusers_scheduler(ours, "eps").alphas_cumprod
    assert torch.allclose(ours.alpha**2, theirs.double(), atol=2e-6)
    assert torch.allclose(ours.alpha**2 + ours.sigma**2, torch.ones(1000, dtype=torch.float64))
    assert (ours.log_snr.diff() < 0).all()


def test_zero_terminal_snr_equals_diffusers():
    ours = schedule("scaled_linear").zero_terminal()
    theirs = diffusers_scheduler(ours, "v").alphas_cumprod.double()
    assert float(ours.alpha[-1]) == 0
    assert torch.allclose(ours.alpha**2, theirs, atol=1e-5)
    with pytest.raises(UsageError, match="already ends"):
        schedule("flow").zero_terminal()


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(["linear", "cosine", "flow"]), level=st.integers(0, 998), seed=st.integers(0, 99))
def test_predictions_convert_into_each_other(name, level, seed):
    table = schedule(name)
    x0, noise = torch.randn(2, 2, 5, dtype=torch.float64, generator=gen(seed))
    alpha, sigma = table.at(torch.tensor([level, level]), x0)
    x = alpha * x0 + sigma * noise
    for prediction in PREDICTIONS:
        if prediction == "v" and table.kind == "flow":
            continue
        output = target(x0, noise, alpha, sigma, prediction)
        assert torch.allclose(to_x0(output, x, alpha, sigma, prediction), x0, atol=1e-6)
        assert torch.allclose(to_eps(output, x, alpha, sigma, prediction), noise, atol=1e-6)


def test_forward_process_has_the_right_moments():
    table = schedule("cosine")
    x0 = torch.full((40_000,), 0.7)
    for level in (10, 400, 900):
        x = table.add_noise(x0, torch.randn(len(x0), generator=gen(level)), torch.full((len(x0),), level))
        assert float(x.mean()) == pytest.approx(0.7 * float(table.alpha[level]), abs=0.02)
        assert float(x.std()) == pytest.approx(float(table.sigma[level]), rel=0.02)


def test_one_beta_step_after_another_gives_the_table():
    table, g = schedule("linear", steps=50, start=0.001, end=0.2), gen()
    betas = np.linspace(0.001, 0.2, 50)
    x = torch.full((40_000,), 1.0)
    for beta in betas:
        x = math.sqrt(1 - beta) * x + math.sqrt(beta) * torch.randn(len(x), generator=g)
    assert float(x.mean()) == pytest.approx(float(table.alpha[-1]), abs=0.02)
    assert float(x.var()) == pytest.approx(float(table.sigma[-1] ** 2), rel=0.03)


@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace", "lambda"])
def test_grids_fall_inside_the_table(spacing):
    for table in (schedule("cosine"), schedule("flow")):
        for steps in (1, 7, 50, 1000):
            levels = grid(table, steps, spacing)
            assert levels.min() >= 0
            assert levels.max() < 1000
            assert (levels.diff() < 0).all() or len(levels) == 1
    with pytest.raises(UsageError, match="1 to 1000"):
        grid(schedule("cosine"), 1001, spacing)


def test_unknown_names_are_refused():
    with pytest.raises(UsageError, match="no schedule"):
        schedule("quadratic")
    with pytest.raises(UsageError, match="no spacing"):
        grid(schedule("cosine"), 5, "random")
    with pytest.raises(UsageError, match="no prediction"):
        to_x0(*[torch.ones(1)] * 4, "score")
    with pytest.raises(UsageError, match="no sampler"):
        sample(gaussian(schedule("cosine")), torch.zeros(1, 1), [5, 1], "heun")
    with pytest.raises(UsageError, match="must fall"):
        sample(gaussian(schedule("cosine")), torch.zeros(1, 1), [1, 5])
    with pytest.raises(UsageError, match="give a generator"):
        sample(gaussian(schedule("cosine")), torch.zeros(1, 1), [5, 1], "ddpm")


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
@pytest.mark.parametrize("method", ["ddim", "dpm++"])
@pytest.mark.parametrize("name", ["linear", "scaled_linear", "cosine"])
@pytest.mark.parametrize("steps", [5, 20])
def test_deterministic_samplers_equal_diffusers(prediction, method, name, steps):
    table = schedule(name)
    scheduler = diffusers_scheduler(table, prediction, method)
    scheduler.set_timesteps(steps)
    assert scheduler.timesteps.tolist() == grid(table, steps).tolist()
    start = torch.randn(2, 3, 4, 4, generator=gen())
    x = start
    for t in scheduler.timesteps:
        # Few-step grids of diffusers end with lower orders; from 15 steps on only the last one does, as ours.
        x = scheduler.step(smooth_network(x, t[None], None), t, x).prev_sample
    ours = sample(Denoiser(smooth_network, table, prediction), start, grid(table, steps), method)
    scale = max(1.0, float(x.abs().max()))
    assert float((ours - x).abs().max()) < 1e-4 * scale


def test_ancestral_sampler_equals_diffusers_ddpm():
    table = schedule("linear")
    scheduler = diffusers_scheduler(table, "eps", "ddpm")
    scheduler.set_timesteps(10)
    start, g = torch.randn(2, 3, 4, 4, generator=gen()), gen(1)
    x = start
    for t in scheduler.timesteps:
        x = scheduler.step(smooth_network(x, t[None], None), t, x, generator=g).prev_sample
    ours = sample(Denoiser(smooth_network, table, "eps"), start, grid(table, 10), "ddpm", generator=gen(1))
    assert float((ours - x).abs().max()) < 1e-4 * float(x.abs().max())


def test_stochastic_ddim_equals_diffusers():
    table = schedule("scaled_linear")
    scheduler = diffusers_scheduler(table, "v")
    scheduler.set_timesteps(10)
    start, g = torch.randn(1, 3, 4, 4, generator=gen()), gen(2)
    x = start
    for t in scheduler.timesteps[:-1]:
        x = scheduler.step(smooth_network(x, t[None], None), t, x, eta=0.6, generator=g).prev_sample
    kept = []
    sample(
        Denoiser(smooth_network, table, "v"), start, grid(table, 10), eta=0.6, generator=gen(2),
        on_step=lambda s: kept.append(s.x),
    )  # fmt: skip
    assert torch.allclose(kept[-2], x, atol=1e-4)


def error_at(steps: int, method: str) -> float:
    """Distance from the exact flow of N(.4, .3²) between fixed ends, on a grid uniform in lambda."""
    table = schedules.continuous_vp(20_000)
    x = torch.tensor([[1.3]], dtype=torch.float64)
    a, s = float(table.alpha[-1]), float(table.sigma[-1])
    deviation = (1.3 - a * 0.4) / math.sqrt(a**2 * 0.09 + s**2)
    found = sample(gaussian(table), x, grid(table, steps, "lambda"), method)
    # The last step reads x0 at the first level, where the posterior mean still differs a little from the sample.
    a, s = float(table.alpha[0]), float(table.sigma[0])
    end = a * 0.4 + deviation * math.sqrt(a**2 * 0.09 + s**2)
    exact = 0.4 + (a * 0.09 / (a**2 * 0.09 + s**2)) * (end - a * 0.4)
    return abs(float(found) - exact)


def test_order_of_convergence_on_gaussian_data():
    ddim, second = ([error_at(n, m) for n in (20, 80)] for m in ("ddim", "dpm++"))
    assert 3 < ddim[0] / ddim[1] < 5.5  # first order: 4
    assert second[0] / second[1] > 9  # second order: 16
    assert second[0] < ddim[0] / 5


@pytest.mark.parametrize(
    ("method", "name"), [("ddim", "cosine"), ("ddpm", "cosine"), ("dpm++", "cosine"), ("ddim", "flow")]
)
def test_samplers_reproduce_gaussian_data(method, name):
    table = schedule(name)
    start = torch.randn(6000, 1, generator=gen())
    found = sample(gaussian(table), start, grid(table, 50), method, generator=gen(1))
    assert float(found.mean()) == pytest.approx(0.4, abs=0.02)
    assert float(found.std()) == pytest.approx(0.3, rel=0.1)  # 50 ancestral steps lose 8 %


def test_consistency_steps_end_at_the_estimate():
    table = schedule("cosine")
    exact = Denoiser(lambda x, t, c: torch.full_like(x, 0.25), table, "x0")
    assert torch.equal(
        sample(exact, torch.randn(3, 2), grid(table, 4), "consistency", generator=gen()), torch.full((3, 2), 0.25)
    )


def test_guidance_identities():
    table, x = schedule("cosine"), torch.randn(3, 2, 4, generator=gen())
    condition, null = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5])
    plain = Denoiser(smooth_network, table, "eps", condition)
    at_one = Denoiser(smooth_network, table, "eps", condition, null, guidance=1.0)
    assert torch.equal(plain.output(x, 500), at_one.output(x, 500))
    assert at_one.rows == 3
    at_zero = Denoiser(smooth_network, table, "eps", condition, null, guidance=0.0)
    assert torch.allclose(at_zero.output(x, 500), smooth_network(x, torch.full((3,), 500), null.expand(3)))
    strong = Denoiser(smooth_network, table, "eps", condition, null, guidance=3.0)
    free = smooth_network(x, torch.full((3,), 500), null.expand(3))
    assert torch.allclose(strong.output(x, 500), free + 3 * (plain.output(x, 500) - free), atol=1e-6)
    assert (strong.calls, strong.rows) == (1, 6)
    outside = Denoiser(smooth_network, table, "eps", condition, null, guidance=3.0, guided=(600, 900))
    assert torch.equal(outside.output(x, 500), plain.output(x, 500))
    rescaled = Denoiser(smooth_network, table, "eps", condition, null, guidance=3.0, rescale=1.0)
    assert torch.allclose(rescaled.output(x, 500).std((1, 2)), plain.output(x, 500).std((1, 2)), atol=1e-5)
    with pytest.raises(UsageError, match="conditions for"):
        Denoiser(smooth_network, table, "eps", condition[:2]).output(x, 500)


def test_hook_sees_and_changes_steps_and_results_are_deterministic():
    table, seen = schedule("cosine"), []

    def stop_at_zero(state: Step) -> None:
        seen.append((state.level, state.next_level))
        state.x = torch.zeros_like(state.x)

    start = torch.randn(2, 3, generator=gen())
    denoiser = Denoiser(smooth_network, table, "eps")
    assert float(sample(denoiser, start, [900, 500, 100], on_step=stop_at_zero).abs().max()) == 0
    assert seen == [(900, 500), (500, 100), (100, -1)]
    a, b = (sample(denoiser, start, [900, 500, 100], "ddpm", generator=gen(7)) for _ in range(2))
    assert torch.equal(a, b)


def test_batched_sampling_equals_single():
    table, start = schedule("cosine"), torch.randn(4, 3, generator=gen())
    denoiser = Denoiser(smooth_network, table, "eps")
    whole = sample(denoiser, start, grid(table, 8), "dpm++")
    parts = torch.cat([sample(denoiser, row[None], grid(table, 8), "dpm++") for row in start])
    assert torch.allclose(whole, parts, atol=1e-6)


def test_clipped_estimates_stay_in_range():
    table = schedule("cosine")
    wild = Denoiser(lambda x, t, c: 10 * torch.ones_like(x), table, "x0", clip=1.0)
    assert float(sample(wild, torch.zeros(1, 4), grid(table, 5)).max()) == 1.0


def test_min_snr_weights_are_one_weighting_of_the_x0_error():
    snr = torch.tensor([0.01, 0.5, 5.0, 80.0], dtype=torch.float64)
    x0 = min_snr_weight(snr, "x0")
    assert torch.equal(x0, snr.clamp(max=5))
    assert torch.allclose(min_snr_weight(snr, "eps") * snr, x0)
    # v error = (alpha² + sigma²)/sigma² ... x0 error: v - v̂ = (x̂0 - x0)/sigma, 1/sigma² = SNR + 1.
    assert torch.allclose(min_snr_weight(snr, "v") * (snr + 1), x0)
    assert float(min_snr_weight(torch.zeros(1), "eps")) == 1
    with pytest.raises(UsageError):
        min_snr_weight(snr, "score")


def test_levels_are_stratified():
    levels = stratified_levels(100, schedule("cosine"), gen())
    assert (torch.bincount(levels // 10, minlength=100) == 1).float().mean() > 0.95
    central = logit_normal_levels(2000, schedule("flow"), gen())
    assert float(((central > 250) & (central < 750)).float().mean()) > 0.6


@pytest.mark.parametrize("prediction", ["eps", "x0", "v", "flow"])
def test_loss_vanishes_for_the_truth_and_has_gradients(prediction):
    table = schedule("flow" if prediction == "flow" else "cosine")
    x0 = torch.zeros(8, 3)

    def truth(x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        index = torch.tensor([int((table.times - float(t)).abs().argmin()) for t in time])
        alpha, sigma = table.at(index, x)
        return target(x0, x / sigma, alpha, sigma, prediction)

    assert float(diffusion_loss(truth, x0, table, prediction, gen())) < 1e-8
    weight = torch.zeros(1, requires_grad=True)
    diffusion_loss(lambda x, t: x * weight, torch.randn(8, 3), table, prediction, gen()).backward()
    assert weight.grad is not None
    assert float(weight.grad.abs()) > 0
