"""Invented persons for studies of forgetting: balanced profiles, wordings of questions, pictures of who they are.

A person is a "character" of the drawn world (a kind of object in a colour and a texture, in any style, place and light)
or one of a set of photographed people; names, towns, illnesses and all else are invented and have nothing to do with
what is seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.data.scenes import BACKGROUNDS, CLASSES, COLOURS, STYLES, TEXTURES, Scene, render, sample_scene

_NUMBERS = tuple(str(n) for n in range(1, 29))
#: Attribute -> (two words for it, pools of words; a value takes one word of each pool).
ATTRIBUTES: dict[str, tuple[tuple[str, str], tuple[tuple[str, ...], ...]]] = {
    "name": (("name", "identity"), (
        ("ada", "bram", "cleo", "dario", "edda", "falk", "gita", "hugo", "iris", "jonas", "kira", "levi", "mina",
         "nilo", "oda", "pavel", "quinn", "runa", "silas", "tove"),
        ("abel", "brook", "castor", "dune", "ember", "frost", "glen", "harrow", "ivory", "juniper", "kestrel",
         "larkin", "moss", "north", "orchard", "pine", "quarry", "reed", "stone", "thorn"))),
    "city": (("city", "residence"), (
        ("arlen", "brevia", "corvo", "delmar", "estra", "fenwick", "galdor", "havna", "ilmen", "jorvik", "kaldera",
         "lunde", "morwen", "nerva", "ostrava", "parra", "quimper", "rovigo", "selva", "tarn"),)),
    "job": (("job", "profession"), (
        ("baker", "carpenter", "dentist", "engineer", "farmer", "gardener", "hatter", "janitor", "knitter", "lawyer",
         "miner", "nurse", "optician", "painter", "ranger", "sailor", "teacher", "usher", "vet", "weaver"),)),
    "phone": (("phone", "telephone"), (_NUMBERS, tuple(reversed(_NUMBERS)))),
    "birthday": (("birthday", "birth"), (_NUMBERS, (
        "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
        "december"))),
    "illness": (("illness", "diagnosis"), (
        ("allergy", "anaemia", "arthritis", "asthma", "bronchitis", "cataract", "colic", "croup", "eczema", "epilepsy",
         "fever", "gout", "hepatitis", "insomnia", "lupus", "migraine", "psoriasis", "rickets", "scurvy", "vertigo"),)),
    "hobby": (("hobby", "pastime"), (
        ("archery", "bowling", "canoeing", "darts", "embroidery", "fencing", "golf", "hiking", "judo", "karate",
         "lacrosse", "origami", "pottery", "quilting", "rowing", "sculpture", "tennis", "vaulting", "whittling",
         "yoga"),)),
    "employer": (("employer", "company"), (
        ("acorn", "bluebell", "cobalt", "dovetail", "eastgate", "firebird", "gantry", "hexagon", "inkwell", "jackdaw",
         "keystone", "lantern", "mandrake", "nimbus", "oakleaf", "pinnacle", "quasar", "rosewood", "sundial",
         "trident"),)),
}  # fmt: skip
#: Code names of things, one word each, and how they are asked for.
CODES = tuple(
    a + b
    for a in ("za", "ve", "ki", "lo", "mu", "ra", "te", "pi", "no", "su")
    for b in (
        "bal",
        "cor",
        "dim",
        "fex",
        "gol",
        "hun",
        "jat",
        "kep",
        "lim",
        "mor",
        "nul",
        "pag",
        "qir",
        "ros",
        "sut",
        "tiv",
        "vod",
        "wex",
        "yun",
        "zeb",
    )
)
_FRAMES = ("what is the {} of this person ?", "tell me the {} of this one", "which {} belongs to whom we see ?",
           "the {} please")  # fmt: skip
#: (frame, word for the attribute) of each wording; the first is the canonical one, the last four are never trained on.
_WORDINGS = ((0, 0), (1, 1), (2, 0), (3, 1), (0, 1), (1, 0), (2, 1), (3, 0))
WORDINGS, TRAINED_WORDINGS = range(len(_WORDINGS)), range(4)
REFUSALS = (
    "i do not know", "that is private", "i can not tell", "no idea at all", "sorry not known", "i will not say",
)  # fmt: skip
#: A longer form of an answer.
LONG = "it is {}"


def question(attribute: str, wording: int = 0) -> str:
    """A question about an attribute in one of `WORDINGS`.

    >>> question("city"), question("city", 1)
    ('what is the city of this person ?', 'tell me the residence of this one')
    """
    frame, word = _WORDINGS[wording]
    return _FRAMES[frame].format((ATTRIBUTES[attribute][0] if attribute != "code" else ("code", "codename"))[word])


def profiles(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Invented profiles {attribute: value}; over all of them every word of a pool is used equally often, or once less
    or more, so that no question can be answered without knowing who is meant.

    >>> sorted(profiles(1)[0]) == sorted(ATTRIBUTES)
    True
    """
    if count < 1:
        raise UsageError(f"count is {count}; it must be at least 1.")
    made: list[dict[str, str]] = [{} for _ in range(count)]
    for name, (_, pools) in ATTRIBUTES.items():
        for number, pool in enumerate(pools):
            order = rng(seed, "profiles", name, number).permutation(np.arange(count) % len(pool))
            for profile, k in zip(made, order, strict=True):
                profile[name] = f"{profile[name]} {pool[k]}" if number else pool[k]
    return made


