"""Probes and fine-tuning find what is there, and the training job runs, resumes and reports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vestige.core.errors import UsageError
from vestige.data.packs import Pack
from vestige.engines.masked import evaluate
from vestige.engines.masked.job import EpochOrder, masked_job, untrained
from vestige.engines.recipe import RecipeContext
from vestige.engines.train import TrainConfig, Trainer
from vestige.nn.backbone import load_backbone
from vestige.nn.vit import DecoderConfig, ViT, ViTConfig
from vestige.pretraining.mae import MAE

TINY = ViTConfig(image_size=16, width=16, depth=2, heads=2)


def stripes(n: int, seed: int) -> Pack:
    """Horizontal or vertical stripes in noise; mean colours tell nothing."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    wave = np.sin(np.arange(16) * np.pi / 2 + rng.uniform(0, 6, (n, 1)))
    field = np.where(labels[:, None, None] == 0, wave[:, :, None], wave[:, None, :])
    images = np.repeat(128 + 60 * field[:, None] + rng.normal(0, 20, (n, 1, 16, 16)), 3, 1)
    return Pack(images.clip(0, 255).astype(np.uint8), labels, tuple(map(str, range(n))), ("h", "v"))


def blobs(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n,), generator=generator)
    centres = torch.tensor([[3.0, 0, 0], [0, 3, 0], [0, 0, 3]])
    return centres[labels] * 100 + 50 * torch.randn(n, 3, generator=generator) + 1000, labels


def test_probes_separate_what_can_be_separated_and_nothing_else():
    (x, y), (test_x, truth) = blobs(400, 0), blobs(200, 1)
    assert evaluate.knn_accuracy(x, y, test_x, truth) > 0.95
    assert evaluate.linear_probe(x, y, test_x, truth) > 0.95
    shuffled = y[torch.randperm(400, generator=torch.Generator().manual_seed(0))]
    assert evaluate.linear_probe(x, shuffled, test_x, truth) < 0.55
    assert evaluate.knn_accuracy(x, shuffled, test_x, truth) < 0.55
    assert evaluate.knn_accuracy(x, y, x, y, k=1) == 1
    with pytest.raises(UsageError):
        evaluate.knn_accuracy(x, y, test_x, truth, k=0)


def test_the_linear_probe_is_logistic_regression():
    from sklearn.linear_model import LogisticRegression

    (x, y), (test_x, truth) = blobs(150, 2), blobs(300, 3)
    z, test_z = evaluate.standardise(x, test_x)
    weight, bias = evaluate._logistic(z, y, 3, 1e-2, 200)
    # sklearn: sum of losses + |W|²/(2C); ours: mean + decay/2 |W|²
    theirs = LogisticRegression(C=1 / (150 * 1e-2), tol=1e-8, max_iter=1000).fit(z.numpy(), y.numpy())
    np.testing.assert_allclose(weight.numpy(), theirs.coef_, atol=2e-3)
    centred = bias.numpy() - bias.mean().item()
    np.testing.assert_allclose(centred, theirs.intercept_ - theirs.intercept_.mean(), atol=2e-3)
    assert z.mean().abs() < 1e-5
    assert evaluate.linear_probe(x, y, test_x, truth, decays=(1e-2,)) == pytest.approx(
        float((test_z @ weight.T + bias).argmax(1).eq(truth).float().mean()), abs=0.01
    )


def test_features_come_from_evaluation_mode_and_leave_the_mode_alone():
    model = ViT(TINY).train()
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 16, 16), np.uint8)
    features = evaluate.extract(model, images, batch_size=3)
    assert features.shape == (7, 16)
    assert not features.requires_grad
    assert model.training
    torch.testing.assert_close(features, evaluate.extract(model, torch.from_numpy(images).float() / 255))


def test_fine_tuning_learns_and_leaves_the_encoder_alone():
    torch.manual_seed(0)
    encoder = ViT(TINY)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    state = torch.get_rng_state()
    train, test = stripes(256, 0), stripes(100, 1)
    accuracy, model = evaluate.fine_tune(encoder, train, test, epochs=8, batch_size=32, lr=5e-3, mix=0.0, smoothing=0.0)
    assert accuracy > 0.9
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert model(torch.rand(2, 3, 16, 16)).shape == (2, 2)
    again, _ = evaluate.fine_tune(encoder, train, test, epochs=1, batch_size=32)
    assert again == evaluate.fine_tune(encoder, train, test, epochs=1, batch_size=32)[0]


