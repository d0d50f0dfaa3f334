import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from vestige.core.errors import InputError, UsageError
from vestige.engines.marking.critic import Critic
from vestige.engines.marking.distort import BANKS, DistortionLayer, Draw, apply
from vestige.engines.marking.evaluate import draw_bits, embedded, false_alarm_area, fidelity, local, robustness
from vestige.engines.marking.job import Editing, MarkingPlan, attempt, crops, marking_job, training_pictures
from vestige.engines.marking.masks import KINDS, MaskSampler, box
from vestige.engines.marking.model import BitReading, EmbedderReader, Trial, load_marker, save_marker, straight_clamp
from vestige.engines.marking.residual import add_residual, embed_at_native, read_at_native, stretching
from vestige.engines.marking.stages import Stage, Stages, ramp
from vestige.engines.recipe import RecipeContext
from vestige.engines.train import TrainConfig, Trainer
from vestige.nn.jnd import jnd


class Quadrants(EmbedderReader):
    """Four bits as signs of a known pattern in four quadrants, read by correlation; only a gain to learn."""

    bits, size, localises = 4, 16, True

    def __init__(self, gain: float = 0.08) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(gain))
        self.settings = {"gain": gain}
        waves = torch.arange(16) % 4 < 2
        self.register_buffer("pattern", (waves[:, None] ^ waves[None]).float() * 2 - 1)

    def _planes(self, bits):
        signs = (2 * bits - 1).view(-1, 1, 2, 2)
        return torch.nn.functional.interpolate(signs, (16, 16), mode="nearest") * self.pattern

    def embed(self, images, bits, masks=None):
        return images + self.gain * self._planes(bits)

    def read(self, images, masks=None):
        found = (images.mean(1, keepdim=True) - 0.5) * self.pattern
        presence = (torch.nn.functional.avg_pool2d(found, 4, 4).abs() > 0.02).float()
        presence = torch.nn.functional.interpolate(presence, (16, 16))
        seen = found if masks is None else found * masks
        return BitReading(torch.nn.functional.avg_pool2d(seen, 8).flatten(1), presence)

    def objective(self, trial, level):
        loss = trial.bit_loss(torch.nn.functional.binary_cross_entropy_with_logits, 20 * trial.reading.soft)
        image = (trial.embedded - trial.images).square().mean()
        return {"loss": loss + level("fidelity") * image + 0 * trial.adversarial}


@pytest.fixture
def grey():
    return np.full((6, 3, 16, 16), 128, np.uint8)


# full size ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(16, 16), (50, 31), (200, 333), (9, 7)])
def test_marks_of_one_size_go_on_pictures_of_every_size(height, width):
    model = Quadrants()
    images = torch.full((2, 3, height, width), 0.5)
    bits = torch.tensor([[1.0, 0, 0, 1], [0, 1, 1, 1]])
    marked = embed_at_native(model, images, bits)
    assert marked.shape == images.shape
    if min(height, width) >= 16:
        assert (read_at_native(model, marked).bits == (bits > 0.5)).all()


def test_at_its_own_size_the_mark_is_the_embedders():
    model = Quadrants()
    images, bits = torch.full((1, 3, 16, 16), 0.5), torch.ones(1, 4)
    torch.testing.assert_close(embed_at_native(model, images, bits), model.embed(images, bits))


def test_strips_do_not_show(monkeypatch):
    torch.manual_seed(0)
    images, residual = torch.rand(1, 3, 40, 24), 0.1 * torch.randn(1, 3, 16, 16)
    whole = add_residual(images, residual, limit=1.0)
    monkeypatch.setattr("vestige.engines.marking.residual._STRIP", 7 * 24)
    torch.testing.assert_close(add_residual(images, residual, limit=1.0), whole)


def test_strength_masks_and_limit_hold():
    torch.manual_seed(0)
    images, residual = 0.3 + 0.4 * torch.rand(1, 3, 40, 24), 0.02 * torch.randn(1, 3, 16, 16)
    once, twice = (add_residual(images, residual, strength=s) - images for s in (1.0, 2.0))
    torch.testing.assert_close(twice, 2 * once, atol=1e-6, rtol=1e-4)
    masks = torch.zeros(1, 1, 40, 24, dtype=torch.bool)
    masks[..., :10] = True
    inside = add_residual(images, residual, masks=masks)
    assert torch.equal(inside[..., 10:], images[..., 10:])
    assert not torch.equal(inside[..., :10], images[..., :10])
    bound = 0.5 * jnd(images)
    assert ((add_residual(images, 10 * residual, limit=0.5) - images).abs() <= bound + 1e-6).all()


