"""Claims of CtrlRegen on rendered scenes of 32 pixels, against a mark with StegaStamp's energy for every bit.

StegaStamp puts 100 bits into 400×400 pixels at 28.5 dB: a squared norm of 6.8 for a bit, pictures in [0, 1]. Here the
strong carriers of `small_marks`, twice as loud, carry four bits, each on four carriers, which is the same. Such a mark
is as large as what regeneration changes, so fidelity is to the picture without its mark: fidelity to the marked one,
given beside it, counts a mark left in as a merit. Orders and equalities are judged on the sixteen carriers as sixteen
bits, which is the finer measure. Features are compared by two networks: that whose tokens the attack uses, and one with
random weights that it never saw.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from vestige.bench.controls import Interval, over_seeds, paired
from vestige.bench.generation import runs
from vestige.bench.watermark.small_marks import BITS, SmallMark, pipeline, renders
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.core.runtime import rng
from vestige.data.distortions import distort
from vestige.engines.runs import Need
from vestige.metrics.detection import auroc
from vestige.metrics.quality import psnr
from vestige.watermark.attacks.registry import eight_bit
from vestige.watermark.learned import WEIGHTS

RECIPE = "ctrlregen"
NEEDS = (Need(RECIPE),)
#: Of Canny, as in the recipe.
THRESHOLDS = (50.0, 100.0)
#: Pictures of a seed, and of the rows that only order things; the latter are one batch, so that they are a part of the
#: former with the same noise.
PICTURES, FEW = 96, 32
SEEDS: tuple[int, ...] = (0, 1, 2)
STEPS = 16  # of a whole chain
WHOLE = 16  # strengths are in sixteenths of it
SWEEP, NOISED = (2, 4, 6, 9, 12), (2, 4, 6, 8, 10, 12, 14, 15)
CARRIERS = 4  # of one bit
#: The method's own controls, some of them switched off when pictures are redrawn.
SWITCHED = {"tokens off": (0.0, 1.0), "edges off": (1.0, 0.0), "both off": (0.0, 0.0)}
#: Weights of the two controls that a variant was trained with.
WEIGHED = {"default": (1.0, 1.0), "edges_alone": (0.0, 1.0), "tokens_alone": (1.0, 0.0)}
KINDS = {"loud": 2.0, "strong": 1.0, "loud, at edges": 2.0}
FIDELITY = ("psnr", "feature distance", "random-feature distance")


@cache
def system(context: ClaimContext, seed: int, variant: str = "default") -> Any:
    """The shipped model with the controls of a finished run."""
    from vestige.watermark.ctrlregen import CtrlRegen

    run = context.run(RECIPE, variant, seed)
    made = CtrlRegen(pipeline(), weights=run.folder / "ctrlregen.safetensors").eval()
    made.semantic, made.spatial = WEIGHED[variant]
    return made


@cache
def _networks() -> dict[str, Any]:
    from vestige.nn.features import FeatureNet

    return {"feature distance": runs.judge(), "random-feature distance": FeatureNet(seed=11).eval()}


@dataclass(frozen=True, eq=False)
class Case:
    """Scenes, the same with a mark, and as many others without one. bits: bool N×16, of the carriers."""

    cover: np.ndarray
    marked: np.ndarray
    clean: np.ndarray
    bits: np.ndarray
    mark: SmallMark


@cache
def _mark(seed: int) -> SmallMark:
    return SmallMark("strong", seed)


@cache
def _case(kind: str, seed: int, count: int) -> Case:
    import torch

    from vestige.watermark.ctrlregen import edges

    images = renders(2 * PICTURES, seed)[0]
    order = rng(seed, "case").permutation(len(images))
    half = len(images) // 2
    cover, clean = images[order[:half]][:count], images[order[half:]][:count]
    message = rng(seed, "message").integers(0, 2, (half, BITS // CARRIERS)).astype(bool)[:count]
    bits = np.repeat(message, CARRIERS, axis=1)
    mark = _mark(seed)
    pattern = (np.where(bits, 1, -1).astype(np.float32) @ mark.carriers).reshape(cover.shape)
    if kind.endswith("at edges"):
        near = edges(torch.from_numpy(cover), *THRESHOLDS)
        pattern = pattern * torch.nn.functional.max_pool2d(near, 3, 1, 1).numpy()
    return Case(cover, eight_bit(cover + np.float32(KINDS[kind]) * pattern), clean, bits, mark)


@cache
def _controlled(
    context: ClaimContext, kind: str, which: str, level: int, seed: int, count: int, arm: str = "default"
) -> np.ndarray:
    """CtrlRegen from ``level`` sixteenths of the chain, colours as they come.

    arm: a variant of the recipe, or the method's own controls with one or both switched off (`SWITCHED`).
    """
    net = system(context, seed if arm not in WEIGHED or arm == "default" else 0, arm if arm in WEIGHED else "default")
    weights = net.semantic, net.spatial
    net.semantic, net.spatial = SWITCHED.get(arm, weights)
    try:
        given = getattr(_case(kind, seed, count), which)
        return net.remove(
            given, level / WHOLE, steps=STEPS, seed=seed + 10_000 * (which == "clean"), colours=False, batch=FEW
        )
    finally:
        net.semantic, net.spatial = weights


@cache
def _plain(level: int, seed: int, count: int) -> np.ndarray:
    """Noise and denoise (DiffPure), without controls and caption."""
    from vestige.watermark.attacks.regeneration import regenerate

    given = _case("loud", seed, count).marked
    return eight_bit(regenerate(given, pipeline(), level / WHOLE, steps=STEPS, seed=seed, batch=FEW))


def _match(made: np.ndarray, given: np.ndarray) -> np.ndarray:
    from vestige.watermark.ctrlregen import match_colours

    return eight_bit(match_colours(made, given))


def _deep(a: np.ndarray, b: np.ndarray) -> dict[str, np.ndarray]:
    """Distances of the features of N pairs, and whether object and style are read alike."""
    import torch

    from vestige.metrics.perceptual import perceptual_distance

    x, y = torch.from_numpy(a), torch.from_numpy(b)
    with torch.no_grad():
        found = {name: perceptual_distance(x, y, net.maps).numpy() for name, net in _networks().items()}
        read = [_networks()["feature distance"].classify(z) for z in (x, y)]
    same = [(read[0][k].argmax(1) == read[1][k].argmax(1)).numpy() for k in ("object", "style")]
    return found | {"content kept": same[0] & same[1]}


def _row(
    attack: str, made: Sequence[tuple[Case, np.ndarray]], nulls: Iterable[np.ndarray] = (), **more: Any
) -> dict[str, Any]:
    """Figures over all pictures of all seeds. made: each seed's case and its first pictures after the attack.

    nulls: each seed's unmarked pictures after the same attack, for the area under the detector's curve.
    """
    votes, values = [], []
    for case, images in made:
        n = len(images)
        votes.append(case.mark.votes(images) * np.where(case.bits[:n], 1, -1))
        values.append(
            {
                "psnr": np.minimum(psnr(case.cover[:n], images), 99),
                "psnr to marked": np.minimum(psnr(case.marked[:n], images), 99),
                **_deep(case.cover[:n], images),
            }
        )
    agreed = np.concatenate(votes)
    row: dict[str, Any] = {"attack": attack, **more}
    row["4 bits"] = float((agreed.reshape(len(agreed), -1, CARRIERS).sum(2) > 0).mean())
    row["16 bits"] = float((agreed > 0).mean())
    row |= {name: float(np.concatenate([v[name] for v in values]).mean()) for name in values[0]}
    silent = [case.mark.score(x, case.bits[: len(x)]) for (case, _), x in zip(made, nulls, strict=False)]
    if silent:
        scores = np.concatenate([agreed.sum(1), *silent])
        row["auroc"] = auroc(np.arange(len(scores)) < len(agreed), scores)
    return row


def _seeds(context: ClaimContext) -> tuple[int, ...]:
    return SEEDS


def _sizes(context: ClaimContext) -> tuple[int, int]:
    limit = context.limit or PICTURES
    return min(limit, PICTURES), min(limit, FEW)


def _regenerated(
    context: ClaimContext,
    level: int,
    *,
    colours: bool = True,
    few: bool = True,
    kind: str = "loud",
    arm: str = "default",
    seeds: Sequence[int] = (),
) -> list[tuple[Case, np.ndarray]]:
    """Each seed's case and its first pictures from CtrlRegen."""
    n, small = _sizes(context)
    whole = level == WHOLE and kind == "loud" and arm == "default"  # several claims share these
    found = []
    for seed in seeds or _seeds(context):
        count = n if whole else small
        case, made = _case(kind, seed, n), _controlled(context, kind, "marked", level, seed, count, arm)
        made = made[:small] if few else made
        found.append((case, _match(made, case.marked[: len(made)]) if colours else made))
    return found


