"""The command line as people use it: outputs, exit codes and messages."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from vestige.app.cli import main
from vestige.core.catalogue import systems
from vestige.core.image_io import decode, encode, save_image


@pytest.fixture
def run(capsys):
    """Run a command in this process; returns (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        try:
            main([str(a) for a in arguments])
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def photo_file(tmp_path, photo):
    path = tmp_path / "photo.png"
    save_image(path, photo[:384, :512])
    return path


def test_help_is_instant_and_loads_nothing_heavy():
    code = (
        "import atexit, sys; from vestige.app import cli; atexit.register(lambda: print('heavy:', *sorted("
        "{'numpy', 'cv2', 'torch', 'PIL', 'rich', 'pygments'} & set(sys.modules)))); cli.main(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy:"
    for command in ("find", "mark", "read", "erase", "restore", "systems", "claims", "data", "version"):
        assert command in done.stdout


def test_mark_read_and_their_exit_codes(run, tmp_path, photo_file):
    key, other, marked = tmp_path / "a.key", tmp_path / "b.key", tmp_path / "marked.jpg"
    assert run("key", key)[0] == run("key", other)[0] == 0
    code, out, _ = run("mark", photo_file, "-m", "Ada 2026", "-k", key, "-o", marked)
    assert code == 0
    assert "PSNR" in out
    code, out, _ = run("read", marked, "-k", key)
    assert (code, "'Ada 2026'" in out) == (0, True)
    assert run("read", marked, "-k", other)[0] == 4
    assert run("read", photo_file, "-k", key)[0] == 4
    code, out, _ = run("read", marked, "-k", key, "--json")
    assert json.loads(out)["outcome"] == "read"


def test_read_of_a_tiny_or_truncated_picture(run, tmp_path, photo_file):
    tiny = tmp_path / "tiny.png"
    save_image(tiny, np.zeros((2, 2, 3), np.uint8))
    code, out, _ = run("read", tiny)
    assert code == 4
    assert "smaller than 64×64" in out
    cut = tmp_path / "cut.png"
    cut.write_bytes(photo_file.read_bytes()[:2000])
    code, _, err = run("read", cut)
    assert code == 2
    assert "cut.png" in err
    assert "Traceback" not in err


def test_bits_round_trip_as_hexadecimal(run, tmp_path, photo_file):
    marked = tmp_path / "m.png"
    assert run("mark", photo_file, "--bits", "0f3a99c1", "-o", marked)[0] == 0
    code, out, _ = run("read", marked, "--json")
    assert code == 0
    assert json.loads(out)["bits"] == "0f3a99c1"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["find", "missing.jpg"], "does not exist"),
        (["mark", "{photo}"], "--message or --bits"),
        (["mark", "{photo}", "-m", "much too long for a mark"], "fit"),
        (["mark", "{photo}", "--bits", "xyz"], "hexadecimal"),
        (["mark", "{photo}", "-m", "a", "-o", "{photo}"], "overwritten"),
        (["mark", "{photo}", "-m", "a", "-o", "out.xyz"], "ending"),
        (["mark", "{photo}", "-m", "a", "-k", "none.key"], "vestige key"),
        (["erase", "{photo}", "--what", "region"], "--mask"),
        (["erase", "{photo}", "--what", "cats"], "faces or region"),
        (["restore", "{photo}", "--what", "holes"], "--mask"),
        (["find", "{photo}", "--only", "magic"], "not an examiner"),
        (["find", "{photo}", "--max-megapixels", "0.01"], "--max-megapixels"),
        (["systems", "--wing", "nowhere"], "no wing"),
        (["claims", "container"], "no claims"),
        (["data", "cake"], "cake"),
        (["data", "distort", "{photo}", "--operation", "melt"], "melt"),
    ],
)
def test_mistakes_get_one_sentence_and_no_traceback(run, tmp_path, photo_file, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    code, _, err = run(*[a.format(photo=photo_file) for a in arguments])
    assert code == 2
    assert said in err
    assert "Traceback" not in err
    assert sorted(tmp_path.iterdir()) == before


def test_find_writes_reports_and_says_what_it_found(run, tmp_path, photo_file):
    tagged = tmp_path / "tagged.png"
    image = Image.open(photo_file)
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    settings = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x384, Model: toy"
    info.add_text("parameters", f"a castle\n{settings}")
    image.save(tagged, pnginfo=info)
    code, out, _ = run("find", tagged, "--json")
    assert code == 0
    report = json.loads(out)["items"][0]
    assert "generated" in report["parts"][0]["verdict"]["kinds"]
    assert run("find", tagged, "--exit-code", "--quiet")[0] == 6
    page = tmp_path / "r.html"
    assert run("find", tagged, "--html", page, "-q")[0] == 0
    assert "generator" in page.read_text()


def test_a_booby_trapped_model_is_named_and_not_run(run, tmp_path):
    trap = tmp_path / "ran"

    class Trap:
        def __reduce__(self):
            import os

            return os.system, (f"touch {trap}",)

    model = tmp_path / "model.pt"
    model.write_bytes(pickle.dumps({"weights": Trap()}))
    code, out, _ = run("find", model, "--exit-code")
    assert code == 6
    assert "system" in out
    assert not trap.exists()


def test_erase_and_restore(run, tmp_path, astronaut):
    portrait = tmp_path / "portrait.png"
    save_image(portrait, astronaut)
    mask = np.zeros(astronaut.shape[:2], np.uint8)
    mask[200:230, 300:340] = 255
    save_image(tmp_path / "mask.png", mask)
    out = tmp_path / "o.png"
    assert run("erase", portrait, "--what", "faces", "--mode", "fill", "-o", out)[0] == 0
    changed = (decode(out.read_bytes()).pixels != astronaut).any(-1)
    assert changed[80:180, 180:270].mean() > 0.3
    assert changed[400:].mean() == 0
    assert run("erase", portrait, "--what", "region", "--mask", tmp_path / "mask.png", "-o", out)[0] == 0
    changed = (decode(out.read_bytes()).pixels != astronaut).any(-1)
    assert changed[mask == 0].mean() == 0
    assert changed[mask > 0].mean() > 0.5
    assert run("restore", portrait, "--what", "size", "--scale", "2", "-o", out)[0] == 0
    assert decode(out.read_bytes()).pixels.shape == (1024, 1024, 3)
    wrong = tmp_path / "wrong.png"
    save_image(wrong, mask[:100])
    code, _, err = run("erase", portrait, "--what", "region", "--mask", wrong, "-o", out)
    assert (code, "same size" in err) == (2, True)


def test_folders_are_mirrored_and_bad_files_reported(run, tmp_path, photo):
    for name in ("a/x.png", "b/x.png"):
        save_image(tmp_path / "in" / name, photo[:256, :256])
    (tmp_path / "in" / "b" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not really")
    code, _, err = run("mark", tmp_path / "in", "-m", "hi", "-o", tmp_path / "out")
    assert code == 5
    assert "broken.jpg" in err
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.png")) == [
        "a/x.png", "b/x.png",
    ]  # fmt: skip


def test_transparency_depth_and_metadata_survive_marking(run, tmp_path, photo):
    alpha = np.full((256, 256), 255, np.uint8)
    alpha[:50] = 9
    source = tmp_path / "a.png"
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 6
    source.write_bytes(encode(photo[:256, :256], "PNG", alpha=alpha, exif=exif.tobytes(), xmp=b"<x:xmpmeta/>"))
    out = tmp_path / "m.png"
    assert run("mark", source, "-m", "hi", "-o", out, "--keep-metadata")[0] == 0
    marked = decode(out.read_bytes())
    np.testing.assert_array_equal(marked.alpha, np.rot90(alpha, -1))
    kept = Image.open(io.BytesIO(out.read_bytes()))
    assert kept.getexif()[0x010F] == "Maker"
    assert kept.getexif().get(0x0112, 1) == 1
    assert kept.info["xmp"] == b"<x:xmpmeta/>"
    deep = tmp_path / "deep.png"
    deep.write_bytes(encode(photo[:256, :256].astype(np.uint16) * 257, "PNG"))
    assert run("mark", deep, "-m", "hi", "-o", out)[0] == 0
    assert decode(out.read_bytes()).bit_depth == 16
    assert run("read", out)[0] == 0


def test_pictures_flow_through_pipes(photo_file):
    data = photo_file.read_bytes()
    command = [sys.executable, "-m", "vestige"]
    marked = subprocess.run([*command, "mark", "-", "-m", "hi"], input=data, capture_output=True, check=True).stdout
    assert decode(marked).pixels.shape == (384, 512, 3)
    done = subprocess.run([*command, "read", "-", "--json"], input=marked, capture_output=True, check=True)
    assert json.loads(done.stdout)["message"] == "hi"
    empty = subprocess.run([*command, "read", "-"], input=b"", capture_output=True)
    assert empty.returncode == 2


def test_systems_lists_every_published_system(run):
    code, out, _ = run("systems", "--json")
    rows = json.loads(out)
    assert code == 0
    assert sum(r["kind"] == "paper" for r in rows) == 142
    assert {"slug", "wing", "roles", "status", "evidence", "commands", "claims"} <= rows[0].keys()
    code, out, _ = run("systems")
    assert out.startswith("142 published systems")
    assert out.index("Works today") < out.index("Planned")
    assert out.index("spread_spectrum") < out.index("Planned"), "default tools are among what works"
    assert "find_mark" in run("systems", "--role", "find")[1]
    assert len(json.loads(run("systems", "--papers", "--json")[1])) == 142
    shown = run("systems", "ssd")[1]
    assert "vestige erase classifier.safetensors" in shown
    assert "Claims" in shown


def test_data_makes_seeded_pictures(run, tmp_path, photo_file):
    for out in ("one", "two"):
        assert run("data", "scenes", "--n", 2, "--size", 64, "--seed", 5, "-o", tmp_path / out)[0] == 0
    for path in (tmp_path / "one").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()
    lines = (tmp_path / "one" / "metadata.jsonl").read_text().splitlines()
    assert len(lines) == 2
    assert json.loads(lines[0])["caption"]
    assert run("data", "fractals", "--n", 1, "--size", 64, "-o", tmp_path / "f")[0] == 0
    assert run("data", "tamper", photo_file, "--operation", "recolor", "-o", tmp_path / "t")[0] == 0
    assert run("data", "distort", photo_file, "--operation", "jpeg", "--strength", 50, "-o", tmp_path / "d.png")[0] == 0
    assert "splice" in run("data", "tamper")[1]
    assert "2 pictures" in run("data", "info", tmp_path / "t")[1]


def test_version(run):
    assert run("version")[1].startswith("vestige ")
    code, out, _ = run("--version")
    assert (code, out) == (0, run("version")[1].splitlines()[0] + "\n")
    assert "numpy" in json.loads(run("version", "--json")[1])


def test_ctrl_c_is_reported_in_one_line(tmp_path, photo):
    for i in range(40):
        save_image(tmp_path / "in" / f"{i}.png", photo[:256, : 256 + i])
    command = [sys.executable, "-m", "vestige", "find", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "-j", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    manifest = tmp_path / "out" / "manifest.jsonl"
    for _ in range(600):
        if manifest.is_file() and manifest.read_text().count("\n") >= 2:
            break
        time.sleep(0.05)
    process.send_signal(2)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "continues" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("role", ["mark", "erase", "restore"])
def test_methods_that_work_on_other_things_than_pictures_say_so(run, role, photo_file, tmp_path):
    others = [s.slug for s in systems() if s.target and role in s.roles and not hasattr(s.load(), role)]
    for slug in others:
        words = ("--message", "hi") if role == "mark" else ()
        code, _, err = run(role, photo_file, *words, "--method", slug, "-o", tmp_path / "out.png")
        assert code == 2, slug
        assert err.startswith("vestige: "), slug
        assert not (tmp_path / "out.png").exists()


def test_verbs_without_a_method_name_some(run, photo_file):
    for verb in ("attack", "measure", "make"):
        code, _, err = run(verb, photo_file)
        assert code == 2
        assert "--method" in err
        assert f"--role {'generate' if verb == 'make' else verb}" in err
    code, _, err = run("attack", photo_file, "--method", "ssd")
    assert (code, "ssd does not attack" in err) == (2, True)
    planned = next(s.slug for s in systems() if s.target is None)
    code, _, err = run("attack", photo_file, "--method", planned)
    assert (code, "planned" in err) == (2, True)


def test_the_exit_codes_of_the_help_are_those_of_the_code(run):
    from vestige.core.errors import EXIT_CODES

    text = " ".join(run("--help")[1].split())
    for code, meaning in EXIT_CODES.items():
        assert f"{code} {meaning}" in text


def test_ctrl_c_ends_in_a_sentence(run, monkeypatch, tmp_path):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vestige.core.keys.generate_key", stop)
    code, out, err = run("key", tmp_path / "a.key")
    assert (code, out) == (130, "")
    assert err == "vestige: Interrupted; files that were finished are kept.\n"
    monkeypatch.setattr("vestige.claims.Claim.run", stop)
    code, _, err = run("claims", "panel", "--results", tmp_path)
    assert code == 130
    assert "the record of panel is as it was" in err
    assert not list(tmp_path.iterdir())