def test_stretching_is_bicubic_resampling():
    torch.manual_seed(0)
    small = torch.rand(1, 1, 8, 8)
    wanted = torch.nn.functional.interpolate(small, (20, 13), mode="bicubic")
    torch.testing.assert_close(
        stretching(8, 20) @ small[0, 0] @ stretching(8, 13).T, wanted[0, 0], atol=1e-6, rtol=1e-5
    )


def test_shapes_that_do_not_fit_are_refused():
    model = Quadrants()
    with pytest.raises(UsageError, match=r"\(1, 4\)"):
        embed_at_native(model, torch.zeros(1, 3, 16, 16), torch.zeros(1, 5))
    with pytest.raises(UsageError, match="N×3×H×W"):
        read_at_native(model, torch.zeros(1, 1, 16, 16))
    with pytest.raises(UsageError, match="Masks"):
        embed_at_native(model, torch.zeros(1, 3, 16, 16), torch.zeros(1, 4), masks=torch.ones(1, 1, 16, 16))


# distortions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", sorted({d for bank in BANKS.values() for d in bank}, key=str), ids=str)
def test_every_distortion_keeps_size_and_passes_gradients(draw):
    torch.manual_seed(0)
    x = (0.2 + 0.6 * torch.rand(2, 3, 24, 32)).requires_grad_()
    masks = torch.ones(2, 1, 24, 32, dtype=torch.bool)
    y, moved = apply(draw, x, masks, draw.severe, seed=3, cover=torch.zeros(2, 3, 24, 32))
    assert y.shape == x.shape
    assert moved.shape == masks.shape
    assert moved.dtype == torch.bool
    y.sum().backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "strength"), [("flip", 1), ("rotate", 90), ("rotate", 30), ("crop_resize", 0.5), ("perspective", 0.3)]
)
def test_masks_move_with_the_pixels(name, strength):
    masks = torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    masks[..., 4:14, 3:20] = True
    y, moved = apply(Draw(name, strength, strength), masks.float().expand(-1, 3, -1, -1), masks, strength, seed=5)
    seen = y.mean(1, keepdim=True) > 0.5
    assert not torch.equal(moved, masks)
    assert (seen == moved).float().mean() > 0.97


def test_severity_zero_is_the_mild_end():
    generator = np.random.default_rng(0)
    draw = Draw("jpeg", 90, 50)
    assert {draw.strength(generator, 0.0) for _ in range(5)} == {90}
    assert all(50 <= draw.strength(generator, 1.0) <= 90 for _ in range(50))
    signs = {math.copysign(1, Draw("rotate", 10, 90, signed=True).strength(generator, 1)) for _ in range(50)}
    assert signs == {-1, 1}


def test_the_layer_repeats_itself():
    images, masks = torch.rand(2, 3, 16, 16), torch.ones(2, 1, 16, 16, dtype=torch.bool)
    layer = DistortionLayer(BANKS["everyday"], chain=2)
    first, second = (layer(images, masks, np.random.default_rng(7), cover=images) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_banks_refuse_what_does_not_exist():
    with pytest.raises(UsageError, match="wobble"):
        Draw("wobble")
    with pytest.raises(UsageError, match="jpeg"):
        Draw("jpeg", 90, 500)
    with pytest.raises(UsageError, match="bank"):
        DistortionLayer(())


# masks ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_masks_have_their_kind(kind):
    masks = MaskSampler((kind,), invert=0)(8, 32, np.random.default_rng(0))
    assert masks.shape == (8, 1, 32, 32)
    assert masks.dtype == bool
    shares = masks.mean((1, 2, 3))
    assert (shares == 1).all() if kind == "full" else (shares.min() > 0 and shares.max() < 1 and len(set(shares)) > 2)
    inverted = MaskSampler((kind,), invert=1)(8, 32, np.random.default_rng(0))
    assert (inverted == (masks if kind == "full" else ~masks)).all()


def test_given_segments_are_used():
    segment = np.zeros((1, 16, 16), bool)
    segment[:, 4:12, 4:12] = True
    masks = MaskSampler(("segments",), invert=0, segments=segment)(3, 32, np.random.default_rng(0))
    assert (masks.mean((1, 2, 3)) == 0.25).all()
    with pytest.raises(UsageError, match="Kinds"):
        MaskSampler(("stars",))


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 1.0])
def test_boxes_have_the_area_asked_for(share):
    areas = [box(64, share, np.random.default_rng(i)).mean() for i in range(20)]
    assert np.mean(areas) == pytest.approx(share, rel=0.15)


# stages and critic ----------------------------------------------------------------------------------------------------


