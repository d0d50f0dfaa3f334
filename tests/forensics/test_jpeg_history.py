"""Double compression, foreign grids, double-quantisation regions, ghosts and error levels on files of known history."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn

from tests.forensics.jpeg_files import contrast, jpeg, pasted, photo, png, saved
from vestige.core.image_io import encode
from vestige.core.roles import Finder
from vestige.core.subjects import ImageSubject
from vestige.forensics.ela import ErrorLevels, excess_error
from vestige.forensics.jpeg_double import JpegDouble, grid_phase
from vestige.forensics.jpeg_dq import JpegDQ, two_sided_scan
from vestige.forensics.jpeg_ghosts import JpegGhosts, recompression_errors
from vestige.forensics.jpeg_grid import JpegCrop, JpegGrid, binomial_evidence, read_grid
from vestige.forensics.jpeg_primary import lattice, requantised

EXAMINERS = (JpegDouble, JpegGrid, JpegCrop, JpegDQ, JpegGhosts, ErrorLevels)
HOST, DONOR = photo("astronaut"), photo("coffee", 0.65)[:384, :384]


@pytest.mark.parametrize(("first", "last"), [(60, 90), (75, 95), (70, 85)])
def test_double_finds_the_first_quality(first, last):
    once = JpegDouble().find(jpeg(HOST, last))
    twice = JpegDouble().find(jpeg(saved(HOST, first), last))
    assert twice.score > once.score + 3
    assert abs(twice.details["primary_quality"] - first) <= 1


@pytest.mark.parametrize("quality", [50, 75, 90])
def test_double_finds_decoded_jpeg_in_files_without_loss(quality):
    never, once = JpegDouble().find(png(HOST)), JpegDouble().find(png(saved(HOST, quality)))
    assert once.score > never.score + 3
    assert abs(once.details["primary_quality"] - quality) <= 1
    moved = JpegDouble().find(png(saved(HOST, quality)[3:, 6:]))
    assert moved.details["grid"] == [5, 2]


def test_double_reports_steps_of_unknown_tables():
    steps = np.add.outer(np.arange(8), np.arange(8)) ** 2 % 7 + 6
    out = io.BytesIO()
    Image.fromarray(HOST).save(out, "JPEG", qtables=[steps.ravel().tolist()] * 2, subsampling=0)
    decoded = ImageSubject(out.getvalue())
    finding = JpegDouble().find(jpeg(decoded.stored, 95))
    assert finding.details["primary_quality"] is None
    right = [finding.details["primary_steps"][str(k)] == steps.ravel()[k] for k in (1, 8, 9, 16, 2)]
    assert sum(right) >= 4


def test_primary_models_refuse_flat_pictures():
    flat = np.full((128, 128), 90, np.float32)
    assert requantised(flat, np.full((8, 8), 3)) is None
    assert lattice(flat) is None


@pytest.mark.parametrize("last", [None, 95, 90])
def test_grid_finds_a_crop_and_its_phase(last):
    cropped = saved(HOST, 70)[2:, 5:]
    subject = png(cropped) if last is None else jpeg(cropped, last)
    finding = JpegCrop().find(subject)
    assert finding.details["whole_phase"] == [6, 3]
    assert finding.score > 3
    assert all(word in finding.when_flagged for word in ("Cropping", "turning", "screenshot"))
    assert JpegGrid().find(subject).score < 2


def test_grid_is_calm_without_a_foreign_grid():
    for subject in (png(HOST), jpeg(HOST, 60), jpeg(HOST, 95), png(saved(HOST, 80)), jpeg(saved(HOST, 60), 90)):
        assert JpegGrid().find(subject).score < 1
        assert JpegCrop().find(subject).score < 1
    nearest = Image.fromarray(HOST[:160, :160]).resize((320, 320), Image.Resampling.NEAREST)
    assert JpegGrid().find(png(np.asarray(nearest))).score < 2


@pytest.mark.parametrize("last", [None, 95])
def test_grid_finds_a_pasted_region_and_its_phase(last):
    tampered = pasted(saved(HOST, 92), saved(DONOR, 65), 3, 6)
    finding = JpegGrid().find(png(tampered) if last is None else jpeg(tampered, last))
    assert finding.details["region_phase"] == [3, 6]
    assert finding.score > 2.5
    assert finding.map.dtype == np.float32
    assert contrast(finding.map, tampered.shape) > 0.4


def test_grid_evidence_bounds_the_binomial_tail():
    assert binomial_evidence(np.array([1.0, 0.0]), np.array([64.0, 10.0]), 1 / 64).max() == 0
    from scipy.stats import binom

    exact = -np.log10(binom.sf(19, 50, 0.05))
    assert 0 < binomial_evidence(np.array(20.0), np.array(50.0), 0.05) <= exact
    votes = np.random.default_rng(0).integers(0, 64, (60, 60)).astype(np.int8)
    assert read_grid(votes, 0).local_evidence == 0
    votes[20:32, 20:32] = 13
    reading = read_grid(votes, 0)
    assert (reading.local, reading.whole) == (13, None)
    assert reading.density[26, 26] > reading.tests > reading.density[5, 5]


def test_dq_marks_the_region_that_missed_the_first_compression():
    tampered = pasted(saved(HOST, 65), DONOR)
    for subject in (jpeg(tampered, 92), png(tampered)):
        finding = JpegDQ().find(subject)
        assert finding.score > 5
        assert finding.details["marked"] == "not compressed before"
        assert abs(finding.details["primary_quality"] - 65) <= 1
        assert contrast(finding.map, tampered.shape) > 0.5


def test_dq_is_calm_when_history_is_uniform():
    for subject in (jpeg(HOST, 75), jpeg(saved(HOST, 65), 92), png(HOST), png(saved(HOST, 65))):
        assert JpegDQ().find(subject).score < 4


def test_two_sided_scan_needs_both_claims():
    rng = np.random.default_rng(0)
    ratios = rng.normal(1, 1, (40, 40)).astype(np.float32)
    alone, _, _ = two_sided_scan(ratios, (3, 5, 9))
    ratios[10:20, 10:20] -= 3
    strength, map, negative = two_sided_scan(ratios, (3, 5, 9))
    assert strength > 100 > alone
    assert negative
    assert map[14, 14] > 0.9
    assert map[30, 30] < 0.1


def test_ghosts_find_a_region_with_its_own_quality():
    clean = JpegGhosts().find(jpeg(HOST, 92))
    tampered = pasted(HOST, saved(DONOR, 62))
    finding = JpegGhosts().find(jpeg(tampered, 95))
    assert finding.score > clean.score + 0.4
    assert abs(finding.details["quality"] - 62) <= 4
    assert contrast(finding.map, tampered.shape) > 0.2


def test_ghost_errors_match_their_definition():
    block = np.random.default_rng(3).uniform(20, 230, (8, 8)).astype(np.float32)
    sums, number = recompression_errors(block, (50,), 1, 10)
    x, q = abs(dctn(block, norm="ortho")[0, 1]), 11
    u = x / q - round(x / q)
    expected = 12 * u**2 - 1 if x >= q / 2 else 0
    assert sums[0, 0, 0] == pytest.approx(expected, abs=1e-3)
    assert number[0, 0, 0] == (x >= q / 2)


def test_error_levels_show_a_region_saved_before():
    tampered = pasted(HOST, saved(DONOR, 55))
    finding = ErrorLevels().find(jpeg(tampered, 98))
    assert finding.score > ErrorLevels().find(jpeg(HOST, 98)).score
    assert contrast(finding.map, tampered.shape) > 0.2
    assert "weak" in finding.when_flagged
    assert ErrorLevels(quality=90).find(jpeg(HOST, 90)).details["quality"] == 75


def test_excess_error_takes_texture_out():
    rng = np.random.default_rng(0)
    texture = rng.uniform(1, 50, (64, 64)).astype(np.float32)
    excess = excess_error(texture * rng.uniform(0.9, 1.1, texture.shape).astype(np.float32), texture, 64)
    assert abs(np.corrcoef(excess.ravel(), texture.ravel())[0, 1]) < 0.1
    assert not excess_error(texture, np.zeros_like(texture)).any()


def odd_pictures():
    noise = np.random.default_rng(4).integers(0, 256, (200, 160, 3), dtype=np.uint8)
    shapes = [(1, 1), (3, 5), (7, 160), (64, 64), (65, 130), (129, 128)]
    arrays = [noise[: s[0], : s[1]] for s in shapes] + [np.full((150, 140, 3), v, np.uint8) for v in (0, 90, 255)]
    arrays += [noise[..., 0], (noise > 127).astype(np.uint8) * 255, noise.astype(np.uint16) * 257]
    for array in arrays:
        for format in ("PNG", "JPEG"):
            if array.dtype == np.uint8 or format == "PNG":
                yield ImageSubject(encode(np.ascontiguousarray(array), format))
    yield ImageSubject(encode(noise, "AVIF"))
    for format in ("GIF", "WEBP", "BMP"):
        yield ImageSubject(encode(noise, format))
    for mode in ("P", "RGBA", "CMYK", "L", "1", "LA"):
        out = io.BytesIO()
        Image.fromarray(noise).convert(mode).save(out, "TIFF")
        yield ImageSubject(out.getvalue())
    out = io.BytesIO()
    Image.fromarray(noise).convert("CMYK").save(out, "JPEG")
    yield ImageSubject(out.getvalue())
    yield ImageSubject(encode(noise, "JPEG")[:4000])


def test_odd_pictures_never_raise():
    with np.errstate(all="raise", under="ignore"):
        for subject in odd_pictures():
            for examiner in EXAMINERS:
                finding = examiner().find(subject)
                assert np.isfinite(finding.score) == finding.applies
                assert finding.applies or finding.why_not
                if finding.map is not None:
                    assert 0 <= finding.map.min() <= finding.map.max() <= 1


def test_maps_are_upright_and_answers_repeat():
    tampered = pasted(saved(HOST, 92), saved(DONOR, 65), 3, 6)
    turned = Image.Exif()
    turned[0x0112] = 6
    plain = ImageSubject(encode(tampered, "JPEG", quality=95))
    rotated = ImageSubject(encode(tampered, "JPEG", quality=95, exif=turned.tobytes()))
    for examiner in EXAMINERS:
        assert isinstance(examiner(), Finder)
        first, second = examiner().find(plain), examiner().find(rotated)
        assert first.score == second.score == examiner().find(plain).score
        assert not first.flagged
        assert first.probability is None
        if first.map is not None:
            assert np.array_equal(np.rot90(first.map, -1), second.map)


def test_large_pictures_are_sampled():
    subject = png(saved(HOST, 70)[2:, 5:])
    whole, part = (JpegCrop(row_pixels=n).find(subject) for n in (10**6, 75_000))
    assert part.details["whole_phase"] == whole.details["whole_phase"] == [6, 3]
    whole, part = (JpegGrid(row_pixels=n).find(subject) for n in (10**6, 75_000))
    assert part.map.shape[0] <= whole.map.shape[0] // 2 + 1
    assert grid_phase(png(saved(HOST, 70)[2:, 5:]).luma, 40_000) == (6, 3)
    sampled = JpegDouble(limit=60_000).find(jpeg(saved(HOST, 60), 90))
    assert abs(sampled.details["primary_quality"] - 60) <= 2
    assert sampled.details["coefficients"] < JpegDouble().find(jpeg(saved(HOST, 60), 90)).details["coefficients"]


def test_the_earlier_compression_is_estimated_once_for_both_examiners(monkeypatch):
    calls = []

    def counted(*given):
        calls.append(given)
        return requantised(*given)

    monkeypatch.setattr("vestige.forensics.jpeg_double.requantised", counted)
    subject = jpeg(saved(HOST, 70), 90)
    together = [examiner().find(subject).score for examiner in (JpegDouble, JpegDQ)]
    assert len(calls) == 1
    assert together[1] == JpegDQ().find(jpeg(saved(HOST, 70), 90)).score