def _noised(
    context: ClaimContext, level: int, *, few: bool = True, seeds: Sequence[int] = ()
) -> list[tuple[Case, np.ndarray]]:
    n, small = _sizes(context)
    return [(_case("loud", s, n), _plain(level, s, n)[: small if few else n]) for s in seeds or _seeds(context)]


def _enlarged_vae(images: np.ndarray, noise: float, seed: int) -> np.ndarray:
    """Round trip through the autoencoder of 64-pixel scenes, on pictures enlarged to that size and reduced again."""
    import torch
    from torch.nn import functional as F

    from vestige.engines.diffusion.autoencoders import load_autoencoder
    from vestige.nn.vae import decode, encode

    vae = load_autoencoder(WEIGHTS / "scenes_vae")
    x = F.interpolate(torch.from_numpy(images), scale_factor=2, mode="bilinear")
    with torch.no_grad():
        latents = encode(vae, x * 2 - 1)
        latents = latents + noise * torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
        return eight_bit(F.avg_pool2d((decode(vae, latents) / 2 + 0.5).clamp(0, 1), 2).numpy())


def _paraphrased(images: np.ndarray, captions: Sequence[str], seed: int) -> np.ndarray:
    from vestige.watermark.visual_paraphrase import VisualParaphrase

    attack = VisualParaphrase(pipeline(), strength=0.6, steps=STEPS, seed=seed)
    return eight_bit(attack.paraphrase(images, captions)[0])


