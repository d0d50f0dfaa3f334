"""Clips: told apart by content, sampled evenly, bounded, and combined without adding up false alarms."""

from __future__ import annotations

import io
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from vestige.core import video
from vestige.core.calibration import Calibration
from vestige.core.clips import CLIP_RATE, combine, examine_clip, frames_needed
from vestige.core.errors import InputError, LimitError, UsageError
from vestige.core.findings import Finding, Findings
from vestige.core.image_io import Limits
from vestige.core.panel import Panel
from vestige.core.sniff import is_video, sniff
from vestige.core.subjects import open_subject
from vestige.core.video import VideoSubject, is_clip, sample_times


def write(path: Path, codec: str, frames: list[np.ndarray], rate: float = 10.0) -> Path:
    """A clip of uint8 H×W×3 RGB frames."""
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), rate, (width, height))
    if not writer.isOpened():
        pytest.skip(f"this OpenCV cannot write {codec}")
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path


def ramp(count: int = 40) -> list[np.ndarray]:
    """Frames that say when they are: grey 5 n."""
    return [np.full((96, 128, 3), 5 * n, np.uint8) for n in range(count)]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    made = {name: write(folder / f"a.{name}", codec, ramp()) for name, codec in (("mp4", "mp4v"), ("avi", "MJPG"))}
    made |= {name: write(folder / f"a.{name}", codec, ramp()) for name, codec in (("mov", "mp4v"), ("mkv", "mp4v"))}
    made["gif"] = folder / "a.gif"
    first, *rest = [Image.fromarray(f) for f in ramp()]
    first.save(made["gif"], save_all=True, append_images=rest, duration=100)
    return made


@pytest.mark.parametrize("name", ["mp4", "avi", "mov", "mkv", "gif"])
def test_frames_are_taken_evenly_and_at_their_time(clips: dict[str, Path], name: str) -> None:
    subject = VideoSubject.open(clips[name])
    assert subject.format == name.upper()
    assert (subject.width, subject.height, subject.seconds) == (128, 96, pytest.approx(4.0))
    seen = list(subject.frames(0.5))
    assert [t for t, _ in seen] == pytest.approx([0.5 * k for k in range(8)], abs=0.051)
    for time, pixels in seen:
        assert pixels.shape == (96, 128, 3)
        assert pixels.dtype == np.uint8
        assert abs(pixels.mean() - 50 * time) < 6
    assert subject.notes == []


def test_content_decides_not_the_name(clips: dict[str, Path], tmp_path: Path) -> None:
    moved = tmp_path / "holiday.jpg"
    moved.write_bytes(clips["avi"].read_bytes())
    assert is_clip(moved)
    assert isinstance(open_subject(moved), VideoSubject)
    assert is_video(moved.read_bytes()[:64])
    still = io.BytesIO()
    Image.fromarray(ramp()[0]).save(still, "GIF")
    (tmp_path / "still.mp4").write_bytes(still.getvalue())
    assert not is_clip(tmp_path / "still.mp4")
    assert sniff(b"\x1a\x45\xdf\xa3\x9fB\x86\x81\x01B\x82\x84webm") == "WEBM"
    assert sniff(b"\x00\x00\x00\x08wide\x00\x00\x00\x00mdat") == "MOV"


def test_far_frames_are_sought(tmp_path: Path) -> None:
    grey = [np.full((64, 64, 3), n, np.uint8) for n in range(240)]
    subject = VideoSubject.open(write(tmp_path / "long.avi", "MJPG", grey, rate=4.0))
    seen = list(subject.frames(15.0))
    assert [t for t, _ in seen] == pytest.approx([0.0, 15.0, 30.0, 45.0], abs=0.3)
    assert all(abs(p.mean() - 4 * t) < 4 for t, p in seen)


def test_distances_have_a_default_and_a_cap() -> None:
    assert sample_times(3.0)[1] == pytest.approx(0.6)
    assert sample_times(20.0)[1] == 1.0
    assert sample_times(3600.0)[1] == 120.0
    times, every = sample_times(3600.0, 1.0)
    assert (len(list(times)), every) == (video.MAX_FRAMES, 30.0)
    assert list(sample_times(0.1, 5.0)[0]) == [0.0]
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="--every"):
            sample_times(10.0, wrong)


