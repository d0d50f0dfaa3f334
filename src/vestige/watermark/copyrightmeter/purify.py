"""Attacks on pictures: purification of cloaks, removal of marks. Names say exactly what is done.

Sources: Countering Adversarial Images using Input Transformations, ICLR 2018 (total-variation minimisation);
Diffusion Models for Adversarial Purification, ICML 2022; IMPRESS, NeurIPS 2023 (consistency).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vestige.core.errors import UsageError
from vestige.data.distortions import distort
from vestige.engines.diffusion.pipeline import TextToImage
from vestige.watermark.attacks.regeneration import regenerate
from vestige.watermark.copyrightmeter.imitation import eight_bit, torch_rng

Purifier = Callable[[Tensor, int, TextToImage], Tensor]


def palette(images: Tensor, colours: int = 256) -> Tensor:
    """An adaptive palette for every picture (median cut), without dithering."""
    from PIL import Image

    made = []
    for picture in images:
        pixels = (picture.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        made.append(np.asarray(Image.fromarray(pixels).quantize(colours, dither=Image.Dither.NONE).convert("RGB")))
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).float() / 255


def total_variation(images: Tensor, seed: int, *, kept: float = 0.3, weight: float = 0.5, steps: int = 10) -> Tensor:
    """min over z of ‖m ⊙ (z − x)‖₂ + λ TV₂(z), m a random ``kept`` share of pixels, by ``steps`` of L-BFGS.

    TV₂: sum of the L2 norms of differences between neighbouring rows and columns, in every channel.
    """
    from scipy.optimize import minimize

    mask = (torch.rand((len(images), 1, *images.shape[2:]), generator=torch_rng(seed, "tv")) < kept).double()
    target = images.double()

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        z = torch.from_numpy(flat).reshape(target.shape).requires_grad_()
        with torch.enable_grad():
            data = ((mask * (z - target)).square().sum((1, 2, 3)) + 1e-12).sqrt().sum()
            rows = ((z[:, :, 1:] - z[:, :, :-1]).square().sum(3) + 1e-12).sqrt().sum()
            columns = ((z[..., 1:] - z[..., :-1]).square().sum(2) + 1e-12).sqrt().sum()
            total = data + weight * (rows + columns)
            (gradient,) = torch.autograd.grad(total, z)
        return float(total.detach()), gradient.numpy().ravel()

    start = (mask * target).numpy().ravel()
    found = minimize(
        value, start, jac=True, method="L-BFGS-B", bounds=[(0, 1)] * start.size, options={"maxiter": steps}
    )
    return torch.from_numpy(found.x).reshape(target.shape).float()


@torch.no_grad()
def consistent(
    images: Tensor, seed: int, model: TextToImage, *, strength: float = 0.15, steps: int = 6, rate: float = 0.5,
    budget: float = 16 / 255,
) -> Tensor:  # fmt: skip
    """Pictures near the given ones that the generator's own denoiser gives back: x ← Π(x + r(D_t(x) − x)).

    D_t: the estimate of the clean picture after noising to ``strength`` of the chain. Π: within the L∞ budget.
    Stands for IMPRESS, whose consistency is that of a latent model's autoencoder; a pixel model has the identity.
    """
    level = round(strength * (len(model.table) - 1))
    generator = torch_rng(seed, "impress")
    denoiser = model.denoiser("")
    start = model.encode(images)
    z = start
    for _ in range(steps):
        noise = torch.randn(z.shape, generator=generator)
        noisy = float(model.table.alpha[level]) * z + float(model.table.sigma[level]) * noise
        clean, _ = denoiser.estimate(noisy, level)
        # Latents of the identity autoencoder span [-1, 1], hence twice the budget.
        z = start + (z + rate * (clean - z) - start).clamp(-2 * budget, 2 * budget)
    return model.decode(z)


def diffpure(images: Tensor, seed: int, model: TextToImage, strength: float = 0.2) -> Tensor:
    """Noise to a share of the chain and denoise without a caption."""
    return torch.from_numpy(regenerate(images.numpy(), model, strength, seed=seed, steps=20))


def _distortion(name: str, strength: float) -> Purifier:
    return lambda images, seed, model: distort(images, name, strength, seed=seed)


#: Every attack on pictures by name, (pictures, seed, the attacker's generator) -> pictures; `purified` runs them.
PURIFIERS: dict[str, Purifier] = {
    "identity": lambda images, seed, model: images,
    "JPEG 75": lambda images, seed, model: torch.from_numpy(distort(images.numpy(), "jpeg", 75)),
    "palette 256": lambda images, seed, model: palette(images),
    "TV 30 %": lambda images, seed, model: total_variation(images, seed),
    "IMPRESS-like": consistent,
    "DiffPure 0.2": diffpure,
    "brightness 1.5": _distortion("brightness", 1.5),
    "rotation 10": _distortion("rotate", 10),
    "crop 75 % enlarged": _distortion("crop_resize", 0.75),
    "blur 1": _distortion("blur", 1.0),
}


def purified(name: str, images: Tensor, seed: int, model: TextToImage) -> Tensor:
    """Eight-bit pictures after the attack, of the same shape; raises UsageError for an unknown name."""
    if name not in PURIFIERS:
        raise UsageError(f"There is no attack {name!r} on pictures; choose one of {', '.join(PURIFIERS)}.")
    return eight_bit(PURIFIERS[name](images, seed, model))