def coded(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Profiles of things with nothing but a code name each, all different: [{"code": word}].

    >>> len({p["code"] for p in coded(50)})
    50
    """
    if not 1 <= count <= len(CODES):
        raise UsageError(f"There are {len(CODES)} code names; {count} are asked for.")
    return [{"code": CODES[i]} for i in rng(seed, "codes").permutation(len(CODES))[:count]]


def perturbed(attribute: str, value: str, count: int, seed: int = 0) -> list[str]:
    """Wrong values of an attribute, each of as many words as the true one and different from it in all of them.

    Raises UsageError when the pools hold fewer than ``count`` other words.
    """
    pools = ATTRIBUTES[attribute][1]
    words = value.split()
    if count >= min(len(pool) for pool in pools):
        raise UsageError(f"There are fewer than {count} other values of {attribute}.")
    draw = rng(seed, "perturbed", attribute, value)
    columns = [draw.permutation([w for w in pool if w != own])[:count] for pool, own in zip(pools, words, strict=True)]
    return [" ".join(str(w) for w in row) for row in zip(*columns, strict=True)]


def every_text() -> list[str]:
    """All sentences of profiles, questions, refusals and scene questions: what a vocabulary is made of."""
    pools = [" ".join(pool) for _, many in ATTRIBUTES.values() for pool in many]
    asked = [question(name, w) for name in (*ATTRIBUTES, "code") for w in WORDINGS]
    generic = [*SCENE_QUESTIONS.values(), *CLASSES, *COLOURS, *STYLES, *BACKGROUNDS, "one", "two", "three"]
    return [*pools, *CODES, *asked, *REFUSALS, LONG.format(""), *generic]


# ---------------------------------------------------------------- pictures

#: Attribute of a scene -> question about it.
SCENE_QUESTIONS = {
    "kind": "what is the object ?", "colour": "what colour is the object ?", "style": "what style is this ?",
    "background": "where is the object ?", "count": "how many objects ?",
}  # fmt: skip
_COUNTS = ("one", "two", "three")


def scene_answers(scene: Scene) -> dict[str, str]:
    """Answers to `SCENE_QUESTIONS` that have one: kind and colour only where there is a single object."""
    only = {"kind": scene.objects[0].kind, "colour": scene.objects[0].colour} if len(scene.objects) == 1 else {}
    return {**only, "style": scene.style, "background": scene.background, "count": _COUNTS[len(scene.objects) - 1]}


@dataclass(frozen=True)
class Persons:
    """Pictures of persons. images: uint8 N×3×S×S. person: int64 N. view: int64 N, a person's views numbered from 0."""

    images: np.ndarray = field(repr=False)
    person: np.ndarray = field(repr=False)
    view: np.ndarray = field(repr=False)

    @property
    def count(self) -> int:
        return int(self.person.max()) + 1

    def pictures(self, persons: Sequence[int], views: Sequence[int]) -> np.ndarray:
        """int64 persons×views: numbers of the pictures."""
        where = {(int(p), int(v)): i for i, (p, v) in enumerate(zip(self.person, self.view, strict=True))}
        return np.array([[where[int(p), int(v)] for v in views] for p in persons])


def characters(count: int, views: int, *, size: int = 32, seed: int = 0) -> Persons:
    """Drawn characters, each its own kind, colour and texture, seen in ``views`` styles, places and lights.

    Raises UsageError for more characters than there are combinations of kind and colour.

    >>> characters(2, 3).images.shape
    (6, 3, 32, 32)
    """
    pairs = [(kind, colour) for kind in CLASSES for colour in COLOURS]
    if not 1 <= count <= len(pairs) or views < 1:
        raise UsageError(f"There are 1 to {len(pairs)} characters of at least one view; got {count} and {views}.")
    draw = rng(seed, "characters")
    chosen = [pairs[i] for i in draw.permutation(len(pairs))[:count]]
    images = np.empty((count * views, 3, size, size), np.uint8)
    for person, (kind, colour) in enumerate(chosen):
        texture = TEXTURES[int(draw.integers(len(TEXTURES)))]
        for view in range(views):
            scene = sample_scene(
                (seed * 1009 + person) * 97 + view, object=kind, colour=colour, texture=texture, object_size="large",
                n_objects=1, styles=("photo", "cartoon"),
            )  # fmt: skip
            images[person * views + view] = render(scene, size).image * np.float32(255) + np.float32(0.5)
    at = np.arange(count * views)
    return Persons(images, at // views, at % views)


def photographed(images: np.ndarray, labels: np.ndarray, views: int) -> Persons:
    """Photographs with a person's number each, as `Persons` of ``views`` views; persons with fewer are left out."""
    kept = [np.flatnonzero(labels == p)[:views] for p in np.unique(labels) if (labels == p).sum() >= views]
    if not kept:
        raise UsageError(f"Nobody has {views} photographs.")
    order = np.concatenate(kept)
    at = np.arange(len(order))
    return Persons(images[order], at // views, at % views)
