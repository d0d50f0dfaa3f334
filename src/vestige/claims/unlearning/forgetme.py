"""Claims of ForgetMe: removal scored against the renderer's own picture without the thing, Entangled-D against known
series of edits, and the shipped small text-to-image model taught by LoRA that the word for a thing means its absence.

Scenes on textured ground, 64 pixels with two or three things; 32 pixels with one large thing where the diffusion model
is used, which has seen nothing else. All figures of a removal are inside the refined mask.
"""

from __future__ import annotations

import copy
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import nn

from vestige.bench.generation import runs
from vestige.claims import ClaimContext, Evidence, claim
from vestige.claims.generation.maskunet import LowRank
from vestige.core.runtime import rng
from vestige.data.scenes import CLASSES, Scene, render, sample_scene
from vestige.engines.diffusion.editing import sdedit
from vestige.engines.diffusion.losses import diffusion_loss
from vestige.engines.diffusion.pipeline import TextToImage
from vestige.engines.diffusion.schedules import grid
from vestige.metrics.entangled import entangled, typical_replacement
from vestige.unlearning.forgetme import ForgetMe, refine

PAIRS, VALIDATION, SMALL = 150, 50, 32
#: Series of scenes: for figures, for r_0, for LoRA and for the pictures its checkpoints edit.
TEST, CHOICE, TAUGHT, EDITED = 90, 91, 92, 93
TARGET, RANK, RATE, BATCH, CHECKPOINTS = "cat", 4, 5e-3, 16, (0, 4, 8, 16, 80)
PER_CLASS, LESSONS = 24, 120


def pairs(count: int, size: int, series: int, **options: Any) -> tuple[list[Scene], np.ndarray, np.ndarray, np.ndarray]:
    """(scenes, pictures, masks of the first thing, pictures without it) on textured grounds; the thing is visible."""
    scenes: list[Scene] = []
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    number = series * 1_000_003
    while len(scenes) < count:
        scene = sample_scene(number, **options)
        number += 1
        drawn = render(scene, size)
        if scene.background != "studio" and drawn.masks[0].mean() > 0.01:
            scenes.append(scene)
            found.append((drawn.image, drawn.masks[:1], render(scene.without(0), size).image))
    images, masks, gone = (np.stack(column) for column in zip(*found, strict=True))
    return scenes, images, masks, gone


def inside_psnr(made: np.ndarray, truth: np.ndarray, masks: np.ndarray) -> float:
    """PSNR inside the masks, of the mean squared error over pictures."""
    errors = [np.square(m - t)[:, k[0]].mean() for m, t, k in zip(made, truth, masks, strict=True)]
    return float(-10 * np.log10(np.mean(errors)))


