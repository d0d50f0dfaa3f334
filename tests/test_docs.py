"""The documentation says what the program does: exit codes, verbs, options, recipes, links."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
import typer.main

from vestige.app.cli import app
from vestige.core.catalogue import ALL_VERBS, system, systems
from vestige.core.errors import EXIT_CODES
from vestige.engines.recipe import recipe_modules

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_the_table_of_exit_codes_is_the_code_s():
    text = (ROOT / "docs/commands.md").read_text()
    rows = dict(re.findall(r"^\| (\d+) \| (.+?) \|$", text, re.M))
    assert {int(code): meaning for code, meaning in rows.items()} == EXIT_CODES


def test_every_command_is_documented():
    text = (ROOT / "docs/commands.md").read_text()
    for name, command in COMMANDS.items():
        if not command.hidden:
            assert re.search(rf"\b{name}\b", text), name
    assert [v for v in ALL_VERBS if v not in COMMANDS] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_in_the_documentation_exist_with_their_options(page):
    text = page.read_text().replace("\\\n", " ")
    for line in re.findall(r"(?:^|`|\| )\s*vestige ([a-z][^`\n|]*)", text, re.M):
        words = line.split("#")[0].split()
        name = words[0].rstrip(".,:;)")
        assert name in COMMANDS, f"{page.name}: vestige {line}"
        command = COMMANDS[name]
        if name == "bench" and len(words) > 1:
            command = command.commands.get(words[1], command)
        known = {o for p in getattr(command, "params", []) for o in p.opts}
        for word in words[1:]:
            option = word.split("=")[0].rstrip(".,:;)")
            if option.startswith("--") and len(option) > 2:
                assert option in known, f"{page.name}: vestige {name} has no {option}"
        if name == "learn" and len(words) > 1 and re.fullmatch(r"[a-z0-9_]+", words[1]):
            assert words[1] in recipe_modules(), f"{page.name}: there is no recipe {words[1]}"
        for before, after in pairwise(words):
            if before == "--method" and re.fullmatch(r"[a-z0-9_]+", after):
                system(after)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_readme_states_true_numbers():
    from vestige.bench.store import results_root, status

    text = (ROOT / "README.md").read_text()
    stated = re.search(r"(\d+) of (\d+) published systems work", text)
    assert stated, "README's first lines say how many systems work"
    papers = [s for s in systems() if s.kind == "paper"]
    working = sum(status(s, results_root()) == "works" for s in papers)
    assert (int(stated[1]), int(stated[2])) == (working, len(papers))