def _baselines(context: ClaimContext) -> list[dict[str, Any]]:
    """Blur, JPEG, autoencoder and paraphrase under the true captions, marked pictures and clean ones."""
    n, small = _sizes(context)
    seeds = _seeds(context)
    cases = [_case("loud", seed, n) for seed in seeds]
    attacks: dict[str, Any] = {
        "none": lambda x, seed: x,
        "jpeg 75": lambda x, seed: distort(x, "jpeg", 75),
        "jpeg 25": lambda x, seed: distort(x, "jpeg", 25),
        "blur 1": lambda x, seed: distort(x, "blur", 1),
        "blur 2": lambda x, seed: distort(x, "blur", 2),
        "autoencoder": lambda x, seed: _enlarged_vae(x, 0.0, seed),
        "autoencoder, noise 0.5": lambda x, seed: _enlarged_vae(x, 0.5, seed),
    }
    rows = []
    for name, run in attacks.items():
        made = [(c, run(c.marked[:small], s)) for c, s in zip(cases, seeds, strict=True)]
        rows.append(_row(name, made, [run(c.clean[:small], s) for c, s in zip(cases, seeds, strict=True)]))
    said = []
    for case, seed in zip(cases, seeds, strict=True):
        captions = renders(2 * PICTURES, seed)[1]
        order = rng(seed, "case").permutation(len(captions))[:small]
        said.append((case, _paraphrased(case.marked[:small], [captions[i] for i in order], seed)))
    return [*rows, _row("paraphrase s=0.6, true caption", said)]


