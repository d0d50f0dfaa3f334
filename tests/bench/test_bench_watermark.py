"""The watermark benchmark: its figures, its cache, and what happens when things go wrong."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.bench.killing import records_after_a_kill
from vestige.app.verbs import benching
from vestige.bench import methods as bench_methods
from vestige.bench.digests import code_digest
from vestige.bench.methods import Method
from vestige.bench.watermark import protocol as watermark
from vestige.bench.watermark.cells import Settings, agreement, score
from vestige.bench.watermark.methods import methods
from vestige.bench.watermark.table import COLUMNS, rows
from vestige.core.catalogue import System
from vestige.core.errors import OK, PARTIAL, InputError, Interrupted, UsageError
from vestige.core.image_io import encode
from vestige.core.roles import Reading
from vestige.watermark.attacks import trials

TIMES = {"mark s", "read s"}


class Toy:
    """Writes bits into the mean of 8-pixel columns, for pictures of at least 64 pixels; dies of strong blur."""

    slug = "toy"

    def __init__(self, strength: float = 6.0) -> None:
        self.strength = strength

    def _pattern(self, key: bytes, shape: tuple[int, ...], bits: np.ndarray) -> np.ndarray:
        carriers = np.random.default_rng(list(key)).choice([-1.0, 1.0], (len(bits), *shape))
        return np.tensordot(bits * 2.0 - 1, carriers, 1) / np.sqrt(len(bits))

    def mark(self, images, payload, key):
        if min(images.shape[2:]) < 64:
            raise UsageError("The image is too small; a mark needs 64 pixels.")
        pattern = self._pattern(key, images.shape[2:], np.asarray(payload))
        return (images + np.float32(self.strength / 255) * pattern.astype(np.float32)).clip(0, 1)

    def read(self, images, key):
        from scipy.stats import norm

        found = []
        for image in images:
            grey = image.mean(0)
            detail = grey - (np.roll(grey, 1, 0) + np.roll(grey, 1, 1)) / 2
            carriers = np.random.default_rng(list(key)).choice([-1.0, 1.0], (8, *grey.shape))
            votes = np.tensordot(carriers, detail, 2) / np.sqrt((detail**2).sum())
            bits = votes > 0
            p_value = float(8 * norm.sf(np.abs(votes).max()))
            outcome = "read" if p_value < 1e-3 else "absent"
            found.append(Reading(outcome, min(1.0, p_value), bits if outcome == "read" else None))
        return found


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setattr(bench_methods, "system", lambda slug: System(slug, "toy", ("mark",), target=f"{__name__}:Toy"))
    bench_methods._loaded.cache_clear()
    bench_methods._method_digest.cache_clear()
    yield "toy"
    bench_methods._loaded.cache_clear()
    bench_methods._method_digest.cache_clear()


@pytest.fixture
def folder(tmp_path, photo) -> Path:
    place = tmp_path / "pictures"
    place.mkdir()
    for i in range(4):
        (place / f"{i}.png").write_bytes(encode(photo[30 * i : 30 * i + 96, 80 * i : 80 * i + 112], "PNG"))
    return place


def bench(folder, tmp_path, name="out", attacks="identity,jpeg:50,blur:3,copy:1", results="results", **options):
    defaults = {"methods": "toy:strength=6", "strengths": "quick", "limit": 0, "jobs": 1, "fresh": False, "quiet": True}
    return benching.watermark(
        [folder], attacks=attacks, out=tmp_path / name, results=tmp_path / results,
        settings=options.pop("settings", Settings(bits=8, nulls=3)), **(defaults | options),
    )  # fmt: skip


def table(out: Path) -> list[dict[str, str]]:
    with (out / "table.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]


def test_the_table_tells_weak_attacks_from_strong_ones(toy, folder, tmp_path):
    assert bench(folder, tmp_path) == OK
    found = {row["attack"]: row for row in table(tmp_path / "out")}
    assert list(found["identity"]) == [c for c in COLUMNS if c not in TIMES]
    plain, blurred = found["identity"], found["blur"]
    assert (plain["tpr@1e-2"], plain["own p<=1e-3"], plain["read"], plain["bit accuracy"]) == ("1", "1", "1", "1")
    assert (plain["pictures"], plain["nulls"], plain["psnr"]) == ("4", "12", "99")
    assert float(blurred["bit accuracy"]) < 0.8
    assert blurred["read"] == "0"
    assert 28 < float(plain["mark psnr"]) < 40
    assert found["copy"]["aim"] == "forgery"
    assert found["copy"]["family"] == "forgery"
    assert "down to 0.08" in plain["note"]
    html = (tmp_path / "out" / "index.html").read_text()
    assert html.count("data:image/png;base64,") == 3
    assert "http" not in html.replace("http-equiv", "")
    assert "| toy:strength=6 | jpeg | 50 |" in (tmp_path / "out" / "table.md").read_text()


def test_an_interrupted_run_goes_on_and_gives_the_same_table(toy, folder, tmp_path, monkeypatch):
    bench(folder, tmp_path, "whole", results="whole_results")
    plain, done = watermark.cell_unit, []

    def stopping(unit):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(unit[1].key)
        plain(unit)

    monkeypatch.setattr(watermark, "cell_unit", stopping)
    with pytest.raises(Interrupted, match="the same command"):
        bench(folder, tmp_path)
    records = tmp_path / "results" / "bench" / "watermark"
    assert {p.stem for p in records.glob("*.json")} == set(done)
    later = []
    monkeypatch.setattr(watermark, "cell_unit", lambda unit: (later.append(unit[1].key), plain(unit)))
    bench(folder, tmp_path)
    assert len(later) == 3
    assert not set(later) & set(done)
    assert table(tmp_path / "out") == table(tmp_path / "whole")
    later.clear()
    bench(folder, tmp_path)
    assert later == []
    (records / f"{done[0]}.json").write_text('{"key": ')  # torn
    bench(folder, tmp_path)
    assert later == [done[0]]
    assert table(tmp_path / "out") == table(tmp_path / "whole")


def test_what_a_cell_depends_on_decides_when_it_is_computed_again(toy, folder, tmp_path, monkeypatch):
    grid, _ = watermark.prepare(benching._sources([folder]), Settings(), tmp_path / "w", tmp_path / "r")
    cells = grid.cells([Method("toy")], trials("jpeg:50"))

    def keys(**changes):
        other, _ = watermark.prepare(benching._sources([folder]), Settings(**changes), tmp_path / "w", tmp_path / "r")
        return [c.key for c in other.cells([Method("toy")], trials("jpeg:50"))]

    assert keys() == [c.key for c in cells]
    assert keys(model="elsewhere") == keys()  # no cell here uses a model
    for change in ({"seed": 1}, {"bits": 16}, {"nulls": 2}, {"side": 80}):
        assert not set(keys(**change)) & set(keys()), change
    assert grid.cells([Method("toy", (("strength", 9),))], trials("jpeg:50"))[1].key != cells[1].key
    assert grid.cells([Method("toy")], trials("jpeg:51"))[1].key != cells[1].key
    digests = code_digest("vestige.watermark.attacks.signal"), code_digest("vestige.watermark.attacks.several")
    assert digests[0] != digests[1]


def test_a_killed_run_goes_on(folder, tmp_path, photo):
    """The real thing: worker processes, a real marker, SIGKILL."""
    place = tmp_path / "two"
    place.mkdir()
    for i in range(2):
        (place / f"{i}.png").write_bytes(encode(photo[40 * i : 40 * i + 192, : 192 + 8 * i], "PNG"))
    code = f"""
