"""A face recogniser and a mark of the HiDDeN kind, side by side on the same faces: what the attack needs both of.

    vestige learn face_adv_watermark

The pack "faces" is used where it is there, drawn people elsewhere. The recogniser learns thirty people by a cosine
margin on shifted, mirrored, lightened and noised photographs; the mark is trained on the same photographs to survive
JPEG, noise, blur and brightness. Their gradients do not meet: one loop trains both. Results: pair.safetensors in the
run's folder, which the commands of the system take as ``--model``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.bench.watermark.faces import KNOWN, Faces, faces
from vestige.core.runtime import rng
from vestige.data.packs import find_data_root, has_pack
from vestige.engines.marking.distort import DistortionLayer, Draw
from vestige.engines.marking.evaluate import draw_bits
from vestige.engines.marking.model import Trial, straight_clamp
from vestige.engines.marking.stages import ramp
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.watermark.face_adv_nets import BITS, SIZE, FaceMark, FacePair, save_pair
from vestige.watermark.face_adv_watermark import threshold_at

#: Share of pairs of different people that may match.
FALSE_MATCHES = 0.01
#: Largest standard deviation of the noise that the recogniser is trained with.
NOISE = 0.01
#: What the mark is trained to survive.
BANK = (
    Draw("identity"), Draw("jpeg", 95, 60), Draw("noise", 0, 0.03), Draw("blur", 0.3, 0.8),
    Draw("brightness", 0.8, 1.2),
)  # fmt: skip


def build(ctx: RecipeContext) -> Job:
    o, steps = ctx.options, ctx.config.steps
    root = ctx.data or find_data_root()
    data = faces(root / "faces" if root is not None and has_pack("faces", root) else None)
    pair = FacePair(KNOWN, width=float(o["width"]), mark_width=int(o["mark_width"]))
    labels = data.labels
    if o["shuffled_labels"]:
        labels = labels[torch.from_numpy(rng(ctx.seed, "shuffled labels").permutation(len(labels)))]
    layer, count = DistortionLayer(BANK), ctx.config.batch_size

    def batches(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
        chosen = torch.randint(len(data.train), (count,), generator=generator)
        marked = torch.randint(len(data.train), (max(2, count // 2),), generator=generator)
        bits = torch.from_numpy(draw_bits(ctx.seed, len(marked), BITS, number)).float()
        return _seen(data.train[chosen], generator), labels[chosen], data.train[marked], bits, number

    def step(model: nn.Module, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(model, FacePair)
        photographs, people, images, bits, number = batch
        recognised = model.recogniser.loss(photographs, people)
        found = _marked(model.watermarker, layer, images, bits, int(number), steps, ctx.seed)
        return {**found, "loss": recognised + found["loss"], "recogniser": recognised.detach()}

    def validate(model: nn.Module) -> dict[str, float]:
        assert isinstance(model, FacePair)
        with torch.no_grad():
            limit, matched = verification(model.recogniser, data)
            model.threshold.fill_(limit)
            bits = torch.from_numpy(draw_bits(ctx.seed, len(data.tuning), BITS, "validation")).float()
            marked = straight_clamp(model.watermarker.embed(data.tuning, bits))
            full = torch.ones((len(marked), 1, SIZE, SIZE), dtype=torch.bool)
            attacked, _ = layer(marked, full, rng(ctx.seed, "validation"), cover=data.tuning)
            right = float((model.watermarker.read(attacked).bits == (bits > 0.5)).float().mean())
            error = float(F.mse_loss(marked, data.tuning))
        psnr = -10 * float(torch.log10(torch.tensor(max(error, 1e-10))))
        return {"both": (matched + right) / 2, "matched": matched, "bits_right": right, "psnr": psnr}

    def save(model: nn.Module, out: Path) -> None:
        assert isinstance(model, FacePair)
        save_pair(model, out / "pair.safetensors")

    return Job(pair, step, batches, validate=validate, save=save)


def verification(net: nn.Module, data: Faces) -> tuple[float, float]:
    """The cosine that one pair of different people in a hundred reaches, and the share of pairs of one person that
    reach it, both on photographs kept for it."""
    found = net(data.tuning)
    cosines = found @ found.T
    upper = torch.triu(torch.ones_like(cosines, dtype=torch.bool), 1)
    same = data.tuning_people[:, None] == data.tuning_people[None]
    limit = threshold_at(cosines[upper & ~same], FALSE_MATCHES)
    own = cosines[upper & same]
    return limit, float((own >= limit).float().mean()) if own.numel() else 0.0


def _seen(images: Tensor, generator: torch.Generator) -> Tensor:
    """Photographs as a camera would take them again: moved by up to four pixels, mirrored, lighter or darker, noisy."""
    padded = F.pad(images, (4, 4, 4, 4), mode="reflect")
    cut = []
    for picture in padded:
        top, left, flip = (int(torch.randint(n, (), generator=generator)) for n in (9, 9, 2))
        picture = picture[:, top : top + SIZE, left : left + SIZE]
        cut.append(picture.flip(2) if flip else picture)
    gain, offset, sigma = (torch.rand((len(images), 1, 1, 1), generator=generator) for _ in range(3))
    noise = NOISE * sigma * torch.randn(images.shape, generator=generator)
    return ((torch.stack(cut) - 0.5) * (0.8 + 0.4 * gain) + 0.4 + 0.2 * offset + noise).clamp(0, 1)


def _marked(
    model: FaceMark, layer: DistortionLayer, images: Tensor, bits: Tensor, number: int, steps: int, seed: int
) -> dict[str, Tensor]:
    """The mark's own loss: distortions come in between a fifth and three fifths, fidelity from two fifths on."""
    masks = torch.ones((len(images), 1, SIZE, SIZE), dtype=torch.bool)
    embedded = straight_clamp(model.embed(images, bits))
    severity = ramp(number, [(0.2 * steps, 0.0), (0.6 * steps, 1.0)])
    attacked, moved = embedded, masks
    if severity > 0:
        attacked, moved = layer(embedded, masks, rng(seed, "distortion", number), cover=images, severity=severity)
    trial = Trial(images, bits, masks, embedded, attacked, moved, model.read(attacked), images.new_zeros(()))
    found = model.objective(trial, lambda name: ramp(number, [(0.4 * steps, 0.0), (0.7 * steps, 1.0)]))
    return {**found, "bits_right": trial.accuracy()}


RECIPE = Recipe(
    name="face_adv_watermark",
    about="A small face recogniser and a small mark, for the attack that waits for the mark.",
    build=build,
    config=TrainConfig(
        steps=1200, batch_size=48, lr=2e-3, betas=(0.9, 0.99), weight_decay=0.02, warmup=0.05, clip=None,
        log_every=20, validate_every=60, checkpoint_every=100,
    ),
    reach={"matched": "0.8 of pairs of one person at one false match in a hundred", "bits_right": "0.95"},
    options={"width": 0.25, "mark_width": 24, "shuffled_labels": False},
    variants={
        "default": Variant("the pair that is attacked", seeds=(0, 1, 2)),
        "other": Variant("a second pair, of other widths, to which the attack may carry over",
                         {"width": 0.1875, "mark_width": 16}, seeds=(10,)),
        "shuffled_labels": Variant("a recogniser that learnt people dealt out at random: what the test bed resolves",
                                   {"shuffled_labels": True}),
    },
    judged_by="both",
)  # fmt: skip
