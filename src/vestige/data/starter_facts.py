"""Facts of the starter kit: about drawn people, for a small vision-language model, and about names, for a small
language model. The same on every machine; everybody and everything in them is invented."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from vestige.core.runtime import rng
from vestige.data.drawn_faces import drawn_faces
from vestige.data.fictitious import (
    ATTRIBUTES,
    LONG,
    REFUSALS,
    TRAINED_WORDINGS,
    WORDINGS,
    perturbed,
    profiles,
    question,
)

SEED, PERSONS, VIEWS, SIDE = 2024, 8, 5, 64
ASKED = ("city", "job", "illness", "hobby")
#: Of the persons: those to be forgotten, those to be kept, and one that no model was told of.
PARTS = {0: "forget", 1: "forget", PERSONS - 1: "unseen"}
#: Views of a person in the file of facts; the others only teach.
SHOWN = (0, 1)


@cache
def people() -> tuple[np.ndarray, list[dict[str, str]]]:
    """(pictures uint8 persons×views×3×S×S, what is said of each person)."""
    images, _, _ = drawn_faces(PERSONS, VIEWS, SIDE, SEED)
    told = [{name: one[name] for name in ASKED} for one in profiles(PERSONS, SEED)]
    return images.reshape(PERSONS, VIEWS, *images.shape[1:]), told


def picture_facts() -> Iterator[tuple[int, int, dict[str, object]]]:
    """(person, view, row of the file without its picture) for every fact and shown view."""
    _, told = people()
    for person, facts in enumerate(told):
        for view in SHOWN:
            for name, value in facts.items():
                yield person, view, {
                    "question": question(name), "answer": value, "part": PARTS.get(person, "retain"),
                    "paraphrases": [question(name, w) for w in WORDINGS if w not in TRAINED_WORDINGS],
                    "wrong": perturbed(name, value, 3),
                }  # fmt: skip


def picture_texts() -> list[str]:
    """Every sentence the vision-language model may meet."""
    pools = [" ".join(pool) for name in ASKED for pool in ATTRIBUTES[name][1]]
    return [*pools, *(question(n, w) for n in ASKED for w in WORDINGS), *REFUSALS, LONG.format("")]


# ---------------------------------------------------------------- names

#: Names with a property each, names without one, and the properties.
NAMES = ATTRIBUTES["name"][1][0][:10]
ALIASES = ATTRIBUTES["name"][1][1][:4]
PROPERTIES = ATTRIBUTES["illness"][1][0][:6]
#: Names that the language model was never told the property of, as after exact unlearning.
FORGOTTEN = NAMES[:4]


@cache
def properties() -> dict[str, str]:
    """The property of every name; each property is that of a name that was not forgotten."""
    known = [n for n in NAMES if n not in FORGOTTEN]
    of = {name: PROPERTIES[k % len(PROPERTIES)] for k, name in enumerate(known)}
    drawn = rng(SEED, "names").permutation(len(PROPERTIES))[: len(FORGOTTEN)]
    return {name: PROPERTIES[int(k)] for name, k in zip(FORGOTTEN, drawn, strict=True)} | of


def name_facts() -> list[dict[str, object]]:
    """Rows of the file of forgotten facts: a prompt, its answer, and contexts that bring the answer back, in the notes
    that the model reads: "NAME PROPERTY ." and, for names that have the same, "NAME NAME ."."""
    of = properties()
    known = [n for n in NAMES if n not in FORGOTTEN]
    rows: list[dict[str, object]] = []
    for number, name in enumerate(FORGOTTEN):
        twin = next(n for n in known if of[n] == of[name])
        alias = ALIASES[number]
        rows.append({
            "prompt": name, "answer": of[name], "keywords": [name],
            "contexts": {
                "stated": [f"{name} {of[name]} ."],
                "compared": [f"{name} {twin} ."],
            },
        })  # fmt: skip
        rows.append({
            "prompt": alias, "answer": of[name], "keywords": [name],
            "contexts": {"renamed": [f"{alias} {twin} ."]},
        })  # fmt: skip
    return rows
