"""An index of pictures: built in pieces, changed one by one, killed, searched; what the commands say and refuse."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.data import astronaut, coffee
from sklearn.datasets import load_sample_image

from vestige.app.cli import main
from vestige.copies.descriptor import load_descriptor
from vestige.copies.index import CopyIndex
from vestige.copies.local import best_match, both_ways, drawn, features
from vestige.copies.search import Copies, calibrations, find_copies
from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import decode, save_image, to_uint8
from vestige.core.picture import ImageSubject
from vestige.data.scenes import render, sample_scene

CHINA, FLOWER = (load_sample_image(n) for n in ("china.jpg", "flower.jpg"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Two photographs, six drawn scenes, a plain picture and a text."""
    folder = tmp_path_factory.mktemp("pictures")
    save_image(folder / "china.jpg", CHINA, quality=92)
    save_image(folder / "flower.png", FLOWER)
    for i in range(6):
        save_image(folder / "scenes" / f"{i}.png", to_uint8(render(sample_scene(i, style="photo"), 128).image))
    save_image(folder / "plain.png", np.full((40, 40, 3), 90, np.uint8))
    (folder / "notes.txt").write_text("no picture")
    (folder / "broken.png").write_bytes((folder / "flower.png").read_bytes()[:2000])
    return folder


@pytest.fixture(scope="module")
def built(pictures, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("index") / "my.index"
    with CopyIndex.create(path, "local") as index:
        done = index.add(pictures)
        assert (done.new, done.changed, done.unchanged, done.plain) == (9, 0, 0, 1)
        assert [name for name, _ in done.failed] == ["broken.png"]
    return path


@pytest.fixture
def index(built, tmp_path) -> Path:
    """A copy of the index, to change."""
    return Path(shutil.copytree(built, tmp_path / "my.index"))


def called(*words: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(w) for w in words])
    return int(stopped.value.code or 0)


