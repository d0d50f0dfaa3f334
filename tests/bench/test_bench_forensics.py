"""The forensics benchmark: its figures, its cache, and what happens when things go wrong."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.bench.killing import records_after_a_kill
from tests.data.test_forensic_sets import MAKERS
from vestige.app.verbs import benching_forensics
from vestige.bench import methods as bench_methods
from vestige.bench.forensics import cells as forensics_cells
from vestige.bench.forensics import methods as forensics_methods
from vestige.bench.forensics import protocol as forensics
from vestige.bench.forensics.cells import examined, ladder
from vestige.bench.forensics.data import prepare
from vestige.bench.forensics.methods import Floor, methods
from vestige.bench.forensics.table import COLUMNS
from vestige.core.catalogue import System
from vestige.core.errors import OK, PARTIAL, InputError, Interrupted, UsageError
from vestige.core.findings import Finding
from vestige.core.image_io import decode, encode
from vestige.core.subjects import ImageSubject
from vestige.data.forensic_sets import open_set
from vestige.forensics.fairfd import FairFD

HEIGHT, WIDTH = 64, 96


class Toy:
    """Marks red places: a perfect localiser of `edited`. Pictures that are blue all over are not its domain."""

    slug = "toy"
    kind = "edit"

    def __init__(self, shift: float = 0.0) -> None:
        self.shift = shift

    def find(self, subject: ImageSubject) -> Finding:
        pixels = subject.pixels.astype(np.float32)
        if pixels[..., 2].mean() > 200:
            return Finding.not_applicable(self.slug, self.kind, "it is blue")
        red = (pixels[..., 0] - pixels[..., 1]).clip(0, 255) / 255 + np.float32(self.shift)
        share = float((red > 0.5).mean())
        return Finding(
            self.slug, self.kind, share, "red", "not red", flagged=share > 0.01, threshold=0.01,
            false_positive_rate=0.02, map=red.clip(0, 1),
        )  # fmt: skip


class Broken(Toy):
    slug = "broken"

    def find(self, subject: ImageSubject) -> Finding:
        raise InputError("The weights of broken are not installed.")


class Moody(Toy):
    slug = "moody"

    def find(self, subject: ImageSubject) -> Finding:
        if subject.source.endswith("3.png"):
            raise ZeroDivisionError("no")
        return super().find(subject)


@pytest.fixture
def toys(monkeypatch):
    known = {cls.slug: System(cls.slug, cls.slug, ("find",), wing="forensics", target=f"{__name__}:{cls.__name__}")
             for cls in (Toy, Broken, Moody)}  # fmt: skip
    for module in (bench_methods, forensics_methods):
        monkeypatch.setattr(module, "system", known.__getitem__)
    caches = (bench_methods._loaded, bench_methods._method_digest, forensics_methods.kind_of)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def grey(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(90, 130, (HEIGHT, WIDTH, 1), np.uint8).repeat(3, 2)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Five authentic pictures and five with a red region, made in two ways, by people of two groups."""
    place = tmp_path / "pictures"
    (place / "masks").mkdir(parents=True)
    lines = ["file,label,mask,approach,group"]
    for i in range(5):
        group = "north" if i % 2 else "south"
        (place / f"real{i}.png").write_bytes(encode(grey(i), "PNG"))
        lines.append(f"real{i}.png,real,,,{group}")
        made, mask = grey(10 + i), np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        made[8:40, 16 : 48 + i] = (255, 0, 0)
        mask[8:40, 16 : 48 + i] = 255
        (place / f"fake{i}.png").write_bytes(encode(made, "PNG"))
        (place / "masks" / f"fake{i}.png").write_bytes(encode(mask, "PNG"))
        lines.append(f"fake{i}.png,fake,masks/fake{i}.png,{'swap' if i < 3 else 'paint'},{group}")
    (place / "labels.csv").write_text("\n".join(lines) + "\n")
    return place


def bench(folder, tmp_path, name="out", **options):
    defaults = {
        "methods": "toy", "steps": "none,jpeg:80", "groups": None, "limit": 0, "results": tmp_path / "results",
        "frames": 2, "jobs": 1, "fresh": False, "quiet": True, "seed": 0,
    }  # fmt: skip
    return benching_forensics.forensics([folder] if folder else [], out=tmp_path / name, **(defaults | options))


def table(out: Path, name: str = "table.csv") -> list[dict[str, str]]:
    with (out / name).open() as file:
        return [{k: v for k, v in row.items() if k != "s"} for row in csv.DictReader(file)]