def test_a_truncated_clip_says_where_it_breaks_off(clips: dict[str, Path], tmp_path: Path) -> None:
    data = clips["avi"].read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) * 2 // 3])
    subject = VideoSubject.open(tmp_path / "cut.avi")
    seen = list(subject.frames(0.5))
    assert 1 <= len(seen) < 8
    assert re.search(r"breaks off after 0:0\d\.\d of 0:04\.0", subject.notes[0])


def test_what_cannot_be_read_is_one_sentence(clips: dict[str, Path], tmp_path: Path) -> None:
    data = clips["mp4"].read_bytes()
    cases = {
        "cut.mp4": (data[: len(data) // 2], "damaged MP4"),
        "text.mp4": (b"no film in here, only words\n" * 9, "not a clip vestige reads"),
        "empty.mp4": (b"", "is empty"),
        "head.webm": (b"\x1a\x45\xdf\xa3\x9fB\x86\x81\x01B\x82\x84webm" + bytes(200), "damaged WEBM"),
        "list.avi": (b"RIFF\xff\xff\x00\x00AVI LIST#EXTM3U\nhttp://127.0.0.1/x.ts\n", "damaged AVI"),
    }
    for name, (content, words) in cases.items():
        (tmp_path / name).write_bytes(content)
        assert is_clip(tmp_path / name)
        with pytest.raises(InputError, match=words) as caught:
            list(VideoSubject.open(tmp_path / name).frames())
        assert str(caught.value).count("\n") == 0
    with pytest.raises(InputError, match="does not exist"):
        VideoSubject.open(tmp_path / "missing.mp4")


def _declare(data: bytes, side: int) -> bytes:
    """A Motion JPEG file that states frames of side×side pixels, in its header and in every frame."""
    changed = bytearray(data)
    for tag, start in ((b"avih", 40), (b"strf", 12)):
        place = data.find(tag) + start
        changed[place : place + 8] = side.to_bytes(4, "little") * 2
    for match in re.finditer(rb"\xff\xc0\x00\x11\x08", data):
        changed[match.end() : match.end() + 4] = side.to_bytes(2, "big") * 2
    return bytes(changed)


def test_huge_frames_and_lengths_are_refused_before_decoding(
    clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "huge.avi").write_bytes(_declare(clips["avi"].read_bytes(), 16000))
    with pytest.raises(LimitError, match=r"16000×16000 \(256 megapixels\)"):
        VideoSubject.open(tmp_path / "huge.avi")
    with pytest.raises(LimitError, match="limit for clips is 0"):
        VideoSubject.open(clips["mp4"], Limits(max_pixels=10_000))
    monkeypatch.setattr(video, "MAX_SECONDS", 3.0)
    for name in ("mp4", "gif"):
        with pytest.raises(LimitError, match="hours"):
            VideoSubject.open(clips[name])
    monkeypatch.setattr(video, "MAX_GIF_FRAMES", 10)
    with pytest.raises(LimitError, match="more than 10 frames"):
        VideoSubject.open(clips["gif"])
    monkeypatch.setattr(video, "MAX_BYTES", 100)
    with pytest.raises(LimitError, match="GiB"):
        VideoSubject.open(clips["mp4"])


RARE = Calibration(threshold=1.0, false_positive_rate=0.004, n_clean=999, slope=4.0, offset=-4.0)


def answer(score: float, applies: bool = True) -> Finding:
    if not applies:
        return Finding.not_applicable("probe", "edit", "it is too dark")
    return RARE.apply(Finding("probe", "edit", score, "found", "clear", evidence=("here",)))


def test_a_clip_needs_as_many_frames_as_keep_its_false_alarms_rare() -> None:
    for n in (1, 2, 7, 30, 120):
        for rate in (0.0, 0.0004, 0.003, 0.009):
            k = frames_needed(n, rate)
            assert 1 <= k <= n
            assert n * rate / k <= CLIP_RATE + 1e-12
            assert k == 1 or n * rate / (k - 1) > CLIP_RATE
    times = [0.5 * k for k in range(20)]
    few, track = combine([answer(2.0 if k < 9 else 0.0) for k in range(20)], times, RARE)
    assert (track.needed, few.flagged) == (10, False)
    assert "Too few frames" in few.summary
    many, _ = combine([answer(2.0 if k < 10 else 0.0) for k in range(20)], times, RARE)
    assert many.flagged
    assert many.score == 2.0
    assert many.false_positive_rate == pytest.approx(0.01)
    assert many.evidence[0] == "10 of 20 frames between 0:00.0 and 0:04.5; 10 are needed to count."
    assert many.probability is not None
    assert few.probability is not None
    assert few.probability < many.probability < answer(2.0).probability


def test_false_alarms_stay_below_the_bound_however_frames_depend() -> None:
    rng = np.random.default_rng(0)
    n, clips = 30, 20_000
    needed = frames_needed(n, 0.005)
    independent = rng.random((clips, n)) < 0.005
    alike = np.repeat(rng.random((clips, 1)) < 0.005, n, axis=1)
    blocks = np.repeat(rng.random((clips, 2)) < 0.005, n // 2, axis=1)  # the worst case: exactly as many as needed
    assert needed == 15
    for flags in (independent, alike, blocks):
        assert (flags.sum(axis=1) >= needed).mean() <= CLIP_RATE * 1.2


def test_frames_where_an_examiner_does_not_apply_do_not_count() -> None:
    times = [float(k) for k in range(4)]
    found, track = combine([answer(0, False), answer(3.0), answer(0, False), answer(3.0)], times, RARE)
    assert found.details["frames_examined"] == 2
    assert track.scores == (None, 3.0, None, 3.0)
    assert found.flagged
    none, _ = combine([answer(0, False)] * 4, times, RARE)
    assert not none.applies
    assert "too dark" in none.summary


class Grey:
    """Sees the mean grey of a frame; the real slug makes it one of those that work on frames."""

    slug, kind = "noise_level", "edit"

    def find(self, subject) -> Finding:
        mean = float(subject.image.mean())
        map = np.full((6, 8), mean, np.float32)
        return Finding(self.slug, self.kind, mean, "bright", "dark", map=map, map_caption="grey")


class Reader:
    slug, kind = "container", "container"

    def find(self, subject) -> Finding:
        return Finding(self.slug, self.kind, 1.0, "more", "nothing more", flagged=True)


def test_an_examined_clip_has_a_time_line_and_its_strongest_frames(clips: dict[str, Path]) -> None:
    panel = Panel([Reader(), Grey()], {"noise_level": Calibration(0.5, 0.0, 999, 20.0, -10.0)})
    restarts: list[int] = []
    found, previews = examine_clip(VideoSubject.open(clips["mp4"]), panel, 0.5, lambda: restarts.append(1))
    clip = found.clip
    assert clip is not None
    assert len(restarts) == 9
    assert clip.times == pytest.approx([0.5 * k for k in range(8)])
    assert clip.tracks[0].flagged == (False,) * 6 + (True,) * 2
    assert found["noise_level"].flagged
    assert not found["container"].applies
    assert "decoded frames" in found["container"].summary
    assert (clip.frames[0].index, clip.frames[0].findings[0].flagged) == (7, True)
    assert [p.shape for p in previews] == [(96, 128, 3)] * len(clip.frames)
    assert found.verdict.level == "found"
    assert "8 frames were examined, one every 0.5 s" in found.verdict.sentences[-1]
    maps = [{f.examiner: f.map for f in frame.findings if f.map is not None} for frame in clip.frames]
    again = Findings.from_dict(found.to_dict(), frame_maps=maps)
    assert again.to_dict() == found.to_dict()
    assert again.clip is not None
    assert again.clip.frames[0].findings[0].map is maps[0]["noise_level"]


def test_the_file_of_an_animation_is_read_too(clips: dict[str, Path]) -> None:
    found, _ = examine_clip(VideoSubject.open(clips["gif"]), Panel([Reader(), Grey()]), 1.0)
    assert found["container"].flagged
    assert found.clip is not None
    assert [t.examiner for t in found.clip.tracks] == ["noise_level"]