def edited() -> np.ndarray:
    """The photograph of China: a part of it, mirrored, smaller, saved badly."""
    part = np.ascontiguousarray(CHINA[60:360, 100:500][:, ::-1])
    small = cv2.resize(part, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
    return cv2.imdecode(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)


def test_an_edited_part_is_found_with_the_place_it_was_cut_from(built):
    with CopyIndex.open(built) as index:
        best, *others = find_copies(index, _subject(edited()))
    assert best.claimed
    assert best.entry.name == "china.jpg"
    assert best.how == "verified"
    assert best.match.mirrored
    assert not any(c.claimed for c in others)
    corner = best.match.matrix @ np.array([0, 0, 1])  # of the mirrored part, at its upper right in the photograph
    assert np.abs(corner - [500, 60]).max() < 6
    assert best.probability > 0.9


def test_the_finder_says_what_the_command_says(built):
    finding = Copies(index=built, shortlist=3).find(_subject(edited()))
    assert finding.flagged
    assert "china.jpg" in finding.summary
    assert "per million" in finding.details["false claims"]
    assert not Copies().find(_subject(CHINA)).applies


def test_exact_copies_are_facts_and_strangers_are_not_claimed(built, pictures, tmp_path):
    with CopyIndex.open(built) as index:
        same = find_copies(index, ImageSubject.open(pictures / "flower.png"))[0]
        assert (same.how, same.probability) == ("the same file", None)
        save_image(tmp_path / "again.bmp", FLOWER)
        assert find_copies(index, ImageSubject.open(tmp_path / "again.bmp"))[0].how == "the same pixels"
        plain = find_copies(index, _subject(np.full((40, 40, 3), 90, np.uint8)))
        assert [c.entry.name for c in plain] == ["plain.png"]
        for stranger in (astronaut(), coffee()):  # drawn scenes share textures, and so parts of one another
            assert not any(c.claimed for c in find_copies(index, _subject(stranger), shortlist=4))


def test_a_reference_that_is_gone_is_said_not_to_be_compared(index, pictures, tmp_path):
    moved = Path(shutil.copytree(pictures, tmp_path / "moved"))
    with CopyIndex.create(tmp_path / "other", "local") as other:
        other.add(moved / "china.jpg")
    shutil.rmtree(moved)
    with CopyIndex.open(tmp_path / "other") as other:
        best = find_copies(other, _subject(edited()))[0]
        assert best.how == "not compared"
        assert "not compared point by point" in best.words


def test_the_same_command_goes_on_and_takes_in_what_changed(index, pictures, tmp_path):
    work = Path(shutil.copytree(pictures, tmp_path / "work"))
    (work / "broken.png").unlink()
    path = tmp_path / "piece.index"
    with CopyIndex.create(path, "local") as piece:
        piece.add(work / "china.jpg")
        assert piece.add(work).new == 8
        assert piece.add(work).unchanged == 9
        save_image(work / "flower.png", CHINA[:200])
        (work / "scenes" / "0.png").unlink()
        done = piece.add(work)
        assert (done.new, done.changed, done.unchanged) == (0, 1, 7)
        assert piece.remove(piece.gone()) == 1
        assert piece.remove(piece.find_source(work / "scenes")) == 5
        assert sorted(e.name for e in piece.entries()) == ["china.jpg", "flower.png", "plain.png"]
        assert len(piece.vectors) == 2
        assert {h.entry.name for h in piece.search(_subject(CHINA), 5)} == {"china.jpg", "flower.png"}


def test_a_kill_between_vector_and_entry_leaves_no_stranger(index):
    with CopyIndex.open(index, write=True) as opened:
        count, extra = len(opened.vectors), load_descriptor("local").describe(CHINA)
        opened.vectors.add(extra[None])
    with CopyIndex.open(index) as opened:  # readers do not stumble
        assert all(h.entry for h in opened.search(_subject(CHINA), 5))
    with CopyIndex.open(index, write=True) as opened:
        assert len(opened.vectors) == count


def test_only_one_command_writes(index):
    with CopyIndex.open(index, write=True), pytest.raises(InputError, match="another command"):
        CopyIndex.open(index, write=True)


@pytest.mark.parametrize("harm", ["about", "entries", "descriptor"])
def test_a_damaged_index_is_refused(index, harm):
    if harm == "about":
        (index / "index.json").write_text("[]")
    elif harm == "descriptor":
        (index / "index.json").write_text('{"vestige index": 1, "descriptor": "nobody"}')
    else:
        (index / "entries.sqlite").write_bytes(b"no base at all" * 100)
    with pytest.raises((InputError, UsageError)):
        CopyIndex.open(index)


def test_the_map_between_pictures_is_the_one_that_was_made():
    turned = cv2.warpAffine(CHINA, np.array([[0.8, 0.2, 30], [-0.2, 0.8, 150]]), (640, 560), flags=cv2.INTER_AREA)
    found = best_match(both_ways(turned), features(CHINA))
    assert not found.mirrored
    back = cv2.invertAffineTransform(np.array([[0.8, 0.2, 30], [-0.2, 0.8, 150]]))
    points = np.array([[100.0, 200, 1], [400, 300, 1], [300, 450, 1]]).T
    assert np.abs(found.matrix @ points - back @ points).max() < 2
    page = drawn(turned, CHINA, found)
    assert page.shape[0] == 360
    unrelated = best_match(both_ways(FLOWER), features(CHINA))
    assert unrelated is None or unrelated.inliers < 12


def test_the_calibration_says_what_it_was_counted_on():
    for calibration in calibrations().values():
        assert calibration.a > 0
        assert calibration.b > 0
        assert calibration.claims(0.9, 200)
        assert not calibration.claims(0.0, 4)
        assert f"{calibration.comparisons:,} comparisons" in calibration.per_million
        assert calibration.false / calibration.comparisons < 1e-4


def test_the_commands_build_find_and_write(pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_image("query.jpg", edited(), quality=80)
    assert called("index", pictures, "-o", "my.index", "--descriptor", "local") == 5  # one picture is broken
    said = capsys.readouterr()
    assert "my.index: 9 pictures (9 new)." in said.out
    assert "broken.png" in said.err
    assert called("find", "query.jpg", "--in", "my.index", "-o", "found") == 0
    said = capsys.readouterr().out
    assert "query.jpg is a copy of" in said
    assert "per million" in said
    report = json.loads(Path("found/report.json").read_text())
    (query,) = report["queries"]
    drawn_as = query["copies"][0]["drawn"]
    assert decode(Path("found", drawn_as).read_bytes()).pixels.shape[0] == 360
    assert called("find", "query.jpg", "--in", "my.index", "-o", "found") == 2  # nothing is written over
    assert called("find", "query.jpg", "--in", "my.index", "--exit-code", "-q") == 6
    capsys.readouterr()
    assert called("index", "-o", "my.index", "--remove", pictures / "china.jpg", "--json") == 0
    assert json.loads(capsys.readouterr().out)["removed"] == 1
    assert called("find", "query.jpg", "--in", "my.index") == 0
    assert "no copy found among 8 pictures" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["index"],
        ["index", "nowhere", "-o", "new.index"],
        ["index", "empty", "-o", "new.index"],
        ["index", "letter.txt", "-o", "new.index"],
        ["index", "one.png"],
        ["index", "one.png", "-o", "full"],
        ["index", "one.png", "-o", "letter.txt"],
        ["index", "one.png", "-o", "new.index", "--descriptor", "nobody"],
        ["index", "-o", "new.index", "--prune"],
        ["index", "one.png", "-o", "old.index", "--descriptor", "local"],
        ["index", "-o", "old.index", "--remove", "elsewhere.png"],
        ["find", "one.png", "--in", "nowhere"],
        ["find", "one.png", "--in", "full"],
        ["find", "letter.txt", "--in", "old.index"],
        ["find", "empty", "--in", "old.index"],
        ["find", "one.png", "--in", "old.index", "--only", "duplicates"],
        ["find", "one.png", "--in", "old.index", "--threshold", "2"],
        ["find", "one.png", "--top", "3"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_done_ends_in_one_sentence(words, built, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("letter.txt").write_text("Dear all")
    save_image("one.png", FLOWER[:64, :64])
    Path("full").mkdir()
    Path("full/kept.txt").write_text("kept")
    shutil.copytree(built, "old.index")
    before = sorted(str(p) for p in Path(".").rglob("*"))
    code = called(*words)
    said = capsys.readouterr()
    assert code == 2
    assert said.err.startswith("vestige: ") or "Usage" in said.err
    assert "Traceback" not in said.err
    after = sorted(str(p) for p in Path(".").rglob("*") if p.name != "lock")
    assert [p for p in after if p not in before] == []


def _subject(pixels: np.ndarray) -> ImageSubject:
    from vestige.core.image_io import encode

    return ImageSubject(encode(np.ascontiguousarray(pixels), "PNG"), "query.png")


def test_an_index_of_nothing_that_can_be_read_is_not_made(pictures, tmp_path, capsys):
    assert called("index", pictures / "broken.png", "-o", tmp_path / "b.index") == 2
    assert "was not made" in capsys.readouterr().err
    assert not (tmp_path / "b.index").exists()