def test_a_perfect_localiser_and_the_floors(toys, folder, tmp_path):
    assert bench(folder, tmp_path) == OK
    rows = {(row["method"], row["after"]): row for row in table(tmp_path / "out")}
    assert list(next(iter(rows.values()))) == [c for c in COLUMNS if c != "s"]
    plain = rows["toy", "none"]
    assert (plain["pictures"], plain["fakes"], plain["masks"], plain["applies"]) == ("10", "5", "5", "1")
    for column in ("f1", "iou", "pixel auc", "f1 best", "auc", "tpr"):
        assert plain[column] == "1", column
    assert (plain["eer"], plain["fpr"], plain["clean marked"], plain["stated fpr"]) == ("0", "0", "0", "0.02")
    assert 0.9 < float(rows["toy", "jpeg:80"]["f1"]) < 1
    areas = np.array([32 * (32 + i) / (HEIGHT * WIDTH) for i in range(5)])
    marked = rows["all_marked", "none"]
    assert float(marked["f1"]) == pytest.approx(float(np.mean(2 * areas / (1 + areas))), abs=1e-3)
    assert (marked["pixel auc"], marked["clean marked"], marked["auc"], marked["fpr"]) == ("0.5", "1", "", "")
    assert ("centre_prior", "jpeg:80") in rows
    html = (tmp_path / "out" / "index.html").read_text()
    assert html.count("data:image/png;base64,") == 3
    assert "http" not in html
    assert "## By approach" in (tmp_path / "out" / "table.md").read_text()
    ways = {(r["method"], r["after"], r["approach"]): r for r in table(tmp_path / "out", "approaches.csv")}
    assert ways["toy", "none", "swap"]["pictures"] == "3"
    assert ways["toy", "none", "paint"]["pixel auc"] == "1"


def test_a_shifted_map_shows_the_two_thresholds_apart(toys, folder, tmp_path):
    bench(folder, tmp_path, methods="toy:shift=-0.6", steps="none")
    row = table(tmp_path / "out")[0]
    assert row["method"] == "toy:shift=-0.6"
    assert (row["f1"], row["f1 best"], row["pixel auc"]) == ("0", "1", "1")
    assert 0 < float(row["best at"]) < 0.5


def test_fairness_is_that_of_fairfd(toys, folder, tmp_path):
    (folder / "real1.png").write_bytes((folder / "fake1.png").read_bytes())  # a false alarm in one group
    bench(folder, tmp_path, steps="none")
    (row,) = table(tmp_path / "out", "fairness.csv")
    labels = ["real"] * 5 + ["swap"] * 3 + ["paint"] * 2
    flags = [0, 1, 0, 0, 0] + [1] * 5
    groups = ["north" if i % 2 else "south" for i in [*range(5), *range(5)]]
    expected = FairFD().measure(np.array(flags, float), labels, groups)
    assert row["groups"] == "group"
    for name, value in expected.items():
        assert float(row[name]) == pytest.approx(value, abs=1e-3), name
    assert expected["aa-dpd"] > 0


def test_groups_come_from_a_file_too(toys, folder, tmp_path, capsys):
    groups = tmp_path / "groups.csv"
    groups.write_text(
        "file,approach,hair\nreal0.png,,long\npictures/real1.png,,short\nfake0.png,a,long\nfake1.png,a,short\n"
    )
    assert bench(folder, tmp_path, steps="none", groups=groups) == PARTIAL
    assert "6 pictures" in capsys.readouterr().err
    rows = {row["groups"]: row for row in table(tmp_path / "out", "fairness.csv")}
    assert (rows["hair"]["pictures"], rows["hair"]["accuracy"]) == ("4", "1")
    groups.write_text("file,hair\nelsewhere.png,long\n")
    with pytest.raises(UsageError, match="names none of the 10"):
        bench(folder, tmp_path, groups=groups)
    groups.write_text("picture,hair\nreal0.png,long\n")
    with pytest.raises(InputError, match="column file"):
        bench(folder, tmp_path, groups=groups)


