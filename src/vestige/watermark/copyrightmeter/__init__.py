"""CopyrightMeter: does a protection of pictures still protect after the attacks that answer it?

Protect, attack, use, measure: efficacy (what protecting achieves over nothing protected), resilience (how much of it is
left after an attack), with what the attack destroys beside it. Here are the audit of a cloak on anybody's pictures, the
attacks and the scores; the grid over cloaks, sanitised generators and watermarks is in `vestige.bench.copyrightmeter`.

Source: CopyrightMeter: Revisiting Copyright Protection in Text-to-image Models, arXiv 2411.13144, 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from vestige.core.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

#: Attacks on cloaks, "identity" (none) first; `purify.PURIFIERS` has them.
CLOAK_ATTACKS = ("identity", "JPEG 75", "palette 256", "TV 30 %", "IMPRESS-like", "DiffPure 0.2")


class CopyrightMeter:
    """Audits a cloak: pictures changed so that a generator trained on them does not learn to imitate them.

    An imitator trains a copy of ``model`` on the protected pictures after each attack, and another on the originals
    after the same attack; m is the squared kernel distance of the imitations to the originals in ``features``.

    model: a `TextToImage`. features: pictures N×3×S×S -> N×D. updates, batch: of each imitator. pictures: that each
    draws. steps: of sampling. seeds: at least two; intervals are over them. Raises UsageError for fewer.
    """

    slug = "copyrightmeter"

    def __init__(
        self, model: Any, features: Callable[[Tensor], Any], *, seeds: Sequence[int] = (0, 1, 2, 3, 4),
        updates: int = 24, batch: int = 4, pictures: int = 24, steps: int = 6,
        attacks: Sequence[str] = CLOAK_ATTACKS,
    ) -> None:  # fmt: skip
        if len(seeds) < 2 or min(updates, batch, steps) < 1 or pictures < 2:
            raise UsageError("The audit needs two seeds and two pictures or more, and counts of at least 1.")
        self.model, self.features, self.seeds = model, features, tuple(seeds)
        self.updates, self.batch, self.pictures, self.steps = updates, batch, pictures, steps
        self.attacks = ("identity", *(a for a in attacks if a != "identity"))

    def measure(
        self, originals: Tensor, protected: Tensor, captions: Sequence[str] = (),
        track: Callable[[list[Any], str], Any] = lambda items, label: items,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """A row for each attack: efficacy and resilience with intervals over seeds, and the attack's damage.

        originals, protected: N×3×S×S of the model's size, in the same order. captions: of the pictures, one each.
        Raises UsageError for sets of other shapes or of fewer than two pictures.
        """
        import numpy as np

        from vestige.metrics.quality import psnr
        from vestige.watermark.copyrightmeter.purify import purified
        from vestige.watermark.copyrightmeter.scores import efficacy, over_seeds, ratio

        if originals.shape != protected.shape or len(originals) < 2:
            raise UsageError(f"Originals and protected pictures need one shape; got {tuple(originals.shape)} and "
                             f"{tuple(protected.shape)}.")  # fmt: skip
        context = self._context(captions, len(originals))
        raw: dict[tuple[str, str, int], float] = {}
        damage: dict[str, list[float]] = {a: [] for a in self.attacks}
        cells = [(attack, seed) for seed in self.seeds for attack in self.attacks]
        for attack, seed in track(cells, "auditing"):
            for name, images in (("none", originals), ("protected", protected)):
                taken = purified(attack, images, seed, self.model)
                raw[name, attack, seed] = self._distance(taken, context, originals, seed)
                if name == "protected":
                    damage[attack].append(float(np.minimum(psnr(images.numpy(), taken.numpy()), 99).mean()))
        full = {seed: self._distance(None, context, originals, seed) for seed in self.seeds}
        rows: list[dict[str, Any]] = []
        before: list[float] = []
        for attack in self.attacks:
            found = [
                efficacy(raw["protected", attack, s], raw["none", attack, s], raw["none", "identity", s], full[s])
                for s in self.seeds
            ]
            before = before or found
            estimate = over_seeds(found)
            row: dict[str, Any] = {"attack": attack, "efficacy": estimate.value, "efficacy low": estimate.low,
                                   "efficacy high": estimate.high}  # fmt: skip
            left = ratio(found, before)
            row |= {"resilience": left.value, "resilience low": left.low, "resilience high": left.high}
            row["distance, protected"] = float(np.mean([raw["protected", attack, s] for s in self.seeds]))
            row["distance, nothing protected"] = float(np.mean([raw["none", attack, s] for s in self.seeds]))
            rows.append(row | {"psnr of the attack": float(np.mean(damage[attack]))})
        return rows

    def _context(self, captions: Sequence[str], count: int) -> Tensor:
        import torch

        from vestige.watermark.copyrightmeter.imitation import NAME

        said = list(captions) or [f"a picture by {NAME}"] * count
        if len(said) != count:
            raise UsageError(f"There are {len(said)} captions for {count} pictures; give one for each.")
        with torch.no_grad():
            return self.model.embed(said)

    def _distance(self, taken: Tensor | None, context: Tensor, originals: Tensor, seed: int) -> float:
        """Of the imitations by an imitator of the pictures, or by the untouched model for None."""
        import torch

        from vestige.metrics.distribution import squared_mmd
        from vestige.watermark.copyrightmeter.imitation import imitated, mimic, torch_rng

        model = self.model
        if taken is not None:
            model = mimic(model, taken, context, updates=self.updates, batch=self.batch, seed=seed)
        start = torch.randn((self.pictures, *self.model.latent_shape()), generator=torch_rng(seed, "start", "audit"))
        asked = context[torch.arange(self.pictures) % len(context)]
        made = imitated(model, asked, start, self.steps)
        return float(squared_mmd(self.features(originals), self.features(made)))