from pathlib import Path
from vestige.app.verbs import benching
from vestige.bench.watermark.cells import Settings

if __name__ == "__main__":
    benching.watermark(
        [Path({str(place)!r})], methods="dwt_dct_svd", attacks="identity,jpeg:75", strengths="quick",
        limit=0, out=Path({str(tmp_path / "out")!r}), results=Path({str(tmp_path / "results")!r}),
        settings=Settings(nulls=1), jobs=JOBS, fresh=False, quiet=True,
    )
"""
    records = records_after_a_kill(code, tmp_path / "results" / "bench" / "watermark", tmp_path / "run.py")
    assert len(records) == 3
    assert [row["read"] for row in table(tmp_path / "out")] == ["1", "1"]


def test_unreadable_pictures_are_skipped_with_a_sentence(toy, folder, tmp_path, capsys):
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    (folder / "empty.png").write_bytes(b"")
    (folder / "tiny.png").write_bytes(encode(np.zeros((4, 4, 3), np.uint8), "PNG"))
    assert bench(folder, tmp_path, attacks="identity") == PARTIAL
    said = capsys.readouterr().err
    assert "broken.jpg was skipped" in said
    assert "empty.png was skipped" in said
    assert "could not mark 1 of 5" in said
    assert "tiny.png" in said
    assert table(tmp_path / "out")[0]["pictures"] == "4"


def test_attacks_without_their_model_are_listed_with_the_reason(toy, folder, tmp_path):
    assert bench(folder, tmp_path, attacks="identity,purify") == OK
    row = table(tmp_path / "out")[1]
    assert (row["attack"], row["pictures"], row["tpr@1e-2"]) == ("purify", "0", "")
    assert "--model" in row["note"]


def test_a_model_folder_is_used_and_its_pictures_are_kept(toy, folder, tmp_path):
    import torch

    from vestige.engines.diffusion.pipeline import TextToImage, save_pipeline
    from vestige.engines.diffusion.schedules import cosine
    from vestige.nn.text import build_tokenizer, text_encoder
    from vestige.nn.unet import text_unet
    from vestige.nn.vae import identity_vae

    torch.manual_seed(0)
    tokenizer = build_tokenizer(["a ball"], 8)
    model = TextToImage(
        text_unet(16, 3, (8, 16), 32, head=8),
        identity_vae(),
        text_encoder(tokenizer, 32, 1, 2),
        tokenizer,
        cosine(),
        "v",
    )
    made = save_pipeline(tmp_path / "model", model)
    settings = Settings(bits=8, nulls=1, model=str(made), steps=10)
    assert bench(folder, tmp_path, attacks="purify:0.1,vae:0", limit=2, settings=settings) == OK
    purify, vae = table(tmp_path / "out")
    assert purify["pictures"] == "2"
    assert float(purify["psnr"]) > 5
    assert "autoencoder" in vae["note"]  # the identity is none
    assert len(list((tmp_path / "out" / "work").glob("drawn-*.png"))) == 4


def test_wrong_requests_are_refused(toy, folder, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match="readable picture"):
        bench(tmp_path / "bad", tmp_path)
    with pytest.raises(UsageError, match="NAME=NUMBER"):
        bench(folder, tmp_path, methods="toy:strength=much")
    with pytest.raises(UsageError, match="options"):
        bench(folder, tmp_path, methods="toy:colour=3")
    with pytest.raises(UsageError, match="at least 1"):
        Settings(nulls=0)


def test_methods_come_from_the_catalogue():
    assert [m.label for m in methods("dwt_dct_svd:strength=20:companding=0.2")] == [
        "dwt_dct_svd:strength=20:companding=0.2"
    ]
    assert Method("dwt_dct_svd") in methods("all")
    with pytest.raises(UsageError, match="does not mark"):
        methods("ela")
    with pytest.raises(UsageError, match="no system"):
        methods("nothing_like_it")


def test_scores_and_agreement_of_readings():
    payload = np.array([True, False, True, True])
    assert score(Reading("absent", 1.0)) == 0.0
    assert score(Reading("read", 0.0)) == 300.0
    assert score(Reading("absent", 1e-4)) == pytest.approx(4)
    assert agreement(Reading("absent", 1.0), payload) == 0.5
    assert agreement(Reading("read", 0.0, payload), payload) == 1.0
    assert agreement(Reading("unreadable", 0.0, details={"raw_bits": {4: ~payload}}), payload) == 0.0
    assert agreement(Reading("unreadable", 0.0, details={"raw_bits": np.array([1, 0, 1, 0, 1])}), payload) == 0.75


def test_thresholds_come_from_the_attacked_null():
    record = {
        "method": "m", "attack": "a", "strength": "1", "family": "signal", "forges": False, "errors": [],
        "scores": [5.0, 5.0, 1.0, 9.0], "null": [0.0] * 990 + [5.0] * 10, "bit_accuracy": [1, 1, 0.5, 1],
        "right": [True, True, False, True], "psnr": [], "ssim": [], "read_seconds": [0.1] * 4,
    }  # fmt: skip
    marking = {"method": "m", "attack": None, "psnr": [40.0], "ssim": [0.99], "mark_seconds": [1.0], "errors": []}
    (row,) = rows([marking, record])
    assert row["tpr@1e-2"] == 1.0  # ten of a thousand null scores may be flagged, so the threshold is below them
    assert row["tpr@1e-3"] == 0.25
    assert row["own p<=1e-3"] == 0.75
    assert row["null p<=1e-2"] == 0.01
    assert row["note"] == ""
    assert row["psnr"] is None
    json.dumps(row)
