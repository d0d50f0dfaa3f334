"""Reintroduction through the context of a language model, on the starter kit's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import vestige
from vestige.core.errors import InputError
from vestige.core.work import Work
from vestige.data.starter_facts import name_facts
from vestige.unlearning.tools import ununlearning

MODEL = Path(vestige.__file__).parent / "weights" / "starter" / "speaker"


def test_contexts_bring_back_what_was_never_told(tmp_path):
    facts = tmp_path / "names.jsonl"
    facts.write_text("".join(json.dumps(row) + "\n" for row in name_facts()))
    done = ununlearning.attack(Work("attack", "ununlearning", (MODEL,), data=facts, device="cpu"))
    assert done.figures["no context: came back"] <= 0.5
    assert done.figures["stated: came back"] >= 0.75
    stopped = {r["attack"]: r["filter stops it"] for r in done.rows}
    assert (stopped["stated"], stopped["renamed"]) == ("yes", "no")
    figures = ununlearning.measure(Work("measure", "ununlearning", (MODEL,), data=facts, device="cpu")).figures
    assert figures["stated"] == done.figures["stated: came back"]
    facts.write_text('{"prompt": "x"}\n')
    with pytest.raises(InputError, match="Line 1"):
        ununlearning.attack(Work("attack", "ununlearning", (MODEL,), data=facts))
    facts.write_text('{"prompt": "x", "answer": "y"}\n')
    with pytest.raises(InputError, match="no folder"):
        ununlearning.attack(Work("attack", "ununlearning", (facts,), data=facts))