def mean_colour(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    made = images.copy()
    for image, mask in zip(made, masks[:, 0], strict=True):
        image[:, mask] = image[:, ~mask].mean(1)[:, None]
    return made


@cache
def removals(context: ClaimContext) -> list[dict[str, Any]]:
    table = []
    many = context.limit or PAIRS
    for size, count, options in (
        (64, many, {"n_objects": (2, 3)}), (32, min(many, SMALL), {"n_objects": 1, "object_size": "large"}),
    ):  # fmt: skip
        _, images, masks, truth = pairs(count, size, TEST + 10 * context.seed, **options)
        refined = np.stack([refine(m[0])[None] for m in masks])
        made = {"mean colour": mean_colour(images, refined), "not edited": images}
        for name in ("telea", "navier-stokes"):
            made[f"{name}, mask as given"] = ForgetMe(fill=name, feather=0, grow=0).erase(images, masks)[0]
            made[name] = ForgetMe(fill=name).erase(images, masks)[0]
        if size == 32:
            model = runs.pipeline()
            for suppress in (True, False):
                name = "diffusion" if suppress else "diffusion, attention open"
                eraser = ForgetMe(fill="diffusion", model=model, suppress=suppress, steps=12, repeats=2)
                made[name] = eraser.erase(images, masks)[0]
        table += [
            {"size": size, "removal": n, "pairs": count, "PSNR inside": inside_psnr(m, truth, refined)}
            for n, m in made.items()
        ]
    return table


@claim("removal by refined mask and fill beats the mean colour by >= 2 dB towards the true picture without the thing, "
       "and is not worse than Telea's fill of the given mask")  # fmt: skip
def removal_is_near_the_truth(context: ClaimContext) -> Evidence:
    table = removals(context)
    of = {(r["size"], r["removal"]): r["PSNR inside"] for r in table}
    own = ForgetMe().fill
    over = of[64, own] - of[64, "mean colour"]
    holds = over >= 2 and of[64, own] >= of[64, "telea, mask as given"]
    note = (
        f"the default fill is {own}; over the mean colour {over:.2f} dB; at 32 pixels the fill by diffusion "
        f"{of[32, 'diffusion']:.2f} dB with the hole's keys suppressed, "
        f"{of[32, 'diffusion, attention open']:.2f} without, {own} {of[32, own]:.2f}: the shipped model has only seen "
        "pictures with one large thing, so it is no inpainter"
    )
    return Evidence(holds, table, note)


def edits(images: np.ndarray, masks: np.ndarray, truth: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Series from no edit to the true removal, inside the masks; and the removal with noise on the background."""
    made: dict[str, np.ndarray] = {}
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        part = np.zeros_like(masks)
        for mask, chosen in zip(masks[:, 0], part[:, 0], strict=True):
            rows, columns = np.nonzero(mask)
            keep = np.argsort(columns, kind="stable")[: round(share * len(columns))]
            chosen[rows[keep], columns[keep]] = True
        made[f"removed {share:g}"] = np.where(part, truth, images)
    noise = rng(seed, "background noise").standard_normal(images.shape)
    for level in (0.05, 0.1, 0.2):
        made[f"removed 1, noise {level:g}"] = np.where(masks, truth, (images + level * noise).clip(0, 1))
    return made


def replacement(context: ClaimContext) -> float:
    """r_0 from other pairs than those measured."""
    _, images, masks, truth = pairs(context.limit or VALIDATION, 64, CHOICE + 10 * context.seed, n_objects=(2, 3))
    return typical_replacement(images, truth, masks)


@claim("corrected Entangled-D orders no edit < half removed < removed, and noise on the background < none, with "
       "Kendall's tau >= 0.9 over the series; the released form does not")  # fmt: skip
def the_corrected_form_orders_edits(context: ClaimContext) -> Evidence:
    from scipy.stats import kendalltau

    _, images, masks, truth = pairs(context.limit or PAIRS, 64, TEST + 10 * context.seed, n_objects=(2, 3))
    replaced = replacement(context)
    made = edits(images, masks, truth, context.seed)
    table, tau, finer = [], {}, {}
    values = {
        variant: {n: entangled(images, m, masks, variant=variant, replaced=replaced) for n, m in made.items()}
        for variant in ("corrected", "released")
    }
    removal, steps = ["removed 0", "removed 0.5", "removed 1"], [n for n in made if "noise" not in n]
    damage = ["removed 1", *(n for n in made if "noise" in n)]
    for variant, by_name in values.items():
        for name, row in by_name.items():
            table.append({"variant": variant, "edit": name, **{k: float(v.mean()) for k, v in row.items()}})
        means = {n: float(row["D"].mean()) for n, row in by_name.items()}
        up = kendalltau(range(len(removal)), [means[n] for n in removal]).statistic
        finer[variant] = float(kendalltau(range(len(steps)), [means[n] for n in steps]).statistic)
        down = kendalltau(range(len(damage)), [-means[n] for n in damage]).statistic
        tau[variant] = float(min(up, down))
        each = [kendalltau(range(5), [by_name[n]["D"][i] for n in steps]).statistic for i in range(len(images))]
        table.append({"variant": variant, "edit": "tau over means", "D": tau[variant]})
        within = float(np.nanmean(each))
        table.append({"variant": variant, "edit": "tau over quarters within a picture, mean", "D": within})
    note = f"r_0 {replaced:.3f}; tau " + ", ".join(f"{k} {v:.2f}" for k, v in tau.items())
    note += "; over removals in quarters " + ", ".join(f"{k} {v:.2f}" for k, v in finer.items())
    return Evidence(tau["corrected"] >= 0.9 > tau["released"], table, note)


# ---------------------------------------------------------------- LoRA


def adapted(model: TextToImage, seed: int) -> dict[str, LowRank]:
    """Adapters in every attention projection of the UNet, in place."""
    names = [
        n for n, m in model.unet.named_modules()
        if isinstance(m, nn.Linear) and n.rpartition(".")[2] in ("to_q", "to_k", "to_v", "0") and ".attn" in n
    ]  # fmt: skip
    made = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name in names:
            parent, _, leaf = name.rpartition(".")
            made[name] = LowRank(model.unet.get_submodule(name), RANK)
            setattr(model.unet.get_submodule(parent), leaf, made[name])
    return made


def _network(model: TextToImage, context: torch.Tensor, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    return model.network(x, time, context)


@cache
def checkpoints(seed: int) -> dict[int, TextToImage]:
    """Copies of the shipped model after so many updates: emptied pictures under captions of the target, and whole ones
    of other things under theirs, half and half. The pictures are emptied by `ForgetMe`, not by the renderer."""
    model = copy.deepcopy(runs.pipeline())
    weights = [p for a in adapted(model, seed).values() for p in (a.down.requires_grad_(), a.up.requires_grad_())]
    rest = [c for c in CLASSES if c != TARGET]
    large = {"n_objects": 1, "object_size": "large"}
    scenes, images, masks, _ = pairs(LESSONS, 32, TAUGHT + 10 * seed, object=TARGET, **large)
    others, whole, _, _ = pairs(2 * LESSONS, 32, TAUGHT + 10 * seed + 5, classes=rest, **large)
    empty = ForgetMe().erase(images, masks)[0]
    captions = [s.caption for s in (*scenes, *others)]
    latents = model.encode(torch.from_numpy(np.concatenate([empty, whole])))
    with torch.no_grad():
        contexts = model.embed(captions)
    optimizer = torch.optim.Adam(weights, RATE)
    generator = torch.Generator().manual_seed(seed)
    kept = {}
    for step in range(max(CHECKPOINTS) + 1):
        if step in CHECKPOINTS:
            kept[step] = copy.deepcopy(model).eval()
        half = BATCH // 2
        rows = torch.cat([
            torch.randint(len(scenes), (half,), generator=generator),
            len(scenes) + torch.randint(len(others), (half,), generator=generator),
        ])  # fmt: skip
        network = partial(_network, model, contexts[rows])
        loss = diffusion_loss(network, latents[rows], model.table, model.prediction, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return kept


@cache
def lora_rows(seed: int) -> list[dict[str, Any]]:
    """For each checkpoint: how often the judge sees the target and other things in samples of their captions, and the
    scores of pictures of the target edited by it (SDEdit, strength 0.7, its caption)."""
    net = runs.judge()
    at = CLASSES.index(TARGET)
    large = {"n_objects": 1, "object_size": "large"}
    target, images, masks, _ = pairs(PER_CLASS, 32, EDITED + 10 * seed, object=TARGET, **large)
    rest = [c for c in CLASSES if c != TARGET]
    others, _, _, _ = pairs(2 * PER_CLASS, 32, EDITED + 10 * seed + 5, classes=rest, **large)
    wanted = torch.tensor([CLASSES.index(s.objects[0].kind) for s in others])
    refined = np.stack([refine(m[0])[None] for m in masks])
    pictures = torch.from_numpy(images)
    table = []
    for step, model in checkpoints(seed).items():
        samples = model.sample([s.caption for s in target], seed=seed, steps=12)
        kept = model.sample([s.caption for s in others], seed=seed, steps=12)
        denoiser = model.denoiser([s.caption for s in target], guidance=3.0)
        noise = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            hole = torch.from_numpy(refined)
            known, levels = model.encode(pictures), grid(model.table, 16)
            edited = model.decode(sdedit(denoiser, known, levels, 0.7, noise, mask=hole))
            read = {n: runs.read(net, x)["object"] for n, x in (("t", samples), ("o", kept), ("e", edited))}
        found = edited.numpy()
        scores = entangled(images, found, refined)
        table.append({
            "updates": step, "target seen in samples": float((read["t"] == at).float().mean()),
            "others seen in samples": float((read["o"] == wanted).float().mean()),
            "target seen in edits": float((read["e"] == at).float().mean()),
            "corrected D": float(scores["D"].mean()), "S (consistency)": float(scores["consistency"].mean()),
            "released D": float(entangled(images, found, refined, variant="released")["D"].mean()),
        })  # fmt: skip
    return table


@claim("corrected Entangled-D ranks five checkpoints of an unlearned model as a detector of the thing does (Spearman "
       ">= 0.8)")  # fmt: skip
def entangled_agrees_with_a_detector(context: ClaimContext) -> Evidence:
    from scipy.stats import spearmanr

    table = lora_rows(context.seed)
    absent = [1 - r["target seen in edits"] for r in table]
    with_d = float(spearmanr(absent, [r["corrected D"] for r in table]).statistic)
    with_s = float(spearmanr(absent, [r["S (consistency)"] for r in table]).statistic)
    released = float(spearmanr(absent, [r["released D"] for r in table]).statistic)
    note = f"Spearman: corrected D {with_d:.2f}, S {with_s:.2f}, released D {released:.2f}"
    return Evidence(with_d >= 0.8, table, note)


@claim("LoRA on emptied pictures lowers the detection of the thing by >= 60 points, that of other things by <= 10")
def lora_forgets_the_word(context: ClaimContext) -> Evidence:
    table = lora_rows(context.seed)
    before, after = table[0], table[-1]
    fall = before["target seen in samples"] - after["target seen in samples"]
    lost = before["others seen in samples"] - after["others seen in samples"]
    return Evidence(fall >= 0.6 and lost <= 0.1, table, f"target {fall:.2f}, others {lost:.2f} lower")
