"""Face forgeries change the inner face alone, leave the traces they are named for, and repeat exactly."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from skimage import data
from skimage.transform import resize

from vestige.core.errors import UsageError
from vestige.data.face_forgeries import FORGERIES, PALETTES, FaceBasis, forge_face, in_palette


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    """Crops of one photograph at several places, standing for people."""
    photo = data.astronaut().astype(np.float32) / 255
    crops = [
        photo[y : y + 160, x : x + 160] for y, x in ((0, 140), (10, 160), (30, 150), (60, 130), (250, 60), (300, 250))
    ]
    small = [resize(crop, (48, 40), anti_aliasing=True).transpose(2, 0, 1) for crop in crops]
    return (np.round(np.stack(small) * 255) / 255).astype(np.float32)


def _forge(faces: np.ndarray, kind: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return forge_face(faces[0], kind, donor=faces[4], basis=FaceBasis.of(faces[1:], 3), seed=seed)


@pytest.mark.parametrize("kind", FORGERIES)
def test_a_forgery_changes_the_inner_face_alone_in_eight_bits(faces, kind):
    forged, mask = _forge(faces, kind)
    assert (forged.shape, forged.dtype, mask.shape, mask.dtype) == (faces[0].shape, np.float32, (1, 48, 40), bool)
    assert 0.1 < mask.mean() < 0.6
    np.testing.assert_array_equal(forged[:, ~mask[0]], faces[0][:, ~mask[0]])
    assert np.abs(forged - faces[0])[:, mask[0]].mean() > 0.005
    np.testing.assert_allclose(forged * 255, np.round(forged * 255), atol=1e-3)
    np.testing.assert_array_equal(forged, _forge(faces, kind)[0])
    assert (forged != _forge(faces, kind, seed=1)[0]).any()


def test_a_swap_shows_the_donor_in_the_colours_of_the_face(faces):
    forged, mask = _forge(faces, "swap")
    inside = mask[0]
    likeness = [np.corrcoef(forged[:, inside].ravel(), other[:, inside].ravel())[0, 1] for other in faces[[4, 0]]]
    assert likeness[0] > likeness[1]
    np.testing.assert_allclose(forged[:, inside].mean(1), faces[0][:, inside].mean(1), atol=0.05)


def test_a_rerendered_face_lies_near_the_basis_and_resynthesis_removes_detail(faces):
    basis = FaceBasis.of(faces[1:], 3)
    drawn = basis.render(faces[0])
    np.testing.assert_allclose(basis.render(drawn), drawn, atol=1e-4)
    again = basis.render(faces[1])
    assert np.abs(again - faces[1]).mean() < np.abs(drawn - faces[0]).mean()


def test_palettes_differ_and_stay_in_range(faces):
    seen = [in_palette(faces[0], name) for name in PALETTES]
    assert all(p.min() >= 0 and p.max() <= 1 for p in seen)
    means = [p.mean() for p in seen]
    assert all(a > b + 0.02 for a, b in itertools.pairwise(means))


@pytest.mark.parametrize(
    ("kind", "options"),
    [("melt", {}), ("swap", {}), ("rerender", {}), ("swap", {"donor": np.zeros((3, 8, 8), np.float32)})],
)
def test_what_cannot_be_forged_is_said(faces, kind, options):
    with pytest.raises(UsageError):
        forge_face(faces[0], kind, **options)
    with pytest.raises(UsageError):
        forge_face(np.zeros((3, 8, 8), np.float32), "warp")
    with pytest.raises(UsageError):
        FaceBasis.of(faces[:1])
    with pytest.raises(UsageError):
        in_palette(faces[0], "mauve")