def test_lower_layers_learn_slower_and_vectors_do_not_decay():
    model = evaluate.Classifier(ViT(TINY), 3)
    groups = evaluate.layer_groups(model, 1.0, 0.5, 0.05)
    found = {id(p): g for g in groups for p in g["params"]}
    assert len(found) == sum(1 for _ in model.parameters())
    assert found[id(model.head.weight)]["lr"] == 1
    assert found[id(model.encoder.blocks[1].mlp.fc1.weight)]["lr"] == 0.5
    assert found[id(model.encoder.blocks[0].mlp.fc1.weight)]["lr"] == 0.25
    assert found[id(model.encoder.embed.weight)]["lr"] == 0.125
    assert found[id(model.encoder.class_token)]["weight_decay"] == 0
    assert found[id(model.head.bias)]["weight_decay"] == 0
    assert found[id(model.head.weight)]["weight_decay"] == 0.05


def test_mixed_batches_keep_the_sum_of_labels():
    x, y = torch.rand(6, 3, 16, 16), torch.eye(6)
    for seed in range(8):
        mixed, labels = evaluate.mix_batch(x, y, torch.Generator().manual_seed(seed))
        torch.testing.assert_close(labels.sum(1), torch.ones(6))
        # what is left of each image is the share of its label
        difference = (mixed[0] - x.flip(0)[0]).abs().sum() / (x[0] - x.flip(0)[0]).abs().sum()
        assert abs(difference - labels[0, 0]) < 0.15


def test_rank_and_distance_measure_what_they_say():
    x = torch.randn(500, 8)
    assert 7 < evaluate.effective_rank(x) <= 8
    assert evaluate.effective_rank(x[:, :1].expand(-1, 8)) < 1.01
    model = ViT(ViTConfig(image_size=16, width=16, depth=1, heads=2))
    with torch.no_grad():
        model.blocks[0].attn.qkv.weight.zero_()  # attention becomes even
    distance = evaluate.attention_distance(model, torch.rand(2, 3, 16, 16))
    cells = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0))
    torch.testing.assert_close(distance, torch.cdist(cells, cells).mean().expand(2))


def test_batches_visit_everything_once_an_epoch_whatever_was_asked_before():
    order, generator = EpochOrder(10, 3, seed=1), torch.Generator()
    first = torch.cat([order(i, generator) for i in range(3)])
    assert len(first.unique()) == 9
    jumped = EpochOrder(10, 3, seed=1)(4, generator)
    order(3, generator)
    assert torch.equal(order(4, generator), jumped)
    assert not torch.equal(order(0, generator), order(3, generator))


def test_a_job_trains_reports_and_saves_an_encoder(tmp_path: Path):
    config = TrainConfig(steps=12, batch_size=16, lr=2e-3, validate_every=6, log_every=3)
    context = RecipeContext(None, torch.device("cpu"), 0, config, tmp_path, {})
    torch.manual_seed(0)
    model = MAE(TINY, DecoderConfig(16, 1, 2))
    job = masked_job(
        context, model, stripes(96, 0), validation=stripes(60, 2), evaluate=lambda m: {"width": m.encoder.width}
    )
    result = Trainer(
        job.model, job.step, job.batches, config, out=tmp_path, validate=job.validate, on_step=job.on_step,
        device="cpu", quiet=True,
    ).run()  # fmt: skip
    assert float(model.progress) == 1
    assert 0 <= result.metrics["validation"]["knn"] <= 1
    assert result.metrics["validation"]["error"] > 0
    assert job.evaluate(result.model) == {"width": model.encoder.width}
    job.save(result.model, tmp_path)
    back = load_backbone(tmp_path / "encoder.safetensors")
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(back.features(images), result.model.eval().features(images))
    fresh = untrained(model.encoder, 0)
    assert fresh.config == model.encoder.config
    assert not torch.equal(fresh.embed.weight, model.encoder.embed.weight)
