"""The masked models: recipes that learn and measure, and claims that follow the figures of finished runs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vestige.app.verbs import learning
from vestige.bench.masked import measure as measuring
from vestige.bench.masked.measure import PROTOCOL
from vestige.bench.masked.systems import METHODS, VARIANTS, build_method
from vestige.bench.masked.table import ahead
from vestige.bench.masked.timing import Stepper, update_times
from vestige.claims import ClaimContext, MissingRunsError, claims_of, needs_of, runs_needed
from vestige.claims.pretraining import color_mae, dmjd, droppos, lut, mae, mp3
from vestige.core.catalogue import system
from vestige.core.errors import InputError, UsageError
from vestige.core.files import read_json, write_json
from vestige.data.packs import Pack
from vestige.engines.recipe import load_recipe
from vestige.engines.runs import Need
from vestige.nn.backbone import load_backbone

SIZES = {
    "size": 32, "patch": 4, "width": 16, "depth": 1, "heads": 2, "decoder_width": 16, "decoder_depth": 1,
    "decoder_heads": 2,
}  # fmt: skip
SMALL = [f"{name}={value}" for name, value in SIZES.items()]
QUICK = ["steps=2", "batch_size=8", "labels=60", "judged=40", "tune=0", "timing=0", *SMALL]


def pictures(count: int, seed: int) -> list[np.ndarray]:
    """Lighter at the top, with a colour for each of ten labels."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        label = i % 10
        shade = np.linspace(220, 30, 32)[:, None, None] * np.ones((1, 32, 1))
        pixels = shade + 25 * np.array([label % 3 - 1, label // 4 - 1, label % 2]) + rng.normal(0, 6, (32, 32, 3))
        found.append(pixels.clip(0, 255).astype(np.uint8))
    return found


@pytest.fixture(scope="module")
def packs(tmp_path_factory) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("packs") / "cifar10"
    folder.mkdir()
    for part, count, seed in (("train", 110, 0), ("test", 40, 1)):
        rows = []
        for i, pixels in enumerate(pictures(count, seed)):
            data = io.BytesIO()
            Image.fromarray(pixels).save(data, "PNG")
            rows.append({"image": {"bytes": data.getvalue(), "path": f"{seed}-{i}.png"}, "label": i % 10})
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{part}.parquet")
    return folder.parent


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(PROTOCOL, "scenes", [12, 6])
    monkeypatch.setitem(PROTOCOL, "tokens", 8)
    measuring._scenes.cache_clear()
    yield
    measuring._scenes.cache_clear()


# recipes


@pytest.mark.parametrize("slug", METHODS)
def test_a_recipe_learns_measures_and_writes_an_encoder(slug, packs, tmp_path, monkeypatch):
    monkeypatch.setenv("VESTIGE_DATA", str(packs))
    arms = load_recipe(slug).variants
    assert next(iter(arms)) == slug
    assert len(arms[slug].seeds) == 3
    assert learning.run(slug, tmp_path / slug, set_=QUICK, device="cpu", quiet=True) == 0
    metrics = read_json(tmp_path / slug / "metrics.json")
    figures = metrics["evaluation"]
    assert metrics["judged_by"] == "-error"
    assert {"error", "knn"} <= set(metrics["validation"])
    assert {"linear", "knn", "quarter", "untrained linear", "untrained knn", "million tokens"} <= set(figures)
    assert all(np.isfinite(v) for v in figures.values() if isinstance(v, float))
    encoder = load_backbone(tmp_path / slug / "encoder.safetensors")
    assert encoder.features(torch.rand(2, 3, 32, 32)).shape == (2, 16)


@pytest.mark.parametrize("classes", [False, True])
def test_a_folder_of_pictures_is_learned_from(classes, tmp_path):
    for i, pixels in enumerate(pictures(48, 3)):
        folder = tmp_path / "mine" / (str(i % 2) if classes else "")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((50, 40)).save(folder / f"{i}.png")
    learning.run("mae", tmp_path / "run", tmp_path / "mine", QUICK, device="cpu", quiet=True)
    metrics = read_json(tmp_path / "run" / "metrics.json")
    assert ("knn" in metrics["validation"]) is classes
    assert ("untrained linear" in metrics["evaluation"]) is classes
    few = tmp_path / "few"
    few.mkdir()
    Image.fromarray(pictures(1, 0)[0]).save(few / "1.png")
    with pytest.raises(InputError, match="at least 8"):
        learning.run("mae", tmp_path / "other", few, QUICK, device="cpu", quiet=True)


def test_without_data_scenes_are_learned_from(tmp_path, monkeypatch):
    (tmp_path / "none").mkdir()
    monkeypatch.setenv("VESTIGE_DATA", str(tmp_path / "none"))
    learning.run("color_mae", tmp_path / "run", set_=[*QUICK, "limit=16"], device="cpu", quiet=True)
    assert (tmp_path / "run" / "encoder.safetensors").is_file()


@pytest.mark.parametrize("name", VARIANTS)
def test_every_baseline_learns_something(name):
    pack = Pack(np.stack(pictures(20, 0)).transpose(0, 3, 1, 2), np.arange(20) % 10, tuple(map(str, range(20))))
    stepper = Stepper(name, pack, SIZES, {"batch_size": 8})
    before = [p.clone() for p in stepper.model.parameters()]
    stepper()
    assert any(not torch.equal(a, b) for a, b in zip(before, stepper.model.parameters(), strict=True))


def test_updates_are_timed_and_their_tokens_counted():
    pack = Pack(np.stack(pictures(20, 0)).transpose(0, 3, 1, 2), np.arange(20) % 10, tuple(map(str, range(20))))
    counted = {n: Stepper(n, pack, SIZES, {"batch_size": 8}).tokens() for n in ("mae", "lut", "dmjd", "dmjd/one_view")}
    tokens = {name: (c["tokens"] / 8, c["tokens_without_gradient"] / 8) for name, c in counted.items()}
    assert tokens == {"mae": (17, 0), "lut": (34, 130), "dmjd": (50, 0), "dmjd/one_view": (25, 0)}
    times = update_times(("mae", "mp3"), pack, 1, SIZES, {"batch_size": 8})
    assert set(times) == {"ms mae", "ms mp3"}
    assert min(times.values()) > 0


def test_unknown_names_are_refused():
    with pytest.raises(UsageError, match="color_mae"):
        build_method("colour_mae")


# claims

BASE = {
    "linear": 0.40, "knn": 0.30, "quarter": 0.30, "tuned": 0.55, "scenes_miou": 0.60, "loss_uniform": 0.50,
    "loss_green": 0.60, "linear_in_place": 0.40, "linear_shuffled": 0.36, "positions": 0.4, "positions_all_keys": 0.4,
    "positions_0": 0.10, "positions_4": 0.15, "positions_8": 0.20, "effective_rank": 20.0, "attention_distance": 2.0,
    "ms mae": 100.0, "ms mae/replacement": 300.0, "ms mae/simmim": 250.0, "ms mp3": 80.0, "ms mp3/all_keys": 100.0,
}  # fmt: skip
RANDOM = {
    "linear": 0.30, "knn": 0.25, "quarter": 0.2, "tuned": 0.40, "scenes_miou": 0.50, "loss_uniform": 1.0,
    "loss_green": 1.0, "linear_in_place": 0.30, "linear_shuffled": 0.29, "positions": 0.02, "positions_0": 0.016,
    "positions_4": 0.016, "positions_8": 0.016, "positions_all_keys": 0.02, "effective_rank": 9.0,
    "attention_distance": 4.0,
}  # fmt: skip
BETTER = {"linear": 0.47, "knn": 0.40, "quarter": 0.38, "tuned": 0.60, "scenes_miou": 0.65}
ARMS = {
    "color_mae/color_mae": BETTER, "lut/lut": BETTER, "dmjd/dmjd": BETTER,
    "droppos/droppos": {**BETTER, "linear_in_place": 0.4, "linear_shuffled": 0.30},
    "mp3/patch_alone": {"positions": 0.2},
}  # fmt: skip
#: What each claim falls with: the arm whose figures change.
FALLS = {
    mae.beats_random_weights: ("mae/mae", {"linear": 0.3}),
    mae.fine_tunes_better_than_scratch: ("mae/mae", {"tuned": 0.40}),
    mae.seen_tokens_are_cheap: ("mae/mae", {"ms mae/replacement": 99.0}),
    color_mae.segments_better: ("color_mae/color_mae", {"scenes_miou": 0.60}),
    color_mae.green_is_harder: ("color_mae/color_mae", {"loss_green": 0.50}),
    droppos.tunes_better: ("droppos/droppos", {"tuned": 0.55}),
    droppos.finds_positions: ("droppos/droppos", {"positions_4": 0.03}),
    droppos.knows_where_things_are: ("droppos/droppos", {"linear_shuffled": 0.36}),
    mp3.fine_tunes_without_positions: ("mp3/mp3", {"tuned": 0.40}),
    mp3.places_need_context: ("mp3/patch_alone", {"positions": 0.4}),
    mp3.context_saves_time: ("mp3/mp3", {"ms mp3": 101.0}),
    lut.recognises_more: ("lut/no_context", BETTER),
    lut.tells_the_whole_from_a_quarter: ("mae/mae", {"quarter": 0.38}),
    dmjd.two_views_are_worth_it: ("dmjd/one_view", BETTER),
    dmjd.the_visible_head_helps: ("dmjd/masked_only", BETTER),
}


def finish(root: Path, changed: dict[str, dict[str, float]] | None = None) -> None:
    """Invented runs of every recipe, a little apart between seeds."""
    for slug in METHODS:
        for variant, arm in load_recipe(slug).variants.items():
            name = f"{slug}/{variant}"
            known = {**BASE, **ARMS.get(name, {}), **(changed or {}).get(name, {})}
            for seed in arm.seeds:
                figures = {k: v * (1 + 0.004 * seed) for k, v in known.items()}
                figures |= {f"untrained {k}": v * (1 + 0.002 * seed) for k, v in RANDOM.items()}
                content = {
                    "step": 2000,
                    "seconds": 1.0,
                    "validation": {},
                    "evaluation": {**figures, "million tokens": 4.0},
                }
                write_json(root / slug / variant / str(seed) / "metrics.json", content)


@pytest.fixture
def context(tmp_path, packs) -> ClaimContext:
    finish(tmp_path / "runs")
    return ClaimContext(packs, runs=tmp_path / "runs", limit=30)


@pytest.mark.parametrize("claim", FALLS, ids=lambda claim: claim.text[:30])
def test_claims_follow_the_figures(claim, context):
    held = claim.run(context)
    assert held.holds, held.note
    assert len(held.table) >= 2
    json.dumps(held.table, allow_nan=False)
    name, figures = FALLS[claim]
    finish(context.runs, {name: figures})
    assert not claim.run(context).holds


@pytest.mark.parametrize("slug", METHODS)
def test_a_headline_falls_when_the_method_is_its_untrained_self(slug, context):
    headline = next(c for c in claims_of(system(slug)) if c.headline)
    assert headline.run(context).holds
    untrained = {f"{slug}/{slug}": RANDOM}
    finish(context.runs, untrained)
    assert not headline.run(context).holds


def test_a_bed_on_which_nothing_learns_cannot_tell(context):
    flat = {key: value for key, value in RANDOM.items() if key in ("linear", "knn")}
    finish(context.runs, {"dmjd/dmjd": {**flat, "linear": 0.3005}, "dmjd/one_view": flat})
    assert dmjd.two_views_are_worth_it.run(context).outcome == "test bed too weak"
    assert not ahead([0.3, 0.31, 0.3], [0.3, 0.31, 0.3], [0.3, 0.31, 0.3]).holds


def test_masks_are_what_they_are_said_to_be_and_cost_little(context, monkeypatch):
    monkeypatch.setattr(color_mae, "MASKS", 25_000)
    assert color_mae.masks_have_their_colour.run(context).holds
    monkeypatch.setattr(color_mae, "interleaved", lambda actions, rounds: dict.fromkeys(actions, 0.001))
    assert color_mae.masks_cost_nothing.run(context).holds
    monkeypatch.setattr(color_mae, "interleaved", lambda actions, rounds: dict.fromkeys(actions, 0.01))
    assert not color_mae.masks_cost_nothing.run(context).holds
    monkeypatch.setattr(color_mae, "MASKS", 5_000)
    monkeypatch.setattr(color_mae, "ColorMask", lambda color: build_method("mae", SIZES).mask)
    assert not color_mae.masks_have_their_colour.run(context).holds


def test_identical_patches_bound_what_can_be_placed():
    assert mp3.ceiling(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), 4) == 1 / 64
    assert mp3.ceiling(torch.arange(3072, dtype=torch.int64).view(1, 3, 32, 32), 4) == 1


def test_claims_name_their_runs_and_the_command_that_makes_them(tmp_path, packs):
    with pytest.raises(MissingRunsError, match="vestige learn mae --for-claims"):
        mae.beats_random_weights.run(ClaimContext(packs, runs=tmp_path))
    assert {run[:2] for run in runs_needed(needs_of(system("lut")))} == {
        ("lut", "lut"), ("lut", "no_context"), ("mae", "mae"),
    }  # fmt: skip
    assert needs_of(system("mae")) == [Need("mae")]


def test_every_system_has_claims_and_one_headline():
    counts = {slug: len(claims_of(system(slug))) for slug in METHODS}
    assert counts == {"mae": 3, "color_mae": 4, "droppos": 3, "mp3": 3, "lut": 2, "dmjd": 2}
    assert all(sum(c.headline for c in claims_of(system(slug))) == 1 for slug in METHODS)
