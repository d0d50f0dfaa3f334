"""MUFAC, ZK-APEX and ForgetMe by the command's functions; proofs as files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from vestige.core.errors import InputError, NotVerifiedError, UsageError
from vestige.core.image_io import decode, save_image
from vestige.core.work import Work
from vestige.data.scenes import render_pack
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import Samples
from vestige.nn.backbone import save_backbone
from vestige.nn.resnet import ResNet, ResNetConfig
from vestige.unlearning.proofs.document import check
from vestige.unlearning.tools import forgetme, mufac, zk_apex
from vestige.unlearning.zk_apex import ZkApex


@pytest.fixture(scope="module")
def request_folder(tmp_path_factory):
    """A classifier with fresh weights and folders requests, retain, test and unseen of three classes."""
    folder = tmp_path_factory.mktemp("request")
    torch.manual_seed(0)
    save_backbone(ResNet(ResNetConfig(18, width=0.0625, classes=3)), folder / "net.safetensors")
    for seed, (part, count) in enumerate((("requests", 12), ("retain", 30), ("test", 24), ("unseen", 12))):
        pack = render_pack(count, 32, 50 + seed, classes=("ball", "car", "cup"), n_objects=1)
        for i, image in enumerate(pack.images):
            save_image(folder / "data" / part / str(i % 3) / f"{i}.png", image.transpose(1, 2, 0))
    return folder


def test_people_who_asked_are_measured_against_unseen_ones(request_folder):
    done = mufac.measure(Work("measure", "mufac", (request_folder / "net.safetensors",), data=request_folder / "data",
                              options={"draws": "4"}, device="cpu"))  # fmt: skip
    assert {"A", "M", "NoMUS", "loss gap", "M low", "M high"} <= set(done.figures)
    assert "12 of unseen people" in done.said[0]


def test_one_model_shows_what_the_mask_costs(request_folder):
    done = zk_apex.measure(Work("measure", "zk_apex", (request_folder / "net.safetensors",),
                                data=request_folder / "data", device="cpu"))  # fmt: skip
    assert [r["model"] for r in done.rows] == ["net.safetensors", "mask at zero", "mask at zero, made up for"]


def test_a_proof_holds_for_its_models_only(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    samples = Samples(torch.rand(40, 4), torch.arange(40) % 2)
    problem = ForgetProblem(net, samples, range(0, 40, 2), range(1, 40, 2), kind="class", classes=(0,))
    method = ZkApex(fraction=0.2, block=8)
    erased = method.erase(problem)
    path = tmp_path / "made.proof.npz"
    path.write_bytes(method.evidence(problem)["proof.npz"])
    before, after = ({n: p.detach().numpy() for n, p in m.named_parameters()} for m in (net, erased))
    assert check(path, before, after).blocks == 8
    with pytest.raises(NotVerifiedError, match="models given"):
        check(path, before, before)
    with np.load(path) as file:
        held = {name: file[name] for name in file.files}
    held["theta_new"] = held["theta_new"] + 1
    np.savez(tmp_path / "changed.npz", **held)
    with pytest.raises(NotVerifiedError, match="committed"):
        check(tmp_path / "changed.npz", before, after)
    (tmp_path / "none.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match="no proof"):
        check(tmp_path / "none.npz", before, after)


def test_what_a_mask_covers_is_removed_and_scored(tmp_path):
    picture = np.full((40, 40, 3), 90, np.uint8) + np.random.default_rng(0).integers(0, 30, (40, 40, 3)).astype(
        np.uint8
    )
    picture[10:20, 10:20] = (250, 20, 20)
    mask = np.zeros((40, 40), np.uint8)
    mask[10:20, 10:20] = 255
    save_image(tmp_path / "a.png", picture)
    save_image(tmp_path / "m.png", mask)
    done = forgetme.erase(Work("erase", "forgetme", (tmp_path / "a.png",), mask=tmp_path / "m.png",
                               out=tmp_path / "b.png"))  # fmt: skip
    made = decode((tmp_path / "b.png").read_bytes()).pixels
    assert made[10:20, 10:20, 0].max() < 160
    assert [f.name for f in done.files] == ["b.png", "b-mask.png"]
    pair = (tmp_path / "a.png", tmp_path / "b.png")
    scores = forgetme.measure(Work("measure", "forgetme", pair, mask=tmp_path / "m.png")).figures
    same = forgetme.measure(Work("measure", "forgetme", (pair[0], pair[0]), mask=tmp_path / "m.png")).figures
    assert scores["Entangled-D"] > same["Entangled-D"]
    with pytest.raises(UsageError, match="what to forget"):
        forgetme.erase(Work("erase", "forgetme", (tmp_path / "a.png",), out=tmp_path / "c.png"))


def test_a_prompt_finds_the_largest_share_that_is_asked_for():
    from vestige.bench.generation.runs import random_pipeline
    from vestige.unlearning.forgetme import named_region

    image = np.random.default_rng(0).random((3, 24, 20), np.float32)
    found = named_region(random_pipeline(size=16), image, "a red ball", share=0.25)
    assert found.shape == (24, 20)
    assert 0.15 < found.mean() < 0.35
    with pytest.raises(UsageError, match="share"):
        named_region(None, image, "a red ball", share=2.0)
