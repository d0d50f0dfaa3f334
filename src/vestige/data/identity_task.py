"""Tasks whose classes do not follow identity, with persons parted into forget, retain, test and unseen."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import decode
from vestige.core.runtime import rng
from vestige.data.packs import Pack, resize

PARTS = ("forget", "retain", "test", "unseen")
#: Age groups of MUFAC, by the letter its table gives.
AGES = ("0-6", "7-12", "13-19", "20-30", "31-45", "46-55", "56-66", "67-80")
#: Directions the light of `lit_faces` comes from.
LIGHTS = 8


@dataclass(frozen=True)
class IdentityTask:
    """images: uint8 N×3×H×W. labels: int64 N. persons: N keys (person or household). part: N names of `PARTS`.

    Raises InputError when somebody is in two parts, forget and retain included, or a part is empty.
    """

    images: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    persons: np.ndarray = field(repr=False)
    part: np.ndarray = field(repr=False)
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        owner: dict[str, str] = {}
        for person, part in zip(self.persons.tolist(), self.part.tolist(), strict=True):
            if owner.setdefault(person, part) != part:
                raise InputError(
                    f"{person} is in the parts {owner[person]!r} and {part!r}; persons must not be shared."
                )
        for part in PARTS:
            if part not in owner.values():
                raise InputError(f"No picture is in the part {part!r}; give more persons.")

    def where(self, part: str) -> np.ndarray:
        """Positions of the pictures of a part: one of `PARTS`, or another that the task has."""
        if part not in PARTS and part not in self.part:
            raise UsageError(f"part is {part!r}; choose one of {', '.join(PARTS)}.")
        return np.flatnonzero(self.part == part)


def parted(persons: Sequence[str], counts: Mapping[str, int], seed: int = 0) -> dict[str, str]:
    """Persons -> parts at random, so many of each as ``counts`` says. Raises InputError when there are too few.

    >>> sorted(parted(["a", "b"], {"forget": 1, "test": 1}).values())
    ['forget', 'test']
    """
    names = sorted(set(persons))
    if sum(counts.values()) > len(names):
        raise InputError(f"There are {len(names)} persons; {sum(counts.values())} are asked for.")
    order = [names[i] for i in rng(seed, "identity parts").permutation(len(names))]
    made: dict[str, str] = {}
    at = 0
    for part, count in counts.items():
        made |= dict.fromkeys(order[at : at + count], part)
        at += count
    return made


def lit_faces(
    pack: Pack, *, counts: Mapping[str, int] | None = None, views: int = 3, strength: float = 30.0, seed: int = 0
) -> IdentityTask:
    """Photographs of persons (``pack.labels``), each lit ``views`` times from one of eight directions drawn at random.

    The label is the direction, so it has nothing to do with who is seen; strength: of the added gradient in grey levels
    at the border. counts: persons in each part, 9 / 11 / 4 / 8 by default. Pictures keep their size.
    """
    counts = counts or {"forget": 9, "retain": 11, "test": 4, "unseen": 8}
    persons = [pack.class_names[label] for label in pack.labels]
    where = parted(persons, counts, seed)
    chosen = np.array([i for i, p in enumerate(persons) if p in where]).repeat(views)
    draw = rng(seed, "light")
    labels = draw.integers(0, LIGHTS, len(chosen))
    height, width = pack.images.shape[2:]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle = 2 * np.pi * labels / LIGHTS
    light = np.cos(angle)[:, None, None] * x + np.sin(angle)[:, None, None] * y
    images = pack.images[chosen] + strength * light[:, None]
    owners = np.array([persons[i] for i in chosen])
    part = np.array([where[p] for p in owners])
    names = tuple(f"{360 * i // LIGHTS}°" for i in range(LIGHTS))
    return IdentityTask(images.round().clip(0, 255).astype(np.uint8), labels, owners, part, names)


def styled_scenes(
    counts: Mapping[str, int] | None = None,
    *,
    size: int = 32,
    views: int = 2,
    strength: float = 1.0,
    seed: int = 0,
) -> IdentityTask:
    """Rendered scenes in place of persons, as many as statistics need: each scene in ``views`` styles drawn at random.

    The label is the style, which has nothing to do with what the scene shows. strength: how far each picture goes from
    the scene's photograph to the style; a small one makes a task that a network partly learns by heart, as it learns
    the age of a face, and without that nothing can be forgotten. counts: scenes in each part, 400 / 800 / 200 / 400 by
    default.
    """
    from vestige.data.scenes import STYLES, render, sample_scene

    counts = counts or {"forget": 400, "retain": 800, "test": 200, "unseen": 400}
    part = np.concatenate([np.full(n * views, name, dtype=object) for name, n in counts.items()]).astype(str)
    total = sum(counts.values())
    labels = rng(seed, "styles").integers(0, len(STYLES), total * views)
    images = np.empty((total * views, 3, size, size), np.uint8)
    for i, label in enumerate(labels):
        scene = sample_scene(seed * 1_000_003 + i // views, n_objects=1)
        made = render(replace(scene, style=STYLES[label]), size).image
        if strength != 1:
            plain = render(replace(scene, style="photo"), size).image
            made = (plain + np.float32(strength) * (made - plain)).clip(0, 1)
        images[i] = made * np.float32(255) + np.float32(0.5)
    owners = np.array([f"scene {i // views}" for i in range(total * views)])
    return IdentityTask(images, labels, owners, part, STYLES)


def load_mufac(folder: str | Path, size: int = 128, *, forget: int = 1500) -> IdentityTask:
    """The published MUFAC layout: custom_{train,val,test}_dataset.csv (family_id, age_class a-h, image_path) next to
    train_images/, val_images/ and test_images/.

    Test households are those of "val", unseen ones those of "test", as in the published split. Forget: the first
    ``forget`` training pictures by household; a household that this would cut goes to the forget part as a whole.
    Raises InputError for a file or column that is missing, or a class out of range.
    """
    root = Path(folder)
    images, labels, persons, parts = [], [], [], []
    for name, part in (("train", "retain"), ("val", "test"), ("test", "unseen")):
        for row in sorted(_table(root / f"custom_{name}_dataset.csv"), key=lambda r: (r["family_id"], r["image_path"])):
            letter = row["age_class"].strip().lower()
            if len(letter) != 1 or letter not in "abcdefgh":
                raise InputError(f"{row['image_path']} has the age class {row['age_class']!r}; a to h are known.")
            images.append(_picture(root / f"{name}_images", row["image_path"], size))
            labels.append("abcdefgh".index(letter))
            persons.append(row["family_id"])
            parts.append(part)
    first = [i for i, p in enumerate(parts) if p == "retain"]
    gone = {persons[i] for i in first[:forget]}
    parts = ["forget" if p == "retain" and who in gone else p for p, who in zip(parts, persons, strict=True)]
    return IdentityTask(np.stack(images), np.array(labels), np.array(persons), np.array(parts), AGES)


def load_mucac(
    folder: str | Path, task: str = "Smiling", size: int = 128, *,
    shares: Mapping[str, float] | None = None, seed: int = 0,
) -> IdentityTask:  # fmt: skip
    """The layout of CelebA-HQ behind MUCAC: CelebA-HQ-img/, CelebA-HQ-identity.txt ("0.jpg 1234" a line) and
    CelebA-HQ-attribute.txt or CelebAMask-HQ-attribute-anno.txt (a count, the names, "0.jpg -1 1 …" a line).

    task: the attribute (Male, Smiling, Young, …), two classes. shares: of the persons in each part, by default 15 % to
    forget, 60 % retained, 10 % test, 15 % unseen; the published lists of persons are not part of that layout. Raises
    InputError for what is missing.
    """
    root = Path(folder)
    names = ("CelebA-HQ-attribute.txt", "CelebAMask-HQ-attribute-anno.txt")
    found = next((root / n for n in names if (root / n).is_file()), None)
    if found is None or not (root / "CelebA-HQ-identity.txt").is_file():
        raise InputError(f"{root} needs CelebA-HQ-identity.txt and one of {', '.join(names)}.")
    lines = found.read_text().splitlines()
    columns = lines[1].split() if len(lines) > 1 else []
    if task not in columns:
        raise InputError(f"{found.name} has no attribute {task!r}; it has {', '.join(columns) or 'none'}.")
    who = dict(line.split()[:2] for line in (root / "CelebA-HQ-identity.txt").read_text().splitlines() if line.strip())
    at = columns.index(task)
    rows = [line.split() for line in lines[2:] if line.strip()]
    persons = sorted({who[r[0]] for r in rows if r[0] in who})
    shares = shares or {"forget": 0.15, "retain": 0.6, "test": 0.1, "unseen": 0.15}
    where = parted(persons, {part: max(1, int(s * len(persons))) for part, s in shares.items()}, seed)
    rows = [r for r in rows if who.get(r[0]) in where]
    images = [_picture(root / "CelebA-HQ-img", r[0], size) for r in rows]
    labels = np.array([int(r[1 + at] == "1") for r in rows], np.int64)
    owners = np.array([who[r[0]] for r in rows])
    if not images:
        raise InputError(f"{root} has no picture with both an identity and attributes.")
    return IdentityTask(np.stack(images), labels, owners, np.array([where[o] for o in owners]), (f"not {task}", task))


def _table(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise InputError(f"{path.parent} has no {path.name}, which this layout needs.")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    missing = {"family_id", "age_class", "image_path"} - set(rows[0] if rows else ())
    if missing:
        raise InputError(f"{path} has no column {sorted(missing)[0]!r} or no row.")
    return rows


def _picture(folder: Path, name: str, size: int) -> np.ndarray:
    path = folder / Path(name).name  # the table must not lead out of the folder
    if not path.is_file():
        raise InputError(f"{folder} has no picture {Path(name).name}, which the table names.")
    return resize(decode(path.read_bytes(), path.name).pixels, (size, size)).transpose(2, 0, 1)
