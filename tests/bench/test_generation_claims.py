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

from vestige.bench.generation import runs
from vestige.claims import ClaimContext, claims_of
from vestige.claims.generation import first_hitting, infedit, maskunet, scenes_text2image, umd
from vestige.core.catalogue import System
from vestige.core.errors import InputError
from vestige.data.scenes import CLASSES, STYLES
from vestige.engines import train
from vestige.engines.diffusion.discrete import Drawn
from vestige.engines.diffusion.pipeline import save_pipeline
from vestige.generation.first_hitting import FirstHitting, MarkovModel
from vestige.nn import features
from vestige.nn.features import FeatureNet, save_feature_net

CONTEXT = ClaimContext(None, limit=3)
CACHED = (
    runs._load, runs.trained_words, runs.held_out, scenes_text2image.drawn, maskunet.variant, maskunet._renders,
    infedit.edits, infedit.chosen_settings, infedit.tested, umd.data,
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
        patch.setattr(runs, "EARLY", folder / "pipeline")
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


def test_masks_claims_and_that_the_model_comes_back():
    model = runs.pipeline(runs.EARLY)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    trained = maskunet.masks_match_low_rank_adapters.run(CONTEXT)
    random = maskunet.places_matter.run(CONTEXT)
    assert {"weights", "distance", "held-out loss", "added parameters", "samples"} <= columns(trained)
    assert [row["weights"] for row in random.table] == ["masks", "random masks", "real renders (the floor)"]
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_masks_claims_decide_by_distance(monkeypatch):
    real = maskunet.extract_features(runs.judge(), maskunet._held(CONTEXT, maskunet.REFERENCE).images)

    def with_errors(**errors):
        def fake(name, context):
            return maskunet.Variant(real + errors[name.replace(" ", "_")], 0.0, 10, [0.1])

        monkeypatch.setattr(maskunet, "variant", fake)
        monkeypatch.setattr(runs, "set_distance", lambda a, b: float(np.abs(a - b).mean()))
        claims = (maskunet.trained_masks_help, maskunet.masks_match_low_rank_adapters, maskunet.places_matter)
        return tuple(claim.run(CONTEXT).holds for claim in claims)

    assert with_errors(base=2.0, masks=1.0, low_rank=1.0, random_masks=2.0) == (True, True, True)
    assert with_errors(base=1.04, masks=1.0, low_rank=0.9, random_masks=1.05) == (False, False, False)
    size = sum(p.numel() for p in runs.pipeline(runs.EARLY).parameters())
    monkeypatch.setattr(
        maskunet, "variant", lambda name, context: maskunet.Variant(real + (name == "base"), 0.0, size // 10, [0.1])
    )
    assert not maskunet.trained_masks_help.run(CONTEXT).holds  # too many parameters


def test_random_masks_keep_their_rate_and_adapters_start_at_nothing():
    model = runs.pipeline(runs.EARLY)
    prompts = ["a red ball", "a blue cup"]
    plain = model.sample(prompts, steps=1)
    masked = maskunet.RandomMasks(model, hidden=4, start=0.0).eval()
    try:
        for name, p in masked.generators.named_parameters():
            if "columns" in name:
                torch.nn.init.normal_(p)
        masked.sample(prompts, steps=1)
        random = masked.sparsity()
        tap = next(iter(masked.taps[0].values()))
        assert set(tap.mask.unique().tolist()) <= {0.0, 1.0}
        masked.set_masks = lambda *a: maskunet.MaskUNet.set_masks(masked, *a)
        masked.sample(prompts, steps=1)
        assert masked.sparsity() == pytest.approx(random)
        assert 0 < np.mean(list(random.values())) < 1
    finally:
        masked.remove()
    adapters = maskunet.add_low_rank(model, 5000)
    assert 2500 < maskunet.trainable(adapters) < 7500
    assert torch.equal(model.sample(prompts, steps=1), plain)
    maskunet.remove_low_rank(model)
    assert torch.equal(model.sample(prompts, steps=1), plain)
    assert not any(isinstance(m, maskunet.LowRank) for m in model.modules())


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
    def with_scores(ours, inverted, sdedit):
        table = {"InfEdit": ours, "DDIM inversion": inverted, "SDEdit": sdedit, "drawn anew": (0.9, 10.0, 12)}

        def fake(name, kind, context):
            right, kept, calls = table[name]
            return infedit.Score(np.arange(10) < 10 * right, np.full(10, kept), 10.0, calls, 2.0)

        monkeypatch.setattr(infedit, "tested", fake)
        monkeypatch.setattr(infedit, "chosen_settings", lambda kind, context: {key: {} for key in infedit.METHODS})
        monkeypatch.setattr(infedit, "_references", lambda kind, context: [])
        return infedit.edits_keep_the_background.run(CONTEXT).holds

    assert with_scores((0.9, 25.0, 12), (0.9, 20.0, 40), (0.8, 21.0, 14))
    assert not with_scores((0.7, 25.0, 12), (0.7, 20.0, 40), (0.7, 21.0, 14))
    assert not with_scores((0.9, 25.0, 12), (0.9, 23.0, 40), (0.8, 21.0, 14))
    assert not with_scores((0.9, 25.0, 30), (0.9, 20.0, 40), (0.8, 21.0, 14))
    assert not with_scores((0.8, 25.0, 12), (1.0, 20.0, 40), (0.8, 21.0, 14))


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


def test_umd_claims_run_and_runs_are_kept(packs, monkeypatch):
    monkeypatch.setattr(train, "plot_loss", lambda out: None)  # the plots cost more than these trainings
    monkeypatch.setattr(umd, "LEVELS", (None, 50))
    monkeypatch.setattr(umd, "NETWORK", {**umd.NETWORK, "width": 24, "depth": 1})
    monkeypatch.delitem(umd.SETTINGS, "MaskDiT")
    context = ClaimContext(packs, limit=6)
    probes = umd.features_are_as_good_as_those_of_mae.run(context)
    assert {row["setting"] for row in probes.table} == {"UMD", "MAE", "DiT", "random", "pixels"}
    assert {"accuracy", "lowest", "read at", "pictures encoded"} <= columns(probes)
    samples = umd.samples_are_as_good_as_those_of_dit.run(context)
    assert {"start", "distance", "samples"} <= columns(samples)
    monkeypatch.setattr(runs, "Trainer", None)  # a second run must read what the first one kept
    assert umd.features_are_as_good_as_those_of_mae.run(context).table == probes.table


def test_umd_claims_decide_by_their_figures(packs, monkeypatch):
    context = ClaimContext(packs, limit=6)

    def with_accuracies(ours, mae, dit):
        table = {"UMD": ours, "MAE": mae, "DiT": dit, "MaskDiT": dit, "random": 0.1, "pixels": 0.2}
        monkeypatch.setattr(umd, "probed", lambda s, seed, c: {"accuracy": table[s], "level": None})
        return umd.features_are_as_good_as_those_of_mae.run(context).holds

    assert with_accuracies(0.4, 0.44, 0.36)
    assert not with_accuracies(0.4, 0.46, 0.36)
    assert not with_accuracies(0.4, 0.4, 0.38)


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
