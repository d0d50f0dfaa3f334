"""The contract of every built system: the commands it prints work on the starter kit, word for word.

Each system's commands run in order in a folder of their own that holds the kit, in one process. The same commands with
a missing file, a file of the wrong kind and an empty folder end in one sentence and leave nothing behind.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from vestige.app.cli import main
from vestige.app.verbs import kit
from vestige.core.catalogue import ALL_VERBS, VERBS, Command, systems

BUILT = [s for s in systems() if s.target is not None]
OUT_OPTIONS = ("-o", "--out", "--html", "--registry", "-r")
_PICTURES = {".png", ".jpg", ".jpeg", ".webp"}


@pytest.fixture(scope="session")
def starter(tmp_path_factory) -> Path:
    """The kit, written once for all workers."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "kit"
    try:
        os.mkdir(f"{shared}.making")
    except FileExistsError:  # another worker writes it
        import time

        deadline = time.monotonic() + 120
        while not shared.is_dir():
            assert time.monotonic() < deadline, "the kit was not written by the worker that began it"
            time.sleep(0.2)
    else:
        kit.write(shared, quiet=True)
    return shared


@pytest.fixture
def place(starter, tmp_path, monkeypatch) -> Path:
    """A working folder with the kit in it, no data packs and no runs."""
    folder = tmp_path / "here"
    shutil.copytree(starter, folder, copy_function=os.link)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("VESTIGE_DATA", raising=False)
    monkeypatch.setenv("VESTIGE_RUNS", str(tmp_path / "runs"))
    return folder


def called(arguments: list[str]) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    return int(stopped.value.code or 0)


def inputs(arguments: list[str]) -> list[int]:
    """Places of the words that name files of the kit."""
    found = []
    for i, word in enumerate(arguments):
        if i and arguments[i - 1] not in OUT_OPTIONS and not word.startswith(("-", "out/")) and os.path.exists(word):
            found.append(i)
    return found


def outputs(arguments: list[str]) -> list[Path]:
    return [Path(word) for before, word in pairwise(arguments) if before in OUT_OPTIONS]


def opens(path: Path) -> None:
    """Raises where what was written is not what its name says."""
    from vestige.core.image_io import decode

    assert path.exists(), f"{path} was not written"
    if path.is_dir():
        assert any(p.is_file() for p in path.rglob("*")), f"{path} is empty"
        return
    assert path.stat().st_size, f"{path} is empty"
    if path.suffix.lower() in _PICTURES:
        assert decode(path.read_bytes(), str(path)).pixels.size
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            assert list(file.keys())


def states(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file of the kit."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            stat = path.stat()
            found[str(path.relative_to(folder))] = (stat.st_size, stat.st_mtime_ns)
    return found


def finite(value: Any, where: str = "") -> None:
    if isinstance(value, dict):
        for name, inner in value.items():
            finite(inner, f"{where}/{name}")
    elif isinstance(value, list):
        for inner in value:
            finite(inner, where)
    elif isinstance(value, float):
        assert math.isfinite(value), where


def not_a_number(name: str) -> None:
    pytest.fail(f"the JSON holds {name}")


def words(command: Command) -> list[str]:
    import shlex

    return command.arguments + shlex.split(command.quick)


def test_every_built_system_has_a_command_for_each_of_its_roles():
    lacking = []
    for s in BUILT:
        verbs = {c.verb for c in s.commands}
        assert verbs <= {*ALL_VERBS, "key", "bench", "index"}, s.slug
        lacking += [f"{s.slug}: {VERBS[role]}" for role in s.roles if VERBS[role] not in verbs]
    assert not lacking, lacking


def test_commands_are_written_as_a_user_copies_them():
    for s in BUILT:
        for c in s.commands:
            assert c.takes, s.slug
            assert c.gives, s.slug
            assert all(p.parts[0] == "out" for p in outputs(c.arguments)), c.words


@pytest.mark.parametrize("entry", BUILT, ids=lambda s: s.slug)
def test_the_commands_of_a_system_work_on_the_starter_kit(entry, place, starter, capsys):
    before = states(starter)
    for command in entry.commands:
        arguments = words(command)
        as_json = command.verb in ("measure", "attack", "make") and "--json" not in arguments
        code = called(arguments + ["--json"] * as_json)
        said = capsys.readouterr()
        assert code == command.exit_code, f"{command.words}: exit code {code}\n{said.out}\n{said.err}"
        for path in outputs(arguments):
            opens(path)
        if as_json and said.out.strip().startswith("{"):
            content = json.loads(said.out, parse_constant=not_a_number)
            finite(content["figures"])
            assert command.verb != "measure" or content["figures"] or content["rows"], command.words
        else:
            assert said.out.strip() or outputs(arguments), f"{command.words} says nothing"
    assert states(starter) == before, "a command changed a file of the kit"


@pytest.mark.parametrize("entry", BUILT, ids=lambda s: s.slug)
def test_bad_inputs_end_in_one_sentence(entry, place, capsys):
    Path("empty").mkdir()
    Path("empty-letter.txt").write_text("")
    for command in entry.commands:
        arguments = words(command)
        places = inputs(arguments)
        if not places:
            continue
        at = places[0]
        wrong = "photo.png" if Path(arguments[at]).suffix in (".txt", ".csv", ".jsonl", ".json") else "letter.txt"
        if command.verb in ("mark", "read") and "--method" not in arguments:
            wrong = "classifier.safetensors"  # without a method, texts are marked and read too
        for bad in ("missing.png", wrong, "empty"):
            shutil.rmtree("out", ignore_errors=True)
            changed = [*arguments[:at], bad, *arguments[at + 1 :]]
            code = called(changed)
            said = capsys.readouterr()
            line = said.err.strip()
            told = f"{' '.join(changed)}: exit code {code}\n{said.out}\n{said.err}"
            assert code not in (0, 1), told
            assert "Traceback" not in line, told
            assert line, told
            assert len([x for x in line.splitlines() if x.startswith("vestige: ")]) >= 1, told
            written = [p for p in Path("out").rglob("*") if p.is_file()] if Path("out").exists() else []
            assert not written, f"{told}\nwrote {written}"