def test_stages_open_in_order_and_come_back_from_a_checkpoint():
    stages = Stages([Stage("masks", wait=3), Stage("fidelity", accuracy=0.9, ramp=10)], memory=0.5)
    for _ in range(8):
        stages.update(0.6)
    assert stages.level("masks") == 1
    assert stages.level("fidelity") == 0
    assert stages.level("unheard of") == 1
    for _ in range(10):
        stages.update(1.0)
    level = stages.level("fidelity")
    assert 0 < level < 1
    again = Stages(stages.stages, memory=0.5)
    again.load_state_dict(json.loads(json.dumps(stages.state_dict())))
    assert again.level("fidelity") == level
    assert Stages([Stage("late", wait=5, accuracy=2.0, patience=2)]).level("late") == 0
    with pytest.raises(UsageError, match="different"):
        Stages([Stage("a"), Stage("a")])


def test_patience_opens_a_stage_anyway():
    stages = Stages([Stage("late", accuracy=0.99, patience=4)])
    for _ in range(3):
        stages.update(0.0)
    assert stages.level("late") == 0
    for _ in range(2):
        stages.update(0.0)
    assert stages.level("late") == 1


def test_ramp_is_linear_and_constant_outside():
    assert [ramp(s, [(10, 20.0), (20, 0.0)]) for s in (0, 10, 15, 99)] == [20, 20, 10, 0]


@pytest.mark.parametrize("kind", ["wasserstein", "classifier"])
def test_the_critic_moves_the_picture_and_itself_but_not_each_other(kind):
    torch.manual_seed(0)
    critic = Critic(8, kind=kind, lr=1e-2, clip=0.5)
    plain = torch.rand(8, 3, 16, 16)
    marked = (plain + 0.2).requires_grad_()
    critic.embedder_term(marked).backward()
    assert marked.grad.abs().sum() > 0
    assert all(p.grad is None for p in critic.parameters())
    marked.grad = None
    first = critic.learn(plain, marked)
    assert marked.grad is None
    for _ in range(40):
        last = critic.learn(plain, marked)
    assert last < first
    assert critic.score(marked).mean() > critic.score(plain).mean()
    if kind == "wasserstein":
        assert max(float(p.detach().abs().max()) for p in critic.parameters()) <= 0.5


# evaluation and files -------------------------------------------------------------------------------------------------


def test_evaluation_measures_what_a_known_mark_does(grey):
    model = Quadrants()
    rows = {row["distortion"]: row for row in robustness(model, grey, (("identity", 0), ("noise", 2), ("jpeg", 90)))}
    assert rows["identity"]["bit_accuracy"] == 1
    assert rows["jpeg"]["bit_accuracy"] == 1
    assert rows["noise"]["bit_accuracy"] < 1
    assert rows["identity"]["tpr"] == 0  # four bits cannot reach a false-positive rate of 1e-3
    bits = draw_bits(0, len(grey), 4)
    marked = embedded(model, grey, bits)
    np.testing.assert_array_equal(marked, np.round(marked * 255) / np.float32(255))
    assert fidelity(grey, marked)["psnr"] == pytest.approx(-20 * math.log10(20 / 255), abs=0.3)
    (row,) = local(model, grey, (0.25,))
    assert row["psnr"] > row["psnr_inside"] + 4
    assert 0 < row["iou"] <= 1
    assert row["true_mask"] >= row["wrong_mask"]
    assert false_alarm_area(model, grey).max() == 0


def test_weights_come_back_with_their_settings(tmp_path):
    path = tmp_path / "toy.safetensors"
    save_marker(path, Quadrants(0.3), "toy", {"preset": "x"})
    model, facts = load_marker(path, "toy", Quadrants)
    assert float(model.gain) == pytest.approx(0.3)
    assert facts == {"preset": "x"}
    with pytest.raises(InputError, match="'toy', not 'other'"):
        load_marker(path, "other", Quadrants)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match="no weights"):
        load_marker(path, "toy", Quadrants)
    with pytest.raises(InputError, match="vestige learn toy"):
        load_marker(tmp_path / "none.safetensors", "toy", Quadrants)


def test_clamping_keeps_the_gradient_of_saturated_pictures():
    x = torch.tensor([-0.5, 0.5, 1.5], requires_grad=True)
    y = straight_clamp(x)
    assert y.tolist() == [0.0, 0.5, 1.0]
    y.sum().backward()
    assert x.grad.tolist() == [1, 1, 1]


# training -------------------------------------------------------------------------------------------------------------

CONFIG = TrainConfig(steps=8, batch_size=4, lr=1e-2, log_every=1, checkpoint_every=3, warmup=0, weight_decay=0)


def job(out: Path, **plan):
    ctx = RecipeContext(None, torch.device("cpu"), 0, CONFIG, out, {})
    images = np.random.default_rng(0).integers(100, 156, (6, 3, 24, 24), dtype=np.uint8)
    return marking_job(ctx, Quadrants(), images, images[..., :16, :16], MarkingPlan(**plan), slug="toy", facts={"a": 1})


