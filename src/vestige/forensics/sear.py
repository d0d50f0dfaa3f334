"""SEAR: a network that conceals edits from localisers, and the retraining that answers it.

A red-team tool: it says how far a localiser can be trusted by someone who knows it. `SEAR.fit` trains the localiser on
concealed pictures in turn, so that both sides of the contest come out of it.

Source: Evading Detection Actively: Toward Anti-Forensics Against Forgery Localization, IEEE TDSC 22(2), 2025.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.engines.adversarial import round8
from vestige.engines.fitting import fit, rows_of
from vestige.engines.train import Batch, TrainConfig
from vestige.forensics.learned import load_network
from vestige.nn.mask_losses import dice_loss
from vestige.nn.residual import SRM, BayarConv2d

_DILATIONS = (2, 4, 8, 16)
_FRONTS = ("srm", "bayar", "rgb")


def _convs(inside: int, outside: int, count: int = 3) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(count):
        layers += [nn.Conv2d(inside if index == 0 else outside, outside, 3, 1, 1), nn.ReLU()]
    return nn.Sequential(*layers)


def _dilated(inside: int, outside: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index, dilation in enumerate(_DILATIONS):
        a = inside if index == 0 else outside
        layers += [nn.Conv2d(a, outside, 3, 1, dilation, dilation), nn.BatchNorm2d(outside), nn.ReLU()]
    return nn.Sequential(*layers)


def _start(network: nn.Module) -> None:
    """Weights whose size the signal keeps through a dozen layers without norms; with the usual ones nothing learns."""
    for part in network.modules():
        if type(part) is nn.Conv2d:
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            nn.init.zeros_(part.bias)  # type: ignore[arg-type]


def _doubled(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[2:], mode="nearest")


class Concealer(nn.Module):
    """Pictures N×3×H×W in [0, 1] -> what is added to them in units of [-1, 1], before clipping.

    width: a factor on 64, 128, 256 and 512 channels. Sides are multiples of 8. The last layer starts small, so that
    training starts from pictures as they are.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {"width": width}
        a, b, c, d = (max(4, round(n * width)) for n in (64, 128, 256, 512))
        half = a // 2
        self.enter = nn.Conv2d(3, half, 5, 1, 2)
        self.stem = nn.Conv2d(half, half, 5, 1, 2)
        self.blocks = nn.ModuleList([_convs(half, a), _convs(a, b), _convs(b, c), _convs(c, d, 4)])
        self.middle = _dilated(d, c)
        self.up = nn.ModuleList(
            [nn.Conv2d(c, b, 3, 1, 1), nn.Conv2d(b + b, a, 3, 1, 1), nn.Conv2d(a + a, half, 3, 1, 1)]
        )
        self.last = nn.Conv2d(half + half, 3, 7, 1, 3)
        _start(self)
        with torch.no_grad():
            self.last.weight.mul_(0.01)

    def forward(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] % 8 or images.shape[3] % 8:
            raise UsageError(f"Pictures must be N×3×H×W with sides in multiples of 8; got {tuple(images.shape)}.")
        x = self.enter(2 * images - 1)
        stem = x + self.stem(F.relu(x))
        one = self.blocks[0](stem)
        two = self.blocks[1](F.max_pool2d(one, 2))
        three = self.blocks[2](F.max_pool2d(two, 2))
        x = self.middle(self.blocks[3](F.max_pool2d(three, 2)))
        x = F.relu(self.up[0](_doubled(x, three)))
        x = F.relu(self.up[1](torch.cat([_doubled(x, two), two], 1)))
        x = F.relu(self.up[2](torch.cat([_doubled(x, one), one], 1)))
        return self.last(torch.cat([x, stem], 1)).tanh()


class Supervisor(nn.Module):
    """The default localiser: fixed residuals, three stages, dilated convolutions: N×3×H×W in [0, 1] -> logits N×1×H×W.

    front: "srm" as in the paper, or localisers of another kind to transfer to: "bayar" (learned residuals) and "rgb".
    Sides are multiples of 4.
    """

    def __init__(self, width: float = 1.0, front: str = "srm") -> None:
        super().__init__()
        if front not in _FRONTS:
            raise UsageError(f"A supervisor reads {', '.join(_FRONTS)}; got {front!r}.")
        self.settings: dict[str, Any] = {"width": width, "front": front}
        a, b, c = (max(4, round(n * width)) for n in (64, 128, 256))
        self.front: nn.Module = {"srm": SRM(3), "bayar": BayarConv2d(3, 9), "rgb": nn.Identity()}[front]
        inside = 3 if front == "rgb" else 9
        self.scale = nn.BatchNorm2d(inside, affine=False)
        self.blocks = nn.ModuleList([_convs(inside, a), _convs(a, b), _convs(b, c)])
        self.middle = _dilated(c, c)
        self.up = nn.ModuleList([nn.Conv2d(c + b, b, 3, 1, 1), nn.Conv2d(b + a, a, 3, 1, 1)])
        self.last = nn.Conv2d(a, 1, 7, 1, 3)
        _start(self)
        with torch.no_grad():
            self.last.weight.mul_(0.1)

    def forward(self, images: Tensor) -> Tensor:
        one = self.blocks[0](self.scale(self.front(images)))
        two = self.blocks[1](F.max_pool2d(one, 2))
        x = self.middle(self.blocks[2](F.max_pool2d(two, 2)))
        x = F.relu(self.up[0](torch.cat([_doubled(x, two), two], 1)))
        x = F.relu(self.up[1](torch.cat([_doubled(x, one), one], 1)))
        return self.last(x)

    @torch.no_grad()
    def localize(self, images: Tensor) -> Tensor:
        """Probabilities N×1×H×W."""
        return self(images).sigmoid()


