"""Judgements of the claims about people, pictures with words, removal, proofs and contexts, with planted failures."""

from __future__ import annotations

from vestige.claims import claims_of
from vestige.claims.unlearning import fiubench, forgetme, mufac, unlok_vqa, ununlearning, zk_apex
from vestige.core.catalogue import system

SLUGS = ("mufac", "fiubench", "unlok_vqa", "forgetme", "zk_apex", "ununlearning")


def test_every_system_has_one_headline_and_at_most_four_claims():
    for slug in SLUGS:
        found = claims_of(system(slug))
        assert [c.headline for c in found].count(True) == 1
        assert found[0].headline
        assert len(found) <= 4


def people(**changes: dict[str, float]) -> list[list[dict[str, object]]]:
    """Three partings in which Advanced NegGrad forgets those who asked."""
    rows = {
        "original": {"NoMUS": 0.55, "M": 0.2, "loss gap": 0.5},
        "retrain": {"NoMUS": 0.7, "M": 0.02, "loss gap": 0.0},
        "untrained": {"NoMUS": 0.5, "M": 0.02, "loss gap": 0.0},
        "stopped early": {"NoMUS": 0.65, "M": 0.05, "loss gap": 0.1},
        "FT": {"NoMUS": 0.58, "M": 0.18, "loss gap": 0.4},
        "Advanced NegGrad": {"NoMUS": 0.66, "M": 0.05, "loss gap": 0.1},
        "Advanced NegGrad, other people": {"NoMUS": 0.57, "M": 0.19, "loss gap": 0.4},
    }
    rows = {name: {**row, **changes.get(name, {})} for name, row in rows.items()}
    return [[{"model": n, **{k: v + 0.002 * seed for k, v in r.items()}} for n, r in rows.items()] for seed in range(3)]


def test_forgetting_people_must_pay_and_be_about_those_who_asked():
    assert mufac.forgetting_pays(people()).holds
    baseline = {"Advanced NegGrad": {"NoMUS": 0.58, "M": 0.18}}
    assert not mufac.forgetting_pays(people(**baseline)).holds
    general = {"Advanced NegGrad, other people": {"M": 0.05}}
    assert not mufac.forgetting_pays(people(**general)).holds
    assert mufac.has_signal(people(), [0.03, 0.02, 0.03]).outcome == "shown"
    assert mufac.has_signal(people(), [0.3, 0.2, 0.2]).outcome == "test bed too weak"
    assert mufac.stopping_is_no_forgetting(people()).holds
    assert not mufac.stopping_is_no_forgetting(people(**{"stopped early": {"NoMUS": 0.5}})).holds


def facts(**changes: dict[str, float]) -> list[list[dict[str, object]]]:
    rows = {
        "original": {"EM": 0.95, "EM swapped": 0.05, "APE": 0.97, "Min-K": 0.98, "utility": 0.9},
        "reference": {"EM": 0.02, "EM swapped": 0.02, "APE": 0.05, "Min-K": 0.5, "utility": 0.9},
        **{m: {"EM": 0.1, "EM swapped": 0.02, "APE": 0.15, "Min-K": 0.55, "utility": 0.6} for m in ("ga", "gd", "kl")},
        "po": {"EM": 0.05, "EM swapped": 0.02, "APE": 0.5, "Min-K": 0.9, "utility": 0.85},
    }
    rows = {name: {**row, **changes.get(name, {})} for name, row in rows.items()}
    return [[{"model": n, **{k: v + 0.002 * seed for k, v in r.items()}} for n, r in rows.items()] for seed in range(3)]


def test_refusals_hide_only_when_more_is_found_than_in_a_model_never_told():
    assert fiubench.refusals_hide(facts()).holds
    assert not fiubench.refusals_hide(facts(po={"APE": 0.05, "Min-K": 0.5})).holds
    assert not fiubench.refusals_hide(facts(po={"utility": 0.6})).holds
    assert fiubench.rewording_extracts(facts()).holds
    assert not fiubench.rewording_extracts(facts(po={"APE": 0.05})).holds
    blind = [{"model": "original", "EM": 0.03}]
    assert fiubench.tied_to_pictures(facts(), blind, blind, 0.03).holds
    assert not fiubench.tied_to_pictures(facts(reference={"EM": 0.9}), blind, blind, 0.03).holds