def _at(rows: Sequence[Mapping[str, Any]], key: str, value: float, wanted: str) -> float:
    """``wanted`` of a curve of rows where ``key`` has that value, by linear interpolation along a monotone curve."""
    x = np.maximum.accumulate(np.array([float(r[key]) for r in reversed(rows)]))
    return float(np.interp(value, x, [float(r[wanted]) for r in reversed(rows)]))


def removes_more(ours: Sequence[float], plain: Sequence[float]) -> tuple[bool, Interval]:
    """Whether fewer bits are left than by plain regeneration of equal PSNR, by an interval over seeds. Bits below one
    half count as one half: turning them round is not removal."""
    gap = over_seeds([max(x, 0.5) for x in plain], [max(x, 0.5) for x in ours])
    return gap.low > 0, gap


def _against_plain(context: ClaimContext, seed: int) -> tuple[list[dict[str, Any]], float, float, bool]:
    """Rows of one seed, the bits left by CtrlRegen and by plain regeneration at its PSNR, and whether the curve of the
    latter reaches that PSNR."""
    ours = _row(f"CtrlRegen s=1, seed {seed}", _regenerated(context, WHOLE, few=False, seeds=(seed,)))
    curve: list[dict[str, Any]] = []
    for level in NOISED:
        curve.append(_row(f"plain t={level / WHOLE:g}, seed {seed}", _noised(context, level, few=False, seeds=(seed,))))
        if curve[-1]["psnr"] <= ours["psnr"]:
            break
    left = _at(curve, "psnr", ours["psnr"], "16 bits")
    equal = {"attack": f"plain at equal psnr, seed {seed}", "psnr": ours["psnr"], "16 bits": left}
    return [ours, *curve, equal], ours["16 bits"], left, curve[-1]["psnr"] <= ours["psnr"]


@headline(
    "of a high-perturbation (StegaStamp-like) mark, regeneration from clean noise under both controls leaves fewer "
    "bits than plain regeneration at the noise level of equal PSNR"
)
def clean_noise_removes_strong_marks(context: ClaimContext) -> Evidence:
    n, small = _sizes(context)
    seeds = _seeds(context)
    for seed in seeds:
        system(context, seed)  # first, so that missing runs are named before anything is rendered
    rows: list[dict[str, Any]] = [
        _row(
            "CtrlRegen s=1", _regenerated(context, WHOLE, few=False),
            [_match(_controlled(context, "loud", "clean", WHOLE, s, small), _case("loud", s, n).clean[:small])
             for s in seeds],
        ),
        _row("CtrlRegen s=1, colours as made", _regenerated(context, WHOLE, few=False, colours=False)),
    ]  # fmt: skip
    ours, plain, reached = [], [], []
    for seed in seeds:
        found, mine, theirs, at = _against_plain(context, seed)
        rows += found
        ours.append(mine)
        plain.append(theirs)
        reached.append(at)
    for level in NOISED:
        matched = [(c, _match(x, c.marked[: len(x)])) for c, x in _noised(context, level)]
        rows.append(_row(f"plain t={level / WHOLE:g}, colours matched", matched))
    for kind in ("strong", "loud, at edges"):
        rows.append(_row("none", [(c, c.marked[:small]) for c in (_case(kind, s, n) for s in seeds)], mark=kind))
        for colours in (True, False):
            name = "CtrlRegen s=1" + ("" if colours else ", colours as made")
            rows.append(_row(name, _regenerated(context, WHOLE, kind=kind, colours=colours), mark=kind))
    rows += _baselines(context)
    for row in rows:
        row["mark"] = row.get("mark", "loud")
    holds, gap = removes_more(ours, plain)
    note = (
        f"plain leaves {gap} more over {len(seeds)} seeds (card: >= 0.10); CtrlRegen leaves {np.mean(ours):.3f}; {n} "
        f"pictures of each seed, {small} in rows of other marks and attacks; psnr is to the picture without mark"
    )
    return Evidence(holds, rows, note, too_weak="" if all(reached) else "no plain regeneration has a PSNR as low")


