import numpy as np
import pytest
import torch

from vestige.core.errors import UsageError
from vestige.engines.marking.mixture import PictureMix, scenes_and_photos


@pytest.fixture
def mix():
    draws = np.random.default_rng(0)
    scenes = draws.integers(0, 100, (5, 3, 16, 16), dtype=np.uint8)
    return PictureMix(scenes, draws.integers(150, 256, (3, 3, 40, 48), dtype=np.uint8), share=0.25, zoom=0.5)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_a_batch_depends_on_the_generator_alone(mix):
    assert torch.equal(mix.batch(8, seeded(1)), mix.batch(8, seeded(1)))
    assert not torch.equal(mix.batch(8, seeded(1)), mix.batch(8, seeded(2)))


def test_photographs_have_their_share_and_scenes_stay_whole(mix):
    batch = mix.batch(8, seeded(1))
    assert batch.shape == (8, 3, 16, 16)
    photo = batch.mean((1, 2, 3)) > 0.5
    assert photo.tolist() == [False] * 6 + [True] * 2
    scenes = torch.from_numpy(mix.scenes).float() / 255
    both = torch.cat([scenes, scenes.flip(3)])
    assert all(any(torch.equal(b, s) for s in both) for b in batch[:6])


def test_without_photographs_all_are_scenes(mix):
    assert float(PictureMix(mix.scenes).batch(6, seeded(0)).max()) < 0.5


def test_pictures_that_are_too_small_are_refused(mix):
    with pytest.raises(UsageError, match="16 pixels"):
        PictureMix(mix.scenes, mix.photos[..., :12])
    with pytest.raises(UsageError, match="squares"):
        PictureMix(mix.scenes[..., :12])


def test_a_data_folder_without_photographs_gives_scenes(tmp_path, monkeypatch):
    monkeypatch.setenv("VESTIGE_DATA", str(tmp_path))
    found, held = scenes_and_photos(32, 6, held=4, seed=3)
    assert found.photos is None
    assert {k: v.shape for k, v in held.items()} == {"scenes": (4, 3, 32, 32)}
    assert found.scenes.shape == (6, 3, 32, 32)