def trainer(made, out, config=CONFIG, **options):
    return Trainer(
        made.model, made.step, made.batches, config, out=out, validate=made.validate, extra=made.extra, device="cpu",
        quiet=True, **options,
    )  # fmt: skip


PLAN = {
    "stages": (Stage("masks", wait=1), Stage("distortions", wait=1, ramp=2), Stage("fidelity", wait=1, ramp=2)),
    "masks": MaskSampler(), "critic": None, "fixed_start": True,
    "layer": DistortionLayer((Draw("noise", 0, 0.1), Draw("flip", 1, 1))),
}  # fmt: skip


def test_a_training_resumes_bit_for_bit(tmp_path):
    plan = {**PLAN, "critic": Critic(8)}
    torch.manual_seed(0)
    plan["critic"] = Critic(8)
    whole = trainer(job(tmp_path / "a", **plan), tmp_path / "a").run()
    torch.manual_seed(0)
    plan["critic"] = Critic(8)
    made = job(tmp_path / "b", **plan)

    def stop(done, model):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer(made, tmp_path / "b", on_step=stop).run()
    plan["critic"] = Critic(8)
    again = trainer(job(tmp_path / "b", **plan), tmp_path / "b").run()
    assert torch.equal(whole.model.gain, again.model.gain)
    lines = [
        [json.loads(line) for line in (tmp_path / side / "log.jsonl").read_text().splitlines()] for side in ("a", "b")
    ]
    for one, other in zip(*lines, strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}
    assert lines[0][-1]["stage"] == 3
    assert "critic" in lines[0][-1]


def test_the_job_evaluates_and_saves(tmp_path):
    made = job(tmp_path, **PLAN)
    figures = made.evaluate(made.model)
    assert {"psnr", "mean", "jpeg 50", "10% of the area: iou", "false alarm area", "a"} <= set(figures)
    made.save(made.model, tmp_path)
    facts = load_marker(tmp_path / "toy.safetensors", "toy", Quadrants)[1]
    assert facts["unmarked"] == 6
    assert len(facts["alarm_areas"]) == 6


def test_crops_are_those_of_the_batch():
    source = torch.arange(2 * 3 * 8 * 8, dtype=torch.uint8).view(2, 3, 8, 8)
    batch = {"ids": [1, 0], "tops": [2, 0], "lefts": [3, 4], "flips": [0.9, 0.1], "side": 4}
    images = crops(source, batch, 4)
    assert torch.equal(images[0] * 255, source[1, :, 2:6, 3:7].float())
    assert torch.equal(images[1] * 255, source[0, :, :4, 4:].flip(2).float())
    assert crops(source, batch, 2).shape == (2, 3, 2, 2)


def test_edited_batches_teach_the_embedder_only_when_asked_to():
    model, stages = Quadrants(), Stages([])
    images = torch.full((2, 3, 16, 16), 0.5)
    batch = {"bits": torch.ones(2, 4), "masks": torch.ones(2, 1, 16, 16, dtype=torch.bool), "seed": 1}
    for straight in (False, True):
        editing = Editing(lambda x, generator: 0.9 * x, share=1.0, straight=straight)
        trial = attempt(model, images, batch, MarkingPlan(editing=editing), stages, torch.Generator())
        torch.testing.assert_close(trial.attacked, 0.9 * trial.embedded)
        assert trial.attacked.requires_grad == straight


def test_pictures_where_nothing_is_left_marked_do_not_count():
    moved = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    moved[0] = True
    soft = torch.tensor([[5.0] * 4, [-5.0] * 4])
    empty = torch.zeros(2, 3, 16, 16)
    trial = Trial(empty, torch.ones(2, 4), moved, empty, empty, moved, BitReading(soft), torch.zeros(()))
    assert float(trial.accuracy()) == 1
    assert float(trial.bit_loss(torch.nn.functional.mse_loss, soft)) == 16


def test_pictures_smaller_than_the_mark_are_refused(tmp_path):
    ctx = RecipeContext(None, torch.device("cpu"), 0, CONFIG, tmp_path, {})
    small = np.zeros((2, 3, 12, 12), np.uint8)
    with pytest.raises(UsageError, match="16"):
        marking_job(ctx, Quadrants(), small, small, MarkingPlan(), slug="toy")


def test_scenes_stand_in_for_missing_photographs(monkeypatch, tmp_path):
    monkeypatch.delenv("VESTIGE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    train, test = training_pictures(32, limit=8)
    assert train.shape == (8, 3, 64, 64)
    assert test.shape == (16, 3, 32, 32)