@claim("at equal bit accuracy CtrlRegen+ (s < 1) has higher PSNR and feature similarity than noise-and-denoise")
def controls_keep_more_at_equal_accuracy(context: ClaimContext) -> Evidence:
    ours = [_row(f"CtrlRegen+ s={k / WHOLE:g}", _regenerated(context, k)) for k in SWEEP]
    bare = [
        _row(f"CtrlRegen+ s={k / WHOLE:g}, colours as made", _regenerated(context, k, colours=False)) for k in SWEEP
    ]
    curves = {
        "noise-and-denoise": [_row(f"noise-and-denoise t={k / WHOLE:g}", _noised(context, k)) for k in NOISED[:-1]],
        "the same sampler, no controls": [
            _row(
                f"the same sampler, no controls, t={k / WHOLE:g}",
                _regenerated(context, k, colours=False, arm="both off"),
            )
            for k in NOISED[:-1]
        ],
    }
    rows, wins = [*ours, *bare, *(r for curve in curves.values() for r in curve)], []
    for row in ours:
        for name, curve in curves.items():
            found = [r["16 bits"] for r in curve]
            # Near one half, and above what the weakest noise leaves, equal accuracy says nothing.
            if not max(min(found), 0.55) <= row["16 bits"] <= max(found):
                continue
            other = {key: _at(curve, "16 bits", row["16 bits"], key) for key in FIDELITY}
            rows.append({"attack": f"{name} at the accuracy of {row['attack']}", "16 bits": row["16 bits"], **other})
            wins.append(row["psnr"] > other["psnr"] and all(row[key] < other[key] for key in FIDELITY[1:]))
    note = f"{len(wins)} points of equal accuracy, better in PSNR and by both networks at {sum(wins)}"
    return Evidence(bool(wins) and all(wins), rows, note)


@claim(
    "ablation at s = 1: trained without the picture's tokens the feature distance is larger, trained without edges "
    "PSNR is lower"
)
def both_controls_matter(context: ClaimContext) -> Evidence:
    arms = ("default", "edges_alone", "tokens_alone", *SWITCHED)
    seed = _seeds(context)[0]
    rows, found = [], {}
    for arm in arms:
        ((case, made),) = _regenerated(context, WHOLE, arm=arm, seeds=(seed,))
        cover = case.cover[: len(made)]
        found[arm] = {"psnr": np.minimum(psnr(cover, made), 99), **_deep(cover, made)}
        rows.append(_row(arm, [(case, made)]))
    less = paired(found["default"]["psnr"], found["tokens_alone"]["psnr"])
    more = [paired(found["edges_alone"][key], found["default"][key]) for key in FIDELITY[1:]]
    holds = less.low > 0 and all(gap.low > 0 for gap in more)
    note = f"edges add {less} dB; without tokens the distances grow by {' and '.join(str(gap) for gap in more)}"
    return Evidence(bool(holds), rows, note)


@claim("the sweep over s is monotone in bit accuracy")
def accuracy_falls_with_strength(context: ClaimContext) -> Evidence:
    rows = [_row(f"CtrlRegen+ s={k / WHOLE:g}", _regenerated(context, k)) for k in (*SWEEP, WHOLE)]
    values = [row["16 bits"] for row in rows]
    # Near one half the order is that of noise: two standard errors of a share of guesses are allowed for.
    slack = 2 * 0.5 / np.sqrt(len(SEEDS) * _sizes(context)[1] * BITS)
    falls = all(b <= a + slack for a, b in pairwise(values))
    return Evidence(bool(falls and values[0] - values[-1] > slack), rows, f"allowed for: {slack:.3f}")
