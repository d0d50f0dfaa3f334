"""The synthetic world: seeded, exact, and clear enough that its classes and styles can be learned from it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vestige.core.errors import UsageError
from vestige.data.scenes import (
    BACKGROUNDS,
    CLASSES,
    COLOURS,
    LIGHTS,
    STYLES,
    TEXTURES,
    Camera,
    Scene,
    SceneObject,
    TextOverlay,
    contact_sheet,
    object_box,
    render,
    render_pack,
    render_video,
    render_views,
    sample_scene,
)

PLAIN = Scene((SceneObject("ball", "red", depth=1.1),), style="photo", background="snow", light="left")


def test_the_world_is_as_large_as_promised():
    assert len(CLASSES) >= 12
    assert len(STYLES) >= 8
    assert len(set(CLASSES)) == len(CLASSES)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from([32, 47, 64]), st.booleans())
def test_what_render_returns(seed, size, text):
    scene = sample_scene(seed, text=text)
    drawn = render(scene, size)
    k = len(scene.objects)
    assert drawn.image.shape == (3, size, size)
    assert drawn.image.dtype == np.float32
    assert drawn.image.min() >= 0
    assert drawn.image.max() <= 1
    assert np.isfinite(drawn.image).all()
    assert drawn.masks.shape == (k, size, size)
    assert drawn.masks.dtype == bool
    assert (drawn.masks.sum(axis=0) <= 1).all()
    assert drawn.depth.shape == (size, size)
    assert drawn.depth.dtype == np.float32
    assert drawn.depth.min() > 0
    for item, mask in zip(scene.objects, drawn.masks):
        np.testing.assert_allclose(drawn.depth[mask], item.depth, rtol=1e-5)
        assert mask.sum() > 0.008 * size * size  # nothing is hidden or tiny
    assert drawn.text_masks.shape == (int(text), size, size)
    if text:
        assert drawn.text_masks.sum() > 10
    assert drawn.caption == scene.caption


@pytest.mark.parametrize("style", STYLES)
def test_same_seed_same_bytes_and_other_seed_other_picture(style):
    first = render(sample_scene(11, style=style), 64).image
    assert first.tobytes() == render(sample_scene(11, style=style), 64).image.tobytes()
    assert np.abs(first - render(sample_scene(12, style=style), 64).image).mean() > 0.01


def test_the_number_of_objects_texts_and_values_is_obeyed():
    for seed in range(20):
        scene = sample_scene(
            seed, n_objects=(2, 3), object="cat", colour=["red", "blue"], texture="striped", object_size="small"
        )
        assert len(scene.objects) in (2, 3)
        assert scene.objects[0].kind == "cat"
        assert [o.colour for o in scene.objects[:2]] == ["red", "blue"]
        assert {o.texture for o in scene.objects} == {"striped"}
        assert {o.size for o in scene.objects} == {"small"}
        assert len({o.kind for o in scene.objects}) == len(scene.objects)
    assert sample_scene(0, n_objects=0).caption.count("empty scene") == 1
    assert sample_scene(0, text="HELLO").texts[0].word == "HELLO"
    few = [sample_scene(s, classes=("cup", "car"), styles=("neon",), backgrounds=("sand",)) for s in range(10)]
    assert {o.kind for s in few for o in s.objects} == {"cup", "car"}
    assert {(s.style, s.background) for s in few} == {("neon", "sand")}
    assert [o.kind for o in sample_scene(1, object=["cup", "car"], n_objects=2).objects] == ["cup", "car"]


def test_giving_a_style_leaves_everything_else_as_it_was():
    for seed in range(10):
        free = sample_scene(seed)
        assert replace(sample_scene(seed, style="chalk"), style=free.style) == free
        assert replace(sample_scene(seed, background="sand"), background=free.background) == free


def test_style_pairs_share_geometry_but_not_looks():
    scene = sample_scene(4, n_objects=2, background="grass")
    drawn = {style: render(replace(scene, style=style), 64) for style in STYLES}
    for style, picture in drawn.items():
        np.testing.assert_array_equal(picture.masks, drawn["photo"].masks)
        for other in STYLES:
            if other != style:
                assert np.abs(picture.image - drawn[other].image).mean() > 0.015, (style, other)


def test_caption():
    objects = (
        SceneObject("ball", "red"),
        SceneObject("apple", "orange", "striped", "small"),
        SceneObject("cup", "blue"),
    )
    scene = Scene(objects[:2], "watercolour", "sand")
    assert scene.caption == "a red ball and a small striped orange apple in watercolour style on sand"
    assert Scene((SceneObject("cup", "orange"),)).caption == "a photo of an orange cup on grass"
    three = Scene(objects, "neon", "wood", texts=(TextOverlay("HI"),)).caption
    assert three.startswith("a red ball, a small striped orange apple and a blue cup in neon style")
    assert three.endswith('on a wooden floor with the word "HI"')


def test_attributes_are_plain_values_that_match():
    import json

    scene = sample_scene(8, text=True)
    told = json.loads(json.dumps(scene.attributes))
    assert told["count"] == len(scene.objects)
    assert told["objects"][0]["class"] == scene.objects[0].kind
    assert told["words"] == [scene.texts[0].word]


def test_unknown_names_and_sizes_are_refused():
    for wrong in (
        {"object": "dragon"}, {"style": "cubism"}, {"background": "moon"}, {"colour": "ultraviolet"},
        {"texture": "furry"}, {"object_size": "huge"}, {"light": "below"}, {"n_objects": 9}, {"n_objects": (3, 1)},
        {"classes": ()},
    ):  # fmt: skip
        with pytest.raises(UsageError):
            sample_scene(0, **wrong)
    with pytest.raises(UsageError):
        render(PLAIN, 16)
    with pytest.raises(UsageError):
        render_video(PLAIN, 0)


# ---------------------------------------------------------------- geometry


def test_mask_lies_where_the_object_was_placed():
    for kind in CLASSES:
        scene = Scene((SceneObject(kind, "purple", depth=1.1, size="large"),), horizon=0.4)
        mask = render(scene, 64).masks[0]
        y, x = np.nonzero(mask)
        x0, y0, x1, y1 = (v * 64 for v in object_box(scene.objects[0], 0.4))
        np.testing.assert_allclose([x.min(), x.max() + 1], [x0, x1], atol=2.5)
        np.testing.assert_allclose([y.min(), y.max() + 1], [y0, y1], atol=2.5)


def test_nearer_objects_cover_farther_ones_whatever_their_order():
    near, far = SceneObject("cube", "red", depth=1.0), SceneObject("ball", "blue", depth=1.6, size="large")
    for objects in ((near, far), (far, near)):
        drawn = render(Scene(objects), 64)
        alone = [render(Scene((o,)), 64).masks[0] for o in objects]
        k = objects.index(near)
        assert (drawn.masks[k] ^ alone[k]).mean() < 0.005
        assert drawn.masks[1 - k].sum() < alone[1 - k].sum()
        assert not (drawn.masks[1 - k] & alone[k]).any()


@pytest.mark.parametrize("style", ["photo", "cartoon", "mosaic", "chalk"])
def test_removing_an_object_changes_only_its_surroundings(style):
    scene = Scene((SceneObject("ball", "red", x=0.2), SceneObject("cup", "blue", x=0.85, size="small")), style, "sand")
    before, after = render(scene, 64), render(scene.without(0), 64)
    changed = np.abs(before.image - after.image).max(axis=0) > 0.02
    assert changed[before.masks[0]].mean() > 0.6
    assert not changed[:, 48:].any()
    assert scene.change(0, colour="green").objects[0].colour == "green"
    recoloured = render(scene.change(0, colour="green"), 64)
    np.testing.assert_array_equal(recoloured.masks, before.masks)


@pytest.mark.parametrize("kind", CLASSES)
def test_colour_is_visible(kind):
    red, blue = (render(Scene((SceneObject(kind, c, size="large"),)), 64) for c in ("red", "blue"))
    inside = red.masks[0]
    r, b = red.image[:, inside].mean(axis=1), blue.image[:, inside].mean(axis=1)
    assert r[0] - b[0] > 0.08
    assert b[2] - r[2] > 0.08


def test_every_value_of_every_attribute_draws_something_different():
    base = render(PLAIN, 64).image
    ball = PLAIN.objects[0]
    variants = [
        *(PLAIN.change(0, colour=c) for c in COLOURS if c != ball.colour),
        *(PLAIN.change(0, texture=t) for t in TEXTURES if t != ball.texture),
        *(PLAIN.change(0, size=s) for s in ("small", "large")),
        *(replace(PLAIN, background=b) for b in BACKGROUNDS if b != "snow"),
        *(replace(PLAIN, light=light) for light in LIGHTS if light != "left"),
    ]
    pictures = [base, *(render(v, 64).image for v in variants)]
    for i, a in enumerate(pictures):
        for b in pictures[:i]:
            assert np.abs(a - b).mean() > 0.002


def test_light_falls_from_its_side():
    left, right = (render(replace(PLAIN, light=side), 64) for side in ("left", "right"))
    columns = np.arange(64)[None, :]
    inside, half = left.masks[0], columns < 32
    for drawn, brighter in ((left, inside & half), (right, inside & ~half)):
        assert drawn.image[:, brighter].mean() > drawn.image[:, inside & ~brighter].mean() + 0.03


def test_sizes_scale():
    """The same picture at another size: a large render shrunk looks like the small one."""
    import cv2

    scene = sample_scene(21, style="cartoon", n_objects=2)
    small, large = render(scene, 64), render(scene, 256)
    shrunk = cv2.resize(large.image.transpose(1, 2, 0), (64, 64), interpolation=cv2.INTER_AREA).transpose(2, 0, 1)
    assert np.abs(shrunk - small.image).mean() < 0.04
    assert abs(large.masks.mean() - small.masks.mean()) < 0.01


# ---------------------------------------------------------------- views, video, words


def test_views_agree_with_depth():
    scene = sample_scene(2, n_objects=2, style="photo", background="grass")
    views = render_views(scene, 0.3, 96)
    y, x = np.nonzero(views.visible)
    moved = np.round(x - views.disparity[y, x]).astype(int)
    matched = np.abs(views.left.image[:, y, x] - views.right.image[:, y, moved]).mean()
    unmatched = np.abs(views.left.image - views.right.image).mean()
    assert matched < 0.5 * unmatched
    assert views.visible.mean() > 0.6
    for k, item in enumerate(scene.objects):
        columns = [np.nonzero(v.masks[k])[1].mean() for v in (views.left, views.right)]
        assert columns[0] - columns[1] == pytest.approx(0.3 / item.depth * 96, abs=4)
    still = render_views(scene, 0.0, 64)
    assert still.left.image.tobytes() == still.right.image.tobytes()
    assert still.visible.all()


def test_camera_going_forward_makes_things_larger_and_passes_them():
    steps = [render(PLAIN, 64, Camera(z=z)) for z in (0.0, 0.3, 0.9)]
    assert steps[1].masks.sum() > 1.3 * steps[0].masks.sum()
    assert not steps[2].masks.any()
    assert np.isfinite(steps[2].depth).all()


def test_video():
    scene = sample_scene(9, n_objects=2, object=["ball", "car"], style="cartoon")
    clip = render_video(scene, 6, 48)
    assert clip.frames.shape == (6, 3, 48, 48)
    assert clip.masks.shape == (6, 2, 48, 48)
    assert clip.depth.shape == (6, 48, 48)
    np.testing.assert_array_equal(clip.frames[0], render(scene, 48).image)
    assert (clip.masks[0] ^ clip.masks[-1]).any()
    for drawn, frame_scene in zip(clip.masks, clip.scenes):
        for item, mask in zip(frame_scene.objects, drawn):
            assert mask.any()
            x0, _, x1, _ = object_box(item)
            assert x0 > -0.02
            assert x1 < 1.02
    still = replace(scene, objects=tuple(replace(o, velocity=(0.0, 0.0)) for o in scene.objects))
    quiet = render_video(still, 3, 48)
    assert (quiet.frames == quiet.frames[0]).all()
    ego = render_video(still, 3, 48, camera_motion=(0.1, 0.2))
    assert ego.masks[-1].sum() > ego.masks[0].sum()


@pytest.mark.parametrize("font", ["sans", "serif", "mono"])
def test_words_change_exactly_their_mask(font):
    word = TextOverlay("SALE", 0.5, 0.2, 0.12, (1.0, 0.2, 0.1), font=font, angle=5)
    scene = replace(PLAIN, texts=(word,))
    with_word, without = render(scene, 128), render(PLAIN, 128)
    changed = np.abs(with_word.image - without.image).max(axis=0) > 0.25
    mask = with_word.text_masks[0]
    assert mask.mean() > 0.01
    assert not (changed & ~mask).any()
    assert (changed & mask).sum() > 0.7 * mask.sum()
    y, x = np.nonzero(mask)
    assert x.mean() / 128 == pytest.approx(0.5, abs=0.03)
    assert y.mean() / 128 == pytest.approx(0.2, abs=0.03)


def test_sampled_words_stay_inside_the_picture():
    for seed in range(60):
        drawn = render(sample_scene(seed, text=True, n_objects=1, styles=("cartoon",)), 64)
        mask = drawn.text_masks[0]
        assert not mask[:, [0, -1]].any(), seed
        assert not mask[[0, -1]].any(), seed


# ---------------------------------------------------------------- learnable


def test_pack():
    pack = render_pack(6, 32, seed=3, label="style", masks=True, depth=True, n_objects=1)
    assert pack.images.shape == (6, 3, 32, 32)
    assert pack.class_names == STYLES
    assert [pack.class_names[v] for v in pack.labels] == [s.style for s in pack.fields["scene"]]
    assert pack.fields["masks"][0].shape == (1, 32, 32)
    later = render_pack(2, 32, seed=3, first=4, label="style", n_objects=1)
    np.testing.assert_array_equal(later.images, pack.images[4:])
    assert later.names == pack.names[4:]
    for wrong in ({"label": "mood"}, {"count": 0}, {"label": "class", "n_objects": 0}):
        with pytest.raises(UsageError):
            render_pack(**{"count": 1, "size": 32, **wrong})


def _ridge_accuracy(label: str, features, **options) -> float:
    """Share of 80 unseen scenes that a linear classifier, fitted to 240, gets right."""
    train, test = (render_pack(n, 32, seed=seed, label=label, **options) for n, seed in ((240, 1), (80, 2)))
    x, y = (np.stack([features(i.astype(np.float32) / 255) for i in p.images]) for p in (train, test))
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-3
    x, y = (np.c_[(v - mean) / scale, np.ones(len(v))] for v in (x, y))
    targets = np.eye(len(train.class_names))[train.labels]
    weights = x.T @ np.linalg.solve(x @ x.T + 0.3 * len(x) * np.eye(len(x)), targets)
    return float(((y @ weights).argmax(axis=1) == test.labels).mean())


def _colours_and_edges(image: np.ndarray) -> np.ndarray:
    gy, gx = np.abs(np.diff(image, axis=1)), np.abs(np.diff(image, axis=2))
    histograms = [np.histogram(c, 16, (0, 1))[0] / 256 for c in (*image, gy * 2, gx * 2)]
    return np.concatenate([*histograms, [gy.mean() * 20, gx.mean() * 20]])


def test_styles_can_be_told_apart():
    assert _ridge_accuracy("style", _colours_and_edges, n_objects=1) > 0.7  # chance: 1 in 12


def test_classes_can_be_told_apart():
    options = {
        "n_objects": 1, "style": "cartoon", "background": "studio", "light": "left", "object_size": "large",
        "colour": "blue", "texture": "solid", "classes": ("ball", "tree", "house", "car", "person", "umbrella"),
    }  # fmt: skip
    assert _ridge_accuracy("class", np.ravel, **options) > 0.9  # chance: 1 in 6


def test_contact_sheet():
    sheet = contact_sheet([np.zeros((3, 4, 5), np.float32)] * 3, columns=2, gap=1)
    assert sheet.shape == (3, 9, 11)
    assert sheet[:, 5:, 6:].min() == 1
    with pytest.raises(UsageError):
        contact_sheet([])