def test_an_interrupted_run_goes_on_and_gives_the_same_table(toys, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(forensics_cells, "CHUNK", 4)
    bench(folder, tmp_path, "whole", results=tmp_path / "whole_results")
    plain, done = forensics.part_unit, []

    def stopping(unit):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(plain(unit))
        return done[-1]

    monkeypatch.setattr(forensics, "part_unit", stopping)
    with pytest.raises(Interrupted, match="the same command"):
        bench(folder, tmp_path)
    records = tmp_path / "results" / "bench" / "forensics"
    assert len(list((tmp_path / "out" / "work").glob("part-*"))) == 4
    assert not records.exists()
    computed = []
    examine = forensics_cells.examined
    monkeypatch.setattr(forensics, "part_unit", plain)
    monkeypatch.setattr(
        forensics_cells, "examined", lambda f, s, *rest: (computed.append(s.source), examine(f, s, *rest))[1]
    )
    bench(folder, tmp_path)
    assert len(computed) == 6 * 10 - 16
    assert table(tmp_path / "out") == table(tmp_path / "whole")
    assert not list((tmp_path / "out" / "work").glob("part-*"))
    computed.clear()
    bench(folder, tmp_path)
    assert computed == []
    next(iter(records.glob("*.json"))).write_text('{"key": ')  # torn
    bench(folder, tmp_path)
    assert len(computed) == 10
    computed.clear()
    bench(folder, tmp_path, fresh=True)
    assert len(computed) == 60
    assert table(tmp_path / "out") == table(tmp_path / "whole")


def test_what_a_cell_depends_on_decides_when_it_is_computed_again(toys, folder, tmp_path):
    def keys(chosen="toy", steps="jpeg:80", seed=0):
        pictures, _ = prepare(open_set(folder), tmp_path / "w")
        grid = forensics_cells.Grid("set", pictures, seed, tmp_path / "w", tmp_path / "r")
        return [cell.key for cell in grid.cells(methods(chosen), ladder(steps))]

    assert keys() == keys()
    before = keys()
    for other in (keys("toy:shift=1"), keys(steps="jpeg:81"), keys(seed=1)):
        assert not set(other) & set(before)
    mask = folder / "masks" / "fake0.png"
    pixels = decode(mask.read_bytes()).pixels.copy()
    pixels[0, 0] = 255
    mask.write_bytes(encode(pixels, "PNG"))
    assert not set(keys()) & set(before)


def test_a_killed_run_goes_on(folder, tmp_path):
    """The real thing: worker processes, real examiners, SIGKILL."""
    code = f"""
from pathlib import Path
from vestige.app.verbs import benching_forensics

if __name__ == "__main__":
    benching_forensics.forensics(
        [Path({str(folder)!r})], methods="noise_level", steps="none,jpeg:75,blur:1", groups=None, limit=0,
        out=Path({str(tmp_path / "out")!r}), results=Path({str(tmp_path / "results")!r}), frames=1, jobs=JOBS,
        fresh=False, quiet=True, seed=0,
    )
"""
    records = records_after_a_kill(code, tmp_path / "results" / "bench" / "forensics", tmp_path / "run.py")
    assert len(records) == 9
    assert len(table(tmp_path / "out")) == 9


def test_where_an_examiner_does_not_apply_it_suspects_nothing(toys, folder, tmp_path):
    blue = np.full((HEIGHT, WIDTH, 3), (0, 0, 255), np.uint8)
    (folder / "fake4.png").write_bytes(encode(blue, "PNG"))
    bench(folder, tmp_path, steps="none")
    row = table(tmp_path / "out")[0]
    assert (row["applies"], row["tpr"], row["f1"], row["masks"]) == ("0.9", "0.8", "0.8", "5")
    assert float(row["pixel auc"]) == pytest.approx(0.9)
    assert float(row["auc"]) == pytest.approx(0.8)  # its score is below those of all authentic pictures


def test_an_examiner_that_applies_nowhere_says_why(toys, folder, tmp_path):
    for file in folder.glob("*.png"):
        file.write_bytes(encode(np.full((HEIGHT, WIDTH, 3), (0, 0, 255), np.uint8), "PNG"))
    assert bench(folder, tmp_path, steps="none") == OK
    row = table(tmp_path / "out")[0]
    assert (row["method"], row["applies"], row["auc"]) == ("toy", "0", "")
    assert row["note"] == "applies to no picture: it is blue"


def test_examiners_that_cannot_be_used_are_left_out(toys, folder, tmp_path, capsys):
    assert bench(folder, tmp_path, methods="toy,broken") == PARTIAL
    assert "broken was left out: The weights of broken are not installed." in capsys.readouterr().err
    assert {row["method"] for row in table(tmp_path / "out")} == {"toy", "all_marked", "centre_prior"}
    with pytest.raises(UsageError, match="not installed"):
        bench(folder, tmp_path, methods="broken")
    assert bench(folder, tmp_path, "moody", methods="moody", steps="none") == PARTIAL
    assert "moody failed on 2 pictures after none: real3.png: ZeroDivisionError: no" in capsys.readouterr().err
    row = table(tmp_path / "moody")[0]
    assert (row["pictures"], row["note"], row["f1"]) == ("8", "2 failed", "1")


def test_unreadable_pictures_are_skipped_with_a_sentence(toys, folder, tmp_path, capsys):
    (folder / "real0.png").write_bytes(b"")
    (folder / "fake0.png").write_bytes(encode(np.zeros((8, 8, 3), np.uint8), "PNG"))
    assert bench(folder, tmp_path, steps="none") == PARTIAL
    said = capsys.readouterr().err
    assert "real0.png was skipped" in said
    assert "fake0.png was skipped: its mask is 96×64 and the picture 8×8." in said
    assert table(tmp_path / "out")[0]["pictures"] == "8"
    for file in folder.glob("*.png"):
        file.write_bytes(b"nothing")
    with pytest.raises(InputError, match="no readable picture"):
        bench(folder, tmp_path)


def test_several_sets_stand_in_one_table(toys, folder, tmp_path):
    other = tmp_path / "casia"
    (other / "Au").mkdir(parents=True)
    (other / "Tp").mkdir()
    (other / "Au" / "Au_ani_00001.png").write_bytes((folder / "real1.png").read_bytes())
    (other / "Tp" / "Tp_D_CRN_M_N_1.png").write_bytes((folder / "fake1.png").read_bytes())
    benching_forensics.forensics(
        [folder, other], methods="toy", steps="none", groups=None, limit=6, out=tmp_path / "out",
        results=tmp_path / "results", frames=1, jobs=1, fresh=False, quiet=True, seed=0,
    )  # fmt: skip
    rows = [row for row in table(tmp_path / "out") if row["method"] == "toy"]
    assert [(row["set"], row["pictures"]) for row in rows] == [("labels.csv (pictures)", "6"), ("casia (casia)", "2")]
    assert rows[1]["pixel auc"] == ""  # it came without masks
    assert rows[1]["auc"] == "1"


@pytest.mark.parametrize(("layout", "fakes", "masks"), [
    ("casia", 2, 2), ("columbia", 1, 1), ("coverage", 1, 1), ("nist16", 1, 1), ("imd2020", 1, 1), ("genimage", 2, 0),
    ("faceforensics", 4, 2), ("dfdc", 2, 0),
])  # fmt: skip
def test_every_layout_goes_through(toys, layout, fakes, masks, tmp_path):
    MAKERS[layout](tmp_path / "set")
    assert bench(tmp_path / "set", tmp_path, steps="resize:0.75+jpeg:80") == OK
    rows = table(tmp_path / "out")
    assert [row["method"] for row in rows] == (["toy", "all_marked", "centre_prior"] if masks else ["toy"])
    assert (rows[0]["set"], rows[0]["fakes"]) == (layout, str(fakes))
    if masks:
        assert rows[1]["masks"] == str(masks)


def test_an_examiner_without_a_map_marks_nothing():
    class Scorer(Toy):
        def find(self, subject):
            return Finding(self.slug, self.kind, 0.7, "", "")

    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[:8, :8] = True
    subject = ImageSubject(encode(grey(0), "PNG"))
    row = examined(Scorer(), subject, mask, None)
    assert (row["map"], row["f1"], row["auc"], row["score"], row["flagged"]) == (False, 0.0, 0.5, 0.7, False)
    floor = examined(Floor("centre_prior"), subject, None, None)
    assert floor["score"] is None
    assert 0.7 < floor["clean"] < 0.85


def test_the_command_line(tmp_path, monkeypatch):
    monkeypatch.delenv("VESTIGE_DATA", raising=False)
    (tmp_path / "pictures").mkdir()

    def run(*words):
        return subprocess.run(
            [sys.executable, "-m", "vestige", "bench", "forensics", *words],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )

    refused = run("pictures")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "layout of no set" in refused.stderr
    done = run("--methods", "noise_level", "--ladder", "none", "--limit", "4", "-j", "1", "-o", "o", "--results", "r")
    assert done.returncode == 0, done.stderr
    assert "noise_level" in done.stdout
    assert {"table.csv", "table.md", "index.html", "ladder.png"} <= {p.name for p in (tmp_path / "o").iterdir()}