def deleted(inside: float, pool: float, defended: float) -> dict[str, list[dict[str, object]]]:
    """Thirty facts; shares as runs of ones."""

    def rows(value: float) -> list[dict[str, object]]:
        made = []
        for i in range(30):
            hit = float(i < 30 * value)
            attacks = {a: hit for a in ("head_projection", "pd2", "probability_delta", "question", "image")}
            pools = {f"{a} pool": pool for a in ("head_projection", "pd2")}
            made.append({"thing": i, "met": True, "specificity": 0.0, "multimodal": hit, **attacks, **pools})
        return made

    return {"fact_erasure": rows(inside), "head_projection": rows(defended), "max_entropy": rows(defended)}


def test_reading_inside_is_held_against_codes_of_other_facts():
    assert unlok_vqa.read_inside(deleted(0.5, 0.1, 0.1)).holds
    assert not unlok_vqa.read_inside(deleted(0.1, 0.15, 0.1)).holds
    assert unlok_vqa.read_inside({"fact_erasure": []}).outcome == "cannot be shown at this size"
    assert unlok_vqa.defended(deleted(0.6, 0.1, 0.1)).holds
    assert not unlok_vqa.defended(deleted(0.6, 0.1, 0.6)).holds
    assert not unlok_vqa.strongest(deleted(0.6, 0.1, 0.1)).holds


def test_a_removal_must_be_nearer_to_the_truth_than_the_mean_colour():
    rows = [
        {"size": 64, "removal": name, "dB": [base + i % 3 for i in range(30)]}
        for name, base in (("telea", 22.0), ("mean colour", 19.0), ("telea, mask as given", 20.0))
    ]
    over, refining = forgetme.nearer(rows, "telea")
    assert over.low > 0 < refining.low
    assert forgetme.nearer(rows, "mean colour")[1].high < 0


def lora(end: float, others: float = 0.95) -> list[list[dict[str, float]]]:
    """Three runs of four checkpoints whose target ends at ``end``."""
    shares = (0.0, 0.3, 0.7, 1.0)
    return [
        [
            {"target in samples": 1 + s * (end - 1) + 0.001 * seed, "others in samples": 1 + s * (others - 1),
             "target in edits": 1 - 0.8 * s, "corrected D": 0.3 + 0.4 * s, "S": 0.5, "released D": 0.5 - 0.1 * s}
            for s in shares
        ]
        for seed in range(3)
    ]  # fmt: skip


def test_forgetting_a_word_needs_emptied_pictures():
    assert forgetme.forgets(lora(0.1), lora(0.95)).holds
    assert not forgetme.forgets(lora(0.1), lora(0.1)).holds
    assert not forgetme.forgets(lora(0.1, others=0.5), lora(0.95)).holds
    assert forgetme.agrees(lora(0.1), lora(0.95)).holds


def client(ours: float, forget: float = 0.2, random: float = 0.8) -> list[dict[str, object]]:
    made = []
    for seed in range(3):
        rows = [
            {"model": name, "personal": p + 0.002 * seed, "forget": f + 0.001 * seed}
            for name, p, f in (
                ("original (personalised)", 0.8, 0.9), ("mask only", 0.6, 0.2), ("ZK-APEX", ours, forget),
                ("random mask, made up for", 0.78, random),
            )
        ]  # fmt: skip
        hits = {"mask only": [1] * 60 + [0] * 40, "ZK-APEX": [1] * round(100 * ours) + [0] * round(100 - 100 * ours)}
        made.append({"rows": rows, "hits": hits, "growth": 1.0})
    return made


def test_compensation_must_help_and_must_not_bring_the_class_back():
    assert zk_apex.recovers(client(0.75)).holds
    assert not zk_apex.recovers(client(0.6)).holds
    assert not zk_apex.recovers(client(0.75, forget=0.85)).holds
    assert not zk_apex.recovers(client(0.75, random=0.2)).holds


def curves(zero: float, four: float) -> list[dict[str, float]]:
    by_k = {0: zero, 1: (zero + four) / 2, 2: 0.3 * zero + 0.7 * four, 4: four, 8: four}
    return [{**{f"acc({k})": v + 0.002 * s for k, v in by_k.items()}, "novel(4)": four} for s in range(3)]


def test_context_must_bring_back_more_than_the_control():
    original, blind = curves(0.95, 0.95), curves(0.0, 0.05)
    assert ununlearning.brought_back(original, curves(0.0, 0.85), blind, {}).holds
    assert not ununlearning.brought_back(original, blind, blind, {}).holds
    assert not ununlearning.brought_back(original, curves(0.8, 0.85), blind, {}).holds
    assert ununlearning.control_stays(original, blind).holds
    assert not ununlearning.control_stays(original, curves(0.0, 0.85)).holds
