"""Scenes take the place of photographs that are not there, and never of a pack that is damaged."""

from __future__ import annotations

import numpy as np
import pytest

from vestige.core.errors import InputError
from vestige.data.contents import content_set
from vestige.data.fakes import SOURCES
from vestige.data.packs import has_pack
from vestige.data.stand_in import photographs_or_scenes
from vestige.engines.fakes import zoo_squares
from vestige.engines.marking.job import training_pictures
from vestige.engines.marking.mixture import scenes_and_photos
from vestige.forensics.laundering_data import photographs

ZOO_SOURCE = next(iter(SOURCES.values()))
READERS = (
    lambda: photographs_or_scenes("val", 32, limit=64),
    lambda: training_pictures(32, limit=8),
    lambda: scenes_and_photos(32, scenes=2, held=2, limit=8),
    lambda: zoo_squares(32, 1, limit=8),
    lambda: photographs("val", size=32, limit=8),
    lambda: content_set("test", [ZOO_SOURCE], each=1, size=32),
)


def test_scenes_of_the_parts_differ(monkeypatch, tmp_path):
    monkeypatch.setenv("VESTIGE_DATA", str(tmp_path))
    assert not has_pack("photos")
    parts = [photographs_or_scenes(part, 32, limit=32) for part in ("train", "val", "test")]
    assert [part.shape for part in parts] == [(32, 3, 32, 32), (4, 3, 32, 32), (4, 3, 32, 32)]
    assert all(part.dtype == np.uint8 for part in parts)
    seen = {image.tobytes() for part in parts for image in part}
    assert len(seen) == 40
    assert photographs_or_scenes("val", 64, limit=32, scene_size=48).shape == (4, 3, 48, 48)


@pytest.mark.parametrize("read", READERS)
def test_a_damaged_pack_is_reported(read, monkeypatch, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "train.parquet").write_bytes(b"PAR1 no parquet file")
    monkeypatch.setenv("VESTIGE_DATA", str(tmp_path))
    assert has_pack("photos")
    with pytest.raises(InputError, match=r"train\.parquet"):
        read()


def test_a_data_folder_that_is_not_there_is_reported(monkeypatch, tmp_path):
    monkeypatch.setenv("VESTIGE_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="VESTIGE_DATA"):
        photographs_or_scenes("val", 32)