def mask_logits(localiser: nn.Module, images: Tensor) -> Tensor:
    """Logits N×1×H×W of a localiser; of several maps the first."""
    found = localiser(images)
    return found[0] if isinstance(found, Sequence) and not isinstance(found, Tensor) else found


def localiser_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """What localisers learn by: cross-entropy, and overlap because edits are small. masks: bool or float N×1×H×W."""
    return F.binary_cross_entropy_with_logits(logits, masks.float()) + dice_loss(logits, masks)


def concealed(images: Tensor, change: Tensor) -> Tensor:
    """clip(x + p), x and p in units of [-1, 1], given and returned in [0, 1]."""
    return (images + change / 2).clamp(0, 1)


def sear_loss(
    supervisor: nn.Module, images: Tensor, masks: Tensor, change: Tensor, *,
    weights: Sequence[float] = (10.0, 1.0, 1e-3),
) -> dict[str, Tensor]:  # fmt: skip
    """10·L_adv + L_mag + 10⁻³·L_pre, a mean over pictures.

    L_adv = -BCE(D(x'), m) with probabilities kept in [1e-6, 1 - 1e-6]; L_mag = ‖p‖₂ / √(3HW), so that a weight means
    the same at any size; L_pre = mean |p·m - x·m|: inside the edit, what is added is to rebuild what is there. images
    in [0, 1]; change p and x as the paper has them, in [-1, 1]. The supervisor is in evaluation mode.
    """
    x, inside = 2 * images - 1, masks.to(images)
    told = mask_logits(supervisor, round8(concealed(images, change))).sigmoid().clamp(1e-6, 1 - 1e-6)
    adversarial = -F.binary_cross_entropy(told, inside)
    magnitude = change.square().flatten(1).mean(1).clamp_min(1e-12).sqrt().mean()
    pretext = ((change - x) * inside).abs().flatten(1).mean(1).mean()
    total = weights[0] * adversarial + weights[1] * magnitude + weights[2] * pretext
    return {"loss": total, "adversarial": adversarial, "magnitude": magnitude, "pretext": pretext}


class MagnitudeWeight:
    """The weight of what is added: a tenth more after a batch that keeps fewer decibels than ``psnr``, a tenth less,
    but not below ``least``, after one that keeps more; constant where ``psnr`` is 0. Survives a restart of a run."""

    def __init__(self, least: float, psnr: float) -> None:
        self.value, self.least = float(least), float(least)
        self.most = 2 * 10 ** (-psnr / 20) if psnr else 0.0  # a deviation in units of [-1, 1]

    def follow(self, magnitude: Tensor) -> None:
        if self.most:
            up = float(magnitude.detach()) > self.most
            self.value = max(self.value * (1.1 if up else 1 / 1.1), self.least)

    def state_dict(self) -> dict[str, float]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.value = float(state["value"])


