"""The claims of the generation wing in their trial form, on random weights: what they report, that they can fail."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from vestige.app.verbs import learning
from vestige.bench.generation import runs
from vestige.bench.generation.adapters import LowRank, RandomMasks, add_low_rank, remove_low_rank, trainable
from vestige.claims import ClaimContext, MissingRunsError, claims_of
from vestige.claims.generation import first_hitting, infedit, maskunet, scenes_text2image, umd
from vestige.core.catalogue import System
from vestige.core.errors import InputError
from vestige.core.files import read_json, write_json
from vestige.data.scenes import CLASSES, STYLES
from vestige.engines import train
from vestige.engines.diffusion.discrete import Drawn
from vestige.engines.diffusion.pipeline import load_pipeline, save_pipeline
from vestige.engines.recipe import load_recipe
from vestige.generation.first_hitting import FirstHitting, MarkovModel
from vestige.generation.maskunet import MaskUNet, load_masks
from vestige.generation.umd import load_umd
from vestige.nn import features
from vestige.nn.features import FeatureNet, save_feature_net

CONTEXT = ClaimContext(None, limit=3)
CACHED = (
    runs._load, runs.trained_words, runs.held_out, scenes_text2image.drawn, infedit.edits, infedit.chosen_settings,
    infedit.tested,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def world(tmp_path_factory):
    """A tiny pipeline and an untrained judge in place of the shipped ones."""
    folder = tmp_path_factory.mktemp("world")
    save_feature_net(FeatureNet({"object": len(CLASSES), "style": len(STYLES)}), folder / "judge.safetensors")
    model = runs.random_pipeline(size=32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "DEFAULT_WEIGHTS", folder / "judge.safetensors")
        patch.setattr(runs, "PIPELINE", save_pipeline(folder / "pipeline", model))
        patch.setattr(runs, "RUNS", folder / "runs")
        patch.setattr(runs, "TRAINED_SCENES", 40)
        for cached in CACHED:
            cached.cache_clear()
        yield folder
    for cached in CACHED:
        cached.cache_clear()


class Oracle(torch.nn.Module):
    """A judge that knows the held-out scenes by their pictures."""

    provenance = "oracle"

    def __init__(self, scenes: runs.Scenes) -> None:
        super().__init__()
        self.scenes = scenes

    def classify(self, images):
        at = torch.cdist(images.flatten(1), self.scenes.images.flatten(1)).argmin(1)
        return {
            "object": F.one_hot(self.scenes.object[at], len(CLASSES)).float(),
            "style": F.one_hot(self.scenes.style[at], len(STYLES)).float(),
        }


def columns(evidence) -> set[str]:
    return {key for row in evidence.table for key in row}


@pytest.mark.parametrize(
    ("slug", "count"), [("first_hitting", 4), ("umd", 2), ("maskunet", 3), ("infedit", 3), ("scenes_text2image", 6)]
)
def test_claims_are_found_by_slug(slug, count):
    assert len(claims_of(System(slug, slug, ("generate",), wing="generation"))) == count


def test_missing_weights_are_asked_for(monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "PIPELINE", tmp_path / "none")
    with pytest.raises(InputError, match="scenes_text2image"):
        scenes_text2image.inversion_returns_the_picture.run(CONTEXT)
    monkeypatch.setattr(features, "DEFAULT_WEIGHTS", tmp_path / "none")
    with pytest.raises(InputError, match="judge"):
        runs.judge()


def test_held_out_scenes_are_not_those_of_training():
    source = runs.unseen(5)
    scenes = [next(source) for _ in range(20)]
    assert not {runs.words_of(s) for s in scenes} & runs.trained_words()
    assert {s.objects[0].size for s in scenes} == set(runs.OBJECT_SIZES)


def test_samplers_against_diffusers(monkeypatch):
    every = scenes_text2image._models(CONTEXT)
    assert "shipped" in every
    assert {model.prediction for model in every.values()} == {"v", "eps", "x0"}
    few = {name: every[name] for name in ("shipped", "random, eps, scaled linear")}
    monkeypatch.setattr(scenes_text2image, "_models", lambda context: few)
    good = scenes_text2image.samplers_equal_diffusers.run(CONTEXT)
    assert good.holds
    assert {"network", "sampler", "difference"} <= columns(good)
    plain = scenes_text2image.sample
    del few["shipped"]
    monkeypatch.setattr(scenes_text2image, "sample", lambda *a, **k: plain(*a, **k) * 1.001)
    assert not scenes_text2image.samplers_equal_diffusers.run(CONTEXT).holds


def test_order_of_the_solvers(monkeypatch):
    assert scenes_text2image.solvers_have_their_order.run(CONTEXT).holds
    plain = scenes_text2image.sample
    monkeypatch.setattr(scenes_text2image, "sample", lambda d, x, g, method: plain(d, x, g, "ddim"))
    assert not scenes_text2image.solvers_have_their_order.run(CONTEXT).holds


def test_inversion_claim_sees_how_well_pictures_return(monkeypatch):
    seen = scenes_text2image.inversion_returns_the_picture.run(CONTEXT)
    assert {"steps", "PSNR", "calls", "fixed-point iterations"} <= columns(seen)
    assert [row["calls"] for row in seen.table] == [8, 16, 40]

    def off_by(size):
        monkeypatch.setattr(
            scenes_text2image, "invert", lambda d, x, levels, fixed_point=0: x + size(len(levels), fixed_point)
        )
        monkeypatch.setattr(scenes_text2image, "sample", lambda d, x, levels: x)
        return scenes_text2image.inversion_returns_the_picture.run(CONTEXT).holds

    assert off_by(lambda steps, fixed: 0.1 / steps / (1 + fixed))
    assert not off_by(lambda steps, fixed: 0.1 / steps)
    assert not off_by(lambda steps, fixed: 0.001 * steps / (1 + 9 * fixed))


def test_captions_claim_follows_the_pictures(monkeypatch):
    untrained = scenes_text2image.pictures_show_their_captions.run(CONTEXT)
    assert not untrained.holds
    assert {"pictures", "object", "style", "both", "real", "count"} <= columns(untrained)
    scenes = runs.held_out(3, scenes_text2image.CAPTIONS, 32)
    monkeypatch.setattr(runs, "judge", lambda: Oracle(scenes))
    monkeypatch.setattr(scenes_text2image, "drawn", lambda count, seed: (scenes, scenes.images))
    assert scenes_text2image.pictures_show_their_captions.run(CONTEXT).holds
    monkeypatch.setattr(scenes_text2image, "drawn", lambda count, seed: (scenes, scenes.images.roll(1, 0)))
    assert not scenes_text2image.pictures_show_their_captions.run(CONTEXT).holds


def test_distance_claim_tells_real_from_made(monkeypatch):
    context = ClaimContext(None, limit=12)
    made = scenes_text2image.samples_are_near_the_real.run(context)
    assert not made.holds
    assert next(row["pictures"] for row in made.table) == "model"
    real = runs.held_out(12, scenes_text2image.REFERENCE, 32)
    monkeypatch.setattr(scenes_text2image, "drawn", lambda count, seed: (real, real.images))
    assert scenes_text2image.samples_are_near_the_real.run(context).holds


def test_folders_claim_compares_with_diffusers(monkeypatch):
    good = scenes_text2image.folders_are_those_of_diffusers.run(CONTEXT)
    assert good.holds
    assert {"folder", "difference", "equal bits"} <= columns(good)
    plain = scenes_text2image.load_pipeline

    def broken(folder):
        model = plain(folder)
        with torch.no_grad():
            model.unet.conv_out.bias.add_(0.2)
        return model

    monkeypatch.setattr(scenes_text2image, "load_pipeline", broken)
    assert not scenes_text2image.folders_are_those_of_diffusers.run(CONTEXT).holds


def finish(root, recipe: str, arms: dict[str, tuple[int, dict[str, float]]]) -> None:
    """Invented runs, a little apart between seeds: {variant: (seeds, figures)}."""
    for variant, (seeds, figures) in arms.items():
        for seed in range(seeds):
            each = {k: v * (1 + 0.002 * seed) if isinstance(v, float) else v for k, v in figures.items()}
            write_json(root / recipe / variant / str(seed) / "metrics.json", {"step": 1, "evaluation": each})


MASKS = {
    "distance base": 2.0, "distance masks": 1.8, "distance random masks": 2.1, "distance real": 0.5, "loss base": 0.02,
    "loss masks": 0.019, "loss random masks": 0.021, "zeros masks first": 0.1, "zeros masks last": 0.1,
    "added parameters": 0.04,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "held"),
    [
        ({}, (True, True, True)),
        ({"distance masks": 2.0, "distance base": 1.8}, (False, False, True)),  # the base in the place of the masks
        ({"distance random masks": 1.8}, (True, True, False)),
        ({"added parameters": 0.06}, (False, True, True)),
        ({"zeros masks last": 0.0}, (False, True, False)),  # masks that switch nothing off have shown nothing
    ],
)
def test_masks_claims_decide_by_distance(changed, held, tmp_path):
    figures = {**MASKS, **changed}
    adapters = {"distance low rank": 1.95, "loss low rank": 0.02}
    arms = {
        "early_masks": (3, figures),
        "early_low_rank": (3, adapters),
        "early_slow": (1, figures),
        "masks": (1, figures),
    }
    finish(tmp_path, "maskunet", arms)
    claims = (maskunet.trained_masks_help, maskunet.masks_beat_low_rank_adapters, maskunet.places_matter)
    results = [claim.run(ClaimContext(None, runs=tmp_path)) for claim in claims]
    assert tuple(r.holds for r in results) == held
    assert {"weights", "distance", "loss", "zeros first"} <= columns(results[0])


def test_claims_ask_for_their_runs(tmp_path):
    for claim, slug in ((maskunet.trained_masks_help, "maskunet"), (umd.features_beat_those_of_dit, "umd")):
        with pytest.raises(MissingRunsError, match=f"vestige learn {slug} --for-claims"):
            claim.run(ClaimContext(None, runs=tmp_path))


def test_random_masks_keep_their_rate_and_adapters_start_at_nothing():
    model = runs.pipeline(runs.PIPELINE)
    prompts = ["a red ball", "a blue cup"]
    plain = model.sample(prompts, steps=1)
    masked = RandomMasks(model, hidden=4, start=0.0).eval()
    try:
        for name, p in masked.generators.named_parameters():
            if "columns" in name:
                torch.nn.init.normal_(p)
        masked.sample(prompts, steps=1)
        random = masked.sparsity()
        tap = next(iter(masked.taps[0].values()))
        assert set(tap.mask.unique().tolist()) <= {0.0, 1.0}
        masked.set_masks = lambda *a: MaskUNet.set_masks(masked, *a)
        masked.sample(prompts, steps=1)
        assert masked.sparsity() == pytest.approx(random)
        assert 0 < np.mean(list(random.values())) < 1
    finally:
        masked.remove()
    adapters = add_low_rank(model, 5000)
    assert 2500 < trainable(adapters) < 7500
    assert torch.equal(model.sample(prompts, steps=1), plain)
    remove_low_rank(model)
    assert torch.equal(model.sample(prompts, steps=1), plain)
    assert not any(isinstance(m, LowRank) for m in model.modules())


def test_identity_claim_and_a_broken_editor(monkeypatch):
    good = infedit.equal_prompts_change_nothing.run(CONTEXT)
    assert good.holds
    assert {"method", "latent PSNR", "lowest", "pictures"} <= columns(good)
    plain = infedit.InfEdit.edit
    monkeypatch.setattr(infedit.InfEdit, "edit", lambda *a, **k: plain(*a, **k) + 0.01)
    assert not infedit.equal_prompts_change_nothing.run(CONTEXT).holds


def test_edit_claims_report_all_methods(monkeypatch):
    context = ClaimContext(None, limit=1)
    monkeypatch.setitem(infedit.METHODS, "SDEdit", (infedit.by_sdedit, infedit.STRENGTHS[:2]))
    monkeypatch.setitem(infedit.METHODS, "InfEdit", (infedit.by_infedit, infedit.SETTINGS[:2]))
    found = infedit.edits_keep_the_background.run(context)
    assert not found.holds
    wanted = {"edit", "method", "right", "background PSNR", "PSNR to the true edit", "calls", "setting"}
    assert wanted <= columns(found)
    assert {row["method"] for row in found.table} >= {*infedit.METHODS, "unedited", "the true edit, drawn again"}
    alone = infedit.attention_control_keeps_the_background.run(context)
    assert {row["method"] for row in alone.table} == {"InfEdit", "DDCM alone"}


def test_edits_are_judged_by_the_true_edit():
    work = infedit.edits("colour", 3, 7, 32)
    assert work.right(work.truth).all()
    assert not work.right(work.images).any()
    assert (work.background_psnr(work.truth) > 25).all()
    assert (work.background_psnr(work.images) == 60).all()
    spoiled = work.images + 0.1 * torch.from_numpy(work.background)[:, None]
    assert work.background_psnr(spoiled) == pytest.approx(np.full(3, 20.0), abs=1e-3)
    assert all(a != b for a, b in zip(*work.prompts))
    assert np.isnan(infedit.edits("style", 2, 7, 32).background_psnr(torch.rand(2, 3, 32, 32))).all()


def test_edit_claim_decides_by_accuracy_background_and_calls(monkeypatch):
    def with_scores(ours, inverted, sdedit=(0.8, 21.0, 14)):
        table = {"InfEdit": ours, "DDIM inversion": inverted, "SDEdit": sdedit, "drawn anew": (0.9, 10.0, 12)}

        def fake(name, kind, context):
            right, kept, calls = table[name]
            return infedit.Score(np.arange(40) < 40 * right, kept + np.arange(40) % 3, 10.0, calls, 2.0)

        monkeypatch.setattr(infedit, "tested", fake)
        monkeypatch.setattr(infedit, "chosen_settings", lambda kind, context: {key: {} for key in infedit.METHODS})
        monkeypatch.setattr(infedit, "_references", lambda kind, context: [])
        return infedit.edits_keep_the_background.run(CONTEXT).holds

    assert with_scores((0.9, 25.0, 12), (0.9, 20.0, 40))
    assert with_scores((0.8, 25.0, 12), (1.0, 20.0, 40))  # compared where both are right
    assert not with_scores((0.9, 20.0, 20), (0.9, 20.0, 40))  # ours replaced by the baseline
    assert not with_scores((0.0, 60.0, 12), (0.9, 20.0, 40))  # nothing edited, everything kept
    assert not with_scores((0.5, 25.0, 12), (0.9, 20.0, 40))
    assert not with_scores((0.9, 25.0, 30), (0.9, 20.0, 40))


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    """CIFAR-10 in small: every class a colour."""
    folder = tmp_path_factory.mktemp("packs") / "cifar10"
    folder.mkdir()
    g = np.random.default_rng(0)
    for part, count in (("train", 60), ("test", 20)):
        labels = [i % 10 for i in range(count)]
        items = []
        for i, label in enumerate(labels):
            pixels = np.clip(np.array([25 * label, 250 - 25 * label, 60]) + g.integers(0, 20, (32, 32, 3)), 0, 255)
            buffer = io.BytesIO()
            Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
            items.append({"bytes": buffer.getvalue(), "path": f"{part}-{i}.png"})
        pq.write_table(pa.table({"image": items, "label": labels}), folder / f"{part}.parquet")
    return folder.parent


UMD_FIGURES = {"linear": 0.40, "linear pixels": 0.30, "read at": "clean", "distance": 2.0, "distance real": 0.5}
OTHERS = {
    "dit": {"linear": 0.35}, "mae": {"linear": 0.42, "distance": 2.5}, "maskdit": {"linear": 0.3},
    "random": {"linear": 0.1, "distance": 4.0},
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "held"),
    [
        ({}, (True, True)),
        ({"umd": {"linear": 0.35, "distance": 2.5}}, (False, False)),  # replaced by the baselines
        ({"umd": {"linear": 0.1}, "dit": {"linear": 0.09}}, (False, True)),  # no better than random weights
        ({"mae": {"distance": 1.9}}, (True, False)),
    ],
)
def test_umd_claims_decide_by_probes_and_distances(changed, held, tmp_path):
    arms = {}
    for name, arm in load_recipe("umd").variants.items():
        arms[name] = (len(arm.seeds), {**UMD_FIGURES, **OTHERS.get(name, {}), **changed.get(name, {})})
    finish(tmp_path, "umd", arms)
    claims = (umd.features_beat_those_of_dit, umd.samples_beat_those_of_mae)
    results = [claim.run(ClaimContext(None, runs=tmp_path)) for claim in claims]
    assert tuple(r.holds for r in results) == held
    assert {row["setting"] for row in results[0].table} == {*arms, "pixels"}


def test_the_recipe_of_umd_trains_probes_tunes_and_draws(packs, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "plot_loss", lambda out: None)
    monkeypatch.setenv("VESTIGE_DATA", str(packs))
    quick = ["steps=2", "batch_size=4", "width=24", "depth=1", "tuning=2", "labels=2", "judged=20", "pictures=40"]
    for setting in ("umd", "dit", "random"):
        learning.run("umd", tmp_path / setting, set_=quick, variant=setting, device="cpu", quiet=True)
        figures = read_json(tmp_path / setting / "metrics.json")["evaluation"]
        assert {"linear", "linear pixels", "read at"} <= set(figures)
        model, classes = load_umd(tmp_path / setting / "umd.safetensors")
        assert classes[0] == "airplane"
        assert model.sample(1, labels=torch.tensor([3]), steps=2).shape == (1, 3, 16, 16)


def test_the_recipe_of_masks_trains_measures_and_saves(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "plot_loss", lambda out: None)
    quick = ["steps=2", "batch_size=2", "scenes=4", "samples=4", "sample_steps=2", f"base={runs.PIPELINE}", "hidden=4"]
    learning.run("maskunet", tmp_path / "masks", set_=quick, device="cpu", quiet=True)
    figures = read_json(tmp_path / "masks" / "metrics.json")["evaluation"]
    assert {"distance base", "distance masks", "distance random masks", "zeros masks last", "added parameters"} <= set(
        figures
    )
    model = load_pipeline(runs.PIPELINE)
    masked = load_masks(tmp_path / "masks" / "masks.safetensors", model)
    assert masked.sample(["a red ball"], steps=1).shape[-1] == 32
    other = runs.random_pipeline(size=32, seed=5)
    with pytest.raises(InputError, match="another model"):
        load_masks(tmp_path / "masks" / "masks.safetensors", other)
    learning.run("maskunet", tmp_path / "rank", set_=[*quick, "kind=low_rank"], device="cpu", quiet=True)
    assert "distance low rank" in read_json(tmp_path / "rank" / "metrics.json")["evaluation"]


def test_first_hitting_trials_and_a_sampler_that_is_too_cold(monkeypatch):
    context = ClaimContext(None, limit=40)
    good = first_hitting.samples_have_the_true_law.run(context)
    assert {"language", "sampler", "p-value", "degrees of freedom", "entropy", "calls"} <= columns(good)
    assert min(r["p-value"] for r in good.table if "biased" not in r["sampler"]) > 0.001
    assert first_hitting.parallel_reveal_costs_accuracy.run(context).holds
    plain = FirstHitting.draw

    def cold(self, n, *, seed=0):
        model = self.model
        self.model = lambda x, places: torch.log_softmax(model(x, places) / 0.5, -1)
        drawn = plain(self, n, seed=seed)
        self.model = model
        return drawn

    monkeypatch.setattr(FirstHitting, "draw", cold)
    assert not first_hitting.samples_have_the_true_law.run(context).holds
    assert not first_hitting.parallel_reveal_costs_accuracy.run(context).holds


def test_chain_test_has_its_size_and_power():
    model = MarkovModel(first_hitting.chain(3, 1.0, 0), 12)
    values = []
    for seed in range(40):
        x = first_hitting.chain_sequences(model, 60, 12, torch.Generator().manual_seed(seed))
        value, freedom = first_hitting.chain_test(x, model)
        values.append(value)
    assert freedom == 3 * 2 + 2
    assert 0.3 < np.mean(values) < 0.7
    assert min(values) > 1e-4
    other = MarkovModel(first_hitting.chain(3, 1.0, 1), 12)
    assert first_hitting.chain_test(x, other)[0] < 1e-6


def test_temperature_and_time_trials_report_their_rows(monkeypatch):
    cold = first_hitting.float32_lowers_the_temperature.run(CONTEXT)
    assert {
        "draws",
        "steps",
        "entropy",
        "predicted entropy",
        "p-value, grid",
        "p-value, cut off",
        "p-value, truth",
    } <= columns(cold)
    timed = first_hitting.is_faster.run(CONTEXT)
    assert {"sampler", "length", "seconds", "calls", "expected calls", "times first hitting"} <= columns(timed)
    assert timed.table[0]["calls"] == timed.table[0]["length"]
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(first_hitting.time, "perf_counter", lambda: clock.now)

    def instant(self, n, *, seed=0):
        clock.now += {"first_hitting": 1.0, "ancestral": 3.0}[self.sampler]
        return Drawn(torch.zeros(n, self.length), self.length, 1)

    monkeypatch.setattr(FirstHitting, "draw", instant)
    monkeypatch.setattr(first_hitting, "timed_steps", lambda *a: {"first hitting": 1.0, "ancestral": 9.0})
    assert not first_hitting.is_faster.run(CONTEXT).holds
