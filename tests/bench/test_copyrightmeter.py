"""CopyrightMeter: its protections and attacks on a tiny random generator, its cells, scores and claims."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vestige.bench.copyrightmeter import marks, obfuscation, protocol, recovery, sanitisation
from vestige.bench.copyrightmeter.page import write_page
from vestige.bench.copyrightmeter.ranking import (
    best,
    changes_with_weights,
    protections,
    ranked,
    summary,
    weakest,
)
from vestige.bench.copyrightmeter.world import Settings, generator_model
from vestige.bench.generation import runs
from vestige.bench.watermark import small_marks
from vestige.claims import ClaimContext
from vestige.claims.watermark import copyrightmeter as claims
from vestige.core.errors import UsageError
from vestige.data.scenes import CLASSES, STYLES
from vestige.engines.diffusion.pipeline import save_pipeline
from vestige.engines.diffusion.samplers import Denoiser
from vestige.nn import features
from vestige.nn.features import FeatureNet, save_feature_net
from vestige.watermark.copyrightmeter import CopyrightMeter, purify
from vestige.watermark.copyrightmeter.imitation import mimic
from vestige.watermark.copyrightmeter.scores import efficacy, over_seeds, ratio

SMALL = Settings.trial(3)


class Matched(small_marks.SmallMark):
    """Its detector without the covariance of 2000 renders, which takes seconds: the carriers themselves."""

    def __post_init__(self) -> None:
        basis = np.linalg.qr(np.random.default_rng(self.seed).standard_normal((3072, small_marks.BITS)))[0].T
        self.carriers = (basis * 0.15).astype(np.float32)
        self._mean, self.weights = np.full(3072, 0.5), self.carriers.T.astype(np.float64)


@pytest.fixture(scope="module", autouse=True)
def world(tmp_path_factory):
    """A tiny pipeline and an untrained judge in place of the shipped ones, and noise in place of 2000 renders."""
    folder = tmp_path_factory.mktemp("world")
    save_feature_net(FeatureNet({"object": len(CLASSES), "style": len(STYLES)}), folder / "judge.safetensors")
    drawn = torch.rand((2000, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    pictures = torch.nn.functional.interpolate(drawn, (32, 32), mode="bilinear").numpy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "DEFAULT_WEIGHTS", folder / "judge.safetensors")
        patch.setattr(runs, "PIPELINE", save_pipeline(folder / "pipeline", runs.random_pipeline(size=32)))
        patch.setattr(runs, "RUNS", folder / "runs")
        patch.setattr(marks, "SmallMark", lambda kind, seed: Matched(kind, seed))
        patch.setattr(marks, "renders", lambda count, seed: (pictures[:count], (), ()))
        everything = (runs._load,)
        for cached in everything:
            cached.cache_clear()
        protocol.forget()
        yield folder
        for cached in everything:
            cached.cache_clear()
        protocol.forget()


def some_pictures(count: int = 3) -> torch.Tensor:
    drawn = torch.rand((count, 3, 8, 8), generator=torch.Generator().manual_seed(1))
    return (torch.nn.functional.interpolate(drawn, (32, 32), mode="bilinear") * 255).round() / 255


def test_every_attack_on_pictures_keeps_shape_and_eight_bits():
    images = some_pictures()
    for name in purify.PURIFIERS:
        made = purify.purified(name, images, 0, generator_model())
        assert made.shape == images.shape, name
        assert float((made * 255 - (made * 255).round()).abs().max()) < 1e-3, name
        assert torch.equal(made, purify.purified(name, images, 0, generator_model())), name
        assert torch.equal(made, images) == (name == "identity"), name
    with pytest.raises(UsageError, match="JPEG 75"):
        purify.purified("jpeg", images, 0, generator_model())


def test_palette_and_total_variation_do_what_they_say():
    images = some_pictures()
    assert len(purify.palette(images, 8)[0].flatten(1).T.unique(dim=0)) <= 8
    noisy = (images + 0.2 * torch.randn(images.shape, generator=torch.Generator().manual_seed(2))).clamp(0, 1)

    def variation(x):
        return float(x.diff(dim=2).abs().mean() + x.diff(dim=3).abs().mean())

    assert variation(purify.total_variation(noisy, 0)) < 0.5 * variation(noisy)


def test_consistent_pictures_stay_within_the_budget():
    images = some_pictures()
    made = purify.consistent(images, 0, generator_model(), budget=8 / 255)
    assert 0 < float((made - images).abs().max()) <= 8 / 255 + 1e-5


def test_cloaks_stay_within_the_budget_and_mimics_leave_the_generator_alone():
    art = obfuscation.gallery(3, 0, 0)
    for name in ("random noise", "AdvDM", "Mist"):
        change = obfuscation.cloak(name, art, SMALL, 0) - art.images
        assert 1e-3 < float(change.abs().max()) <= 16 / 255 + 1e-6, name
    pulled = obfuscation.cloak("Mist", art, Settings.trial(3), 0)
    target = obfuscation.texture(obfuscation.PERIODS[0])
    assert float((pulled - target).square().mean()) < float((art.images - target).square().mean())
    before = {k: v.clone() for k, v in generator_model().state_dict().items()}
    model = mimic(generator_model(), art.images, art.context, updates=1, batch=2, seed=0)
    assert all(torch.equal(before[k], v) for k, v in generator_model().state_dict().items())
    assert any(not torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_a_texture_is_chosen_that_the_attack_leaves(monkeypatch):
    art = obfuscation.gallery(2, 0, 0)

    def coarse(images, seed, model):
        return torch.nn.functional.avg_pool2d(images, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)

    monkeypatch.setitem(purify.PURIFIERS, "half", coarse)
    assert obfuscation._lasting_period("half", art, SMALL, 0) > 4


def test_uce_maps_the_concept_to_its_anchor_and_keeps_the_others():
    model = runs.random_pipeline(size=32, seed=3)
    word = next(c for c in CLASSES if c not in ("ball", "cube") and " " not in c)
    prompts = [f"a large red {word} on sand", f"a large {word}"]
    kept = ["a large blue ball on grass", "a large green ball in neon style on snow"]
    name, layer = next(iter(sanitisation.cross_attention(model).items()))
    assert "attn2" in name
    with torch.no_grad():
        erased, anchors, others = (model.embed(p) for p in (prompts, sanitisation.swapped(prompts, word, "ball"), kept))
        before = [layer(x) for x in (erased, anchors, others)]
        sanitisation.uce(model, erased, anchors, others, ridge=1e-3)
        after = [layer(x) for x in (erased, anchors, others)]
    assert float((after[0] - before[1]).norm()) < 0.5 * float((before[0] - before[1]).norm())
    assert float((after[2] - before[2]).norm()) < 0.1 * float(before[2].norm())


def test_whole_words_are_swapped():
    assert sanitisation.swapped(["a car in cartoon style"], "car", "ball") == ["a ball in cartoon style"]


def test_safe_guidance_without_a_concept_is_plain_guidance_and_moves_away_from_one():
    model = generator_model()
    context, null, safety = (model.embed(p).detach() for p in ("a red ball", "", "a blue cube"))
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain = Denoiser(model.network, model.table, model.prediction, context, null, guidance=3.0)
    with torch.no_grad():
        wanted = plain.output(x, 500)
        nothing = sanitisation.SafeDenoiser(plain, null, warmup=0).output(x, 500)
        steered = sanitisation.SafeDenoiser(plain, safety, warmup=0).output(x, 500)
        warming = sanitisation.SafeDenoiser(plain, safety, warmup=1).output(x, 500)
    torch.testing.assert_close(nothing, wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(warming, wanted, atol=1e-5, rtol=1e-4)
    assert float((steered - wanted).abs().max()) > 1e-4


def test_the_attackers_word_changes_only_prompts_that_name_it():
    model = generator_model()
    word = torch.ones(model.text_encoder.get_input_embeddings().weight.shape[1], requires_grad=True)
    named, plain = "a large anon on sand", "a large ball on sand"
    spoken = recovery.context_of(model, [named, plain], word)
    torch.testing.assert_close(spoken[1], model.embed(plain)[0])
    assert not torch.allclose(spoken[0], model.embed(named)[0])
    spoken.sum().backward()
    assert float(word.grad.abs().sum()) > 0


@pytest.mark.parametrize("protection", ["SLD", "none"])
def test_inversion_and_adapters_train_copies(protection):
    service = sanitisation.sanitised(protection, 0, SMALL)
    before = {k: v.clone() for k, v in service.model.state_dict().items()}
    images = some_pictures(2)
    prompts = ["a large anon on sand", "a red anon on grass"]
    words = [recovery.inversion(service, images, prompts, SMALL, 0, through=t) for t in (False, True)]
    assert not torch.equal(*words)
    assert not words[0].requires_grad
    attacked = recovery.lora(service.model, images, prompts, SMALL, 0)
    assert all(torch.equal(before[k], v) for k, v in service.model.state_dict().items())
    adapters = {k: v for k, v in attacked.unet.state_dict().items() if k.endswith(".up")}
    assert len(adapters) == len(sanitisation.cross_attention(service.model))
    assert all(float(v.abs().max()) > 0 for v in adapters.values())


@pytest.mark.parametrize("mark", marks.NOISE_MARKS.values(), ids=marks.NOISE_MARKS)
def test_marks_of_noise_are_found_with_their_key_alone(mark):
    noise = np.random.default_rng(0).standard_normal((8, 3, 32, 32))
    keys = np.arange(8)
    marked = mark.stamp(noise, keys)
    assert marked.shape == noise.shape
    assert 0.9 < marked.std() < 1.15
    read = 0.5 * marked + np.random.default_rng(1).standard_normal(noise.shape)
    assert mark.scores(read, keys).min() > mark.scores(noise, keys).max()
    assert mark.scores(read, keys).mean() > mark.scores(read, keys + 100).mean() + 0.08
    accuracy = mark.accuracy(read, keys)
    assert accuracy is None or (accuracy > 0.95 and mark.accuracy(read, keys + 100) < 0.75)


def test_gaussian_shading_keeps_the_sizes_of_the_noise():
    noise = np.random.default_rng(0).standard_normal((2, 3, 32, 32))
    np.testing.assert_allclose(np.abs(marks.GaussianShading().stamp(noise, np.arange(2))), np.abs(noise))


def test_a_reader_trained_on_an_attack_withstands_it():
    plain, upgraded = marks.SpreadSpectrum(0), marks.SpreadSpectrum(0, "rotation 10", training=1500)
    images = marks.renders(2000, 0)[0][1500:]
    bits = marks.SpreadSpectrum.bits(np.arange(len(images)))
    taken = purify.purified(
        "rotation 10", torch.from_numpy(plain.mark.mark(images, bits)), 0, generator_model()
    ).numpy()
    assert upgraded.mark.accuracy(taken, bits) > plain.mark.accuracy(taken, bits) + 0.1


def test_the_grid_holds_two_protections_of_each_family_under_every_attack():
    listed = protocol.cells((0, 1))
    assert len(listed) == len(set(listed))
    for family, module in protocol.FAMILIES.items():
        own = [c for c in listed if c.family == family and c.seed == 0]
        assert len(module.PROTECTIONS) >= 2
        others = len(module.BASELINES) - 1
        assert len(own) == (len(module.PROTECTIONS) + 1) * len(module.ATTACKS) + others
        assert {c.attack for c in own if c.protection == "none"} == set(module.ATTACKS)
    with pytest.raises(UsageError, match="at least 1"):
        Settings(pictures=1)


def made_up(spread: float = 0.01, **changes: float) -> list[dict]:
    """Records of two protections in one family: A loses all to "hard", B keeps most; "ruin" destroys the picture, with
    nothing protected too."""
    raw = {
        "A": 1.0, "A hard": 0.1, "A ruin": 0.5, "B": 0.8, "B hard": 0.7, "B ruin": 0.5,
        "none": 0.0, "none hard": 0.0, "none ruin": 0.5,
    } | changes  # fmt: skip
    found = []
    for seed in range(4):
        for name, value in raw.items():
            protection, _, attack = name.partition(" ")
            found.append(
                {
                    "family": "watermark", "protection": protection, "attack": attack or "identity", "seed": seed,
                    "against": "", "raw": value + spread * (seed % 2) * (protection != "none"), "full": 1.0,
                    "fidelity": 0.9 if protection == "A" else 0.8, "damage": 0.9 * (attack == "ruin"), "seconds": 1.0,
                }
            )  # fmt: skip
    return found


def test_scores_are_ratios_with_intervals():
    assert over_seeds([1.0, 2.0, 3.0]).value == 2.0
    assert over_seeds([1.0, 2.0, 3.0]).high == pytest.approx(2 + 4.302653 / 3**0.5)
    assert ratio([0.2, 0.4], [0.4, 0.8]) == pytest.approx((0.5, 0.5, 0.5))
    assert ratio([0.2, 0.4], [0.0, 0.0]).value == 0.0
    assert ratio([0.9, 0.9], [0.5, 0.5]).value == 1.0
    assert efficacy(3.0, 1.0, 1.0, 5.0) == 0.5
    assert efficacy(0.2, 0.8, 0.8, 0.0) == pytest.approx(0.75)
    assert efficacy(0.2, 0.5, 0.5, 0.5) == 0.0
    assert efficacy(0.2, 0.8, 0.5, 0.5) == 0.0
    # An attack after which nobody can imitate anything has protected nobody.
    assert efficacy(9.0, 9.0, 1.0, 5.0) == 0.0
    with pytest.raises(UsageError, match="2 seeds"):
        over_seeds([1.0])


def test_summary_protections_and_ranks():
    rows = summary(made_up())
    table = {(r["protection"], r["attack"]): r for r in rows}
    assert table["A", "hard"]["resilience"] == pytest.approx(0.1, abs=0.02)
    assert table["A", "hard"]["lost low"] > 0 > table["B", "hard"]["lost high"]
    assert table["A", "ruin"]["efficacy"] == pytest.approx(0, abs=0.02)  # the damage is not protection
    assert "resilience" not in table["A", "identity"]
    found = weakest([r for r in rows if r["protection"] == "B"])
    assert found is not None
    assert found["attack"] == "hard"  # "ruin" is beyond the damage that counts
    listed = protections(rows)
    assert [p["protection"] for p in listed] == ["A", "B"]
    assert [p["broken"] for p in listed] == [True, False]
    assert ranked(listed, (1, 0, 0))[0] == ("A", 1.0)
    assert ranked(listed, (0, 0, 1))[0] == ("B", 1.0)
    with pytest.raises(UsageError, match="sum to 1"):
        ranked(listed, (1, 1, 1))
    with pytest.raises(UsageError, match="lacks the cell"):
        summary([r for r in made_up() if r["protection"] != "none"])
    with pytest.raises(UsageError, match="lacks the cell"):
        summary([r for r in made_up() if (r["protection"], r["attack"]) != ("none", "hard")])


def test_a_protection_within_chance_of_nothing_is_not_effective():
    idle = {p["protection"]: p for p in protections(summary(made_up(spread=0.5, **{"B": 0.05, "B hard": 0.05})))}
    assert not idle["B"]["effective"]
    assert not idle["B"]["broken"]
    assert idle["B"]["resilience"] == 0.0
    assert idle["A"]["effective"]


def test_the_best_of_a_family_depends_on_the_weights():
    assert set(best(protections(summary(made_up())))["watermark"].values()) == {"A", "B"}
    assert changes_with_weights(made_up(), draws=20) == 1.0
    # One protection that is better in everything.
    same = made_up(**{"A": 1.0, "A hard": 0.95, "B": 0.5, "B hard": 0.1})
    assert changes_with_weights(same, draws=20) == 0.0


def test_the_page_holds_tables_and_plot(tmp_path):
    page = write_page(summary(made_up()), tmp_path)
    text = page.read_text()
    assert "| B | hard |" in text
    assert "rank, resilience first" in text
    assert (tmp_path / "copyrightmeter.png").read_bytes()[:4] == b"\x89PNG"


def test_claims_follow_the_records(monkeypatch):
    context = ClaimContext(None)
    monkeypatch.setattr(protocol, "FAMILIES", {"watermark": marks})

    def with_records(found, again=()):
        monkeypatch.setattr(claims, "_audit", lambda context: (list(found), list(again)))

    with_records(made_up())
    assert claims.few_resilient(protections(summary(made_up())))
    assert claims.few_protections_are_resilient.run(context).outcome == "test bed too weak"  # two protections alone
    assert claims.the_best_depends_on_the_weights.run(context).holds
    assert not claims.few_resilient(protections(summary(made_up(**{"A hard": 0.9}))))
    # Damage that comes to nothing protected as well is no protection.
    nothing = made_up(**{"A": 0.0, "A hard": 0.6, "B": 0.0, "B hard": 0.6, "none hard": 0.6})
    assert not claims.few_resilient(protections(summary(nothing)))
    with_records(made_up(**{"B": -0.1, "B hard": -0.1}))
    assert not claims.the_best_depends_on_the_weights.run(context).holds
    again = [{**r, "against": "hard"} for r in made_up() if r["protection"] != "none"]
    for gain, holds in ((0.3, True), (0.0, False)):
        better = [{**r, "raw": r["raw"] + gain * (r["attack"] == "hard")} for r in again]
        with_records(made_up(), better)
        assert claims.upgrades_raise_resilience.run(context).holds is holds


def test_the_audit_runs_through_on_a_small_grid_and_keeps_its_cells():
    kept: dict[str, dict] = {}

    def keep(name, compute):
        if name not in kept:
            kept[name] = compute()
        return kept[name]

    found, again = protocol.audit((0, 1), Settings.trial(2), keep, attacks=2)
    shown = {(r["protection"], r["attack"]) for r in found}
    assert {
        ("Mist", "JPEG 75"), ("ESD", "textual inversion"), ("Tree-Ring", "JPEG 75"), ("none", "JPEG 75"),
        ("none", "textual inversion"), ("random noise", "identity"),
    } <= shown  # fmt: skip
    assert len(protections(summary(found))) == 9
    computed = len(kept)
    assert protocol.audit((0, 1), Settings.trial(2), keep, attacks=2) == (found, again)
    assert len(kept) == computed == len(found) + len(again)


def test_a_cloak_of_a_users_pictures_is_audited():
    pictures = some_pictures(4)
    meter = CopyrightMeter(
        generator_model(), lambda x: x.flatten(1).numpy(), seeds=(0, 1), updates=1, batch=2, pictures=3, steps=2,
        attacks=("JPEG 75",),
    )  # fmt: skip
    rows = meter.measure(pictures, pictures)
    assert [r["attack"] for r in rows] == ["identity", "JPEG 75"]
    assert all(r["efficacy"] == 0 for r in rows)  # nothing was changed
    assert all(np.isfinite(list(v for v in r.values() if not isinstance(v, str))).all() for r in rows)
    with pytest.raises(UsageError, match="one shape"):
        meter.measure(pictures, pictures[:2])