class SEAR:
    """Conceals edits: `fit` on edited pictures with masks, then `conceal` pictures without.

    concealer: the network; by default that of ``weights``, a file of the recipe's, or the shipped one, trained against
    a localiser of its own. supervisor: a localiser
    (images -> logits N×1×H×W, or a list of which the first counts); it is not changed, and the retrained copies are
    kept in ``supervisors``, the concealers of the rounds in ``concealers``. w_adv, w_mag, w_pre: see `sear_loss`; w_mag
    is larger than the paper's 1, because the magnitude here is divided by the picture's size.
    psnr: what concealed pictures of the training are to keep, in decibels; the weight of the magnitude then rises by a
    tenth after a batch that keeps less and falls, but not below w_mag, after one that keeps more; 0 leaves it as it is.
    rounds: concealer, then retraining, alternately, ending with a concealer. steps, batch_size, lr: of each training.

    >>> SEAR(Concealer(0.0625)).conceal(torch.rand(1, 3, 16, 16)).shape
    torch.Size([1, 3, 16, 16])
    """

    slug = "sear"

    def __init__(
        self, concealer: nn.Module | None = None, supervisor: nn.Module | None = None, *, w_adv: float = 10.0,
        w_mag: float = 100.0, w_pre: float = 1e-3, psnr: float = 0.0, rounds: int = 2, steps: int = 3000,
        batch_size: int = 4, lr: float = 2e-4, seed: int = 0, weights: str | Path | None = None,
    ) -> None:  # fmt: skip
        if rounds < 1 or steps < 1 or batch_size < 1:
            raise UsageError("SEAR needs a round, a step and a picture in a batch at least.")
        if concealer is None:
            concealer, _ = load_network(self.slug, Concealer, weights)
        self.concealer, self.supervisor = concealer.eval(), supervisor
        self.weights, self.psnr, self.rounds = (w_adv, w_mag, w_pre), psnr, rounds
        self.config = TrainConfig(
            steps=steps, batch_size=batch_size, lr=lr, betas=(0.9, 0.99), weight_decay=0.0, seed=seed
        )
        self.concealers: list[nn.Module] = []
        self.supervisors: list[nn.Module] = []

    def fit(self, images: Tensor, masks: Tensor) -> SEAR:
        """Train on edited pictures N×3×H×W (uint8, or float in [0, 1]) and bool masks N×1×H×W."""
        if self.supervisor is None or len(images) != len(masks) or not len(images):
            raise UsageError("Training needs a supervisor, and a mask for every picture.")
        pictures = images.float() / 255 if images.dtype == torch.uint8 else images
        self.supervisors = [copy.deepcopy(self.supervisor).eval().requires_grad_(False)]
        for round_ in range(self.rounds):
            if round_:
                before = copy.deepcopy(self.supervisors[-1]).requires_grad_(True)
                self.supervisors.append(self.retrain(before, pictures, masks).requires_grad_(False))
            self._train(pictures, masks, self.supervisors[-1])
            self.concealers.append(copy.deepcopy(self.concealer))
        return self

    def _train(self, images: Tensor, masks: Tensor, supervisor: nn.Module) -> None:
        adversarial, least, pretext = self.weights
        weight = MagnitudeWeight(least, self.psnr)

        def step(model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
            weights = (adversarial, weight.value, pretext)
            found = sear_loss(supervisor, batch[0], batch[1], model(batch[0]), weights=weights)
            weight.follow(found["magnitude"])
            return found

        fit(self.concealer, step, self._batches(images, masks), self.config)

    def retrain(self, localiser: nn.Module, images: Tensor, masks: Tensor) -> nn.Module:
        """The defence: ``localiser`` trained on pictures as they are and as this concealer leaves them, in place."""

        def step(model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
            both = torch.cat([batch[0], self.conceal(batch[0])])
            logits = mask_logits(model, both)
            return {"loss": localiser_loss(logits, batch[1].repeat(2, 1, 1, 1))}

        return fit(localiser, step, self._batches(images, masks), self.config)

    def _batches(self, images: Tensor, masks: Tensor) -> Any:
        def batches(number: int, generator: torch.Generator) -> Batch:
            rows = rows_of(len(images), self.config.batch_size, generator)
            return images[rows], masks[rows]

        return batches

    @torch.no_grad()
    def conceal(self, images: Tensor) -> Tensor:
        """Concealed pictures on the eight-bit grid, N×3×H×W in [0, 1]."""
        training = self.concealer.training
        self.concealer.eval()
        try:
            return round8(concealed(images, self.concealer(images)))
        finally:
            self.concealer.train(training)

    def attack(self, images: Any) -> Any:
        """`conceal` for arrays and tensors of any size N×3×H×W in [0, 1]; sides are mirrored to multiples of 8."""
        x = torch.as_tensor(images).float()
        height, width = x.shape[2:]
        padded = F.pad(x, (0, -width % 8, 0, -height % 8), mode="reflect")
        found = self.conceal(padded)[:, :, :height, :width]
        return found if isinstance(images, Tensor) else found.numpy()


def give_away(masks: Tensor, maps: Tensor) -> dict[str, float]:
    """{"f1", "f1 inverted", "auc"} of maps N×1×H×W at one half; an inverted map gives the edit away just as well."""
    from vestige.metrics.segmentation import f1_at_threshold, pixel_auroc

    inside, found = masks.numpy(), maps.numpy()
    each = {"f1": found, "f1 inverted": 1 - found}
    values = {name: float(torch.tensor(f1_at_threshold(inside, x)).nanmean()) for name, x in each.items()}
    return {**values, "auc": pixel_auroc(inside, found)}
