"""Photographs of people with their age group as the task: who asks to be forgotten has nothing to do with the class."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vestige.core.errors import InputError
from vestige.core.runtime import rng
from vestige.data.identity_task import AGES, IdentityTask, styled_scenes
from vestige.data.packs import find_data_root, has_pack, load_pack

#: First year of each group but the first, as MUFAC has them.
_FROM = (7, 13, 20, 31, 46, 56, 67)
#: People in each part; the first half of "val" tests while parameters are chosen, the second is unseen.
COUNTS = {"forget": 750, "retain": 2250, "unseen": 750, "val": 1200, "test": 1000}


def age_group(years: int) -> int:
    """The number of the group in `AGES`; the oldest people are in the last.

    >>> age_group(6), age_group(7), age_group(90)
    (0, 1, 7)
    """
    return int(np.searchsorted(_FROM, years, side="right"))


def aged_people(counts: Mapping[str, int] | None = None, *, size: int = 48, seed: int = 0) -> IdentityTask:
    """People of the pack ``people``, one picture each, parted by the seed; test people are those of its own test file.

    Rendered scenes in faint styles stand in for them where the pack is missing, at 32 pixels. Raises InputError when
    there are too few people.
    """
    wanted = dict(COUNTS if counts is None else counts)
    if not has_pack("people"):
        return styled_scenes(wanted, views=1, strength=0.15, seed=seed)
    root = find_data_root()
    assert root is not None
    taught = sum(n for part, n in wanted.items() if part != "test")
    pack = load_pack(root / "people" / "train.parquet", size)
    test = load_pack(root / "people" / "test.parquet", size, limit=wanted["test"])
    if len(pack) < taught:
        raise InputError(f"The pack has {len(pack)} people; {taught} are asked for.")
    pack = pack.take(rng(seed, "aged people").permutation(len(pack))[:taught])
    part = [name for name, n in wanted.items() if name != "test" for _ in range(n)] + ["test"] * len(test)
    labels = np.array([age_group(int(a)) for a in (*pack.fields["age"], *test.fields["age"])], np.int64)
    who = np.array([f"person {i}" for i in range(len(part))])
    return IdentityTask(np.concatenate([pack.images, test.images]), labels, who, np.array(part), AGES)
