"""Gaussian splatting: pictures against closed forms, gradients, fitting, and files from strangers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vestige.core.errors import InputError, LimitError, UsageError
from vestige.engines.splatting import (
    SHORT,
    Cameras,
    Ellipsoids,
    Gaussians,
    cast,
    ellipsoid_scene,
    fit,
    from_points,
    join,
    look_at,
    photometric,
    random_gaussians,
    read_ply,
    render,
    ring,
    surface_points,
    write_ply,
)
from vestige.engines.splatting import render as render_function
from vestige.engines.splatting.fit import batches
from vestige.engines.splatting.gaussians import SH_CONSTANT, SH_COUNTS
from vestige.engines.splatting.render import LOW_PASS, _Blend, spherical_harmonics


def one(xyz, color, *, sigma=0.2, opacity=0.9, degree=0) -> Gaussians:
    sh = torch.zeros(1, SH_COUNTS[degree], 3)
    sh[0, 0] = (torch.tensor(color) - 0.5) / SH_CONSTANT
    logit = torch.tensor([[opacity]]).logit()
    rotation = torch.tensor([[1.0, 0, 0, 0]])
    return Gaussians(torch.tensor([xyz]), torch.full((1, 3), math.log(sigma)), rotation, logit, sh)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * (a - b).square().mean().log10())


def test_one_round_gaussian_is_drawn_as_the_formula_says():
    camera = ring(1, 15, radius=3.0)
    picture = render(one([0.0, 0.0, 0.0], [0.2, 0.6, 1.0]), camera, background=(0.1, 0.1, 0.1))
    assert picture.shape == (1, 3, 15, 15)
    assert picture.dtype == torch.float32
    variance = (camera.focal * 0.2 / 3) ** 2 + LOW_PASS
    y, x = torch.meshgrid(*(2 * [torch.arange(15) - 7.0]), indexing="ij")
    alpha = 0.9 * torch.exp(-(x**2 + y**2) / (2 * variance))
    alpha[alpha < 1 / 255] = 0
    wanted = alpha * torch.tensor([0.2, 0.6, 1.0])[:, None, None] + (1 - alpha) * 0.1
    torch.testing.assert_close(picture[0], wanted, atol=1e-5, rtol=1e-4)


def test_axes_on_the_screen_are_right_down_forward():
    camera = look_at(torch.tensor([[3.0, 0.0, 0.0]]), 32.0, 33, 33)
    torch.testing.assert_close(camera.centers, torch.tensor([[3.0, 0.0, 0.0]]))
    up = render(one([0.0, 0.0, 0.5], [1.0, 1.0, 1.0], sigma=0.05), camera)[0, 0]
    assert up.argmax() // 33 < 16
    left = render(one([0.0, -0.5, 0.0], [1.0, 1.0, 1.0], sigma=0.05), camera)[0, 0]
    assert left.argmax() % 33 < 16


def test_a_long_gaussian_is_turned_by_its_quaternion():
    camera = look_at(torch.tensor([[3.0, 0.0, 0.0]]), 32.0, 33, 33)
    thin = one([0.0, 0.0, 0.0], [1.0, 1.0, 1.0])
    thin.scale[0] = torch.tensor([0.02, 0.3, 0.02]).log()
    flat = render(thin, camera)[0, 0]
    assert flat[16, 19] > 0.3
    assert flat[19, 16] < 0.05
    half = math.sqrt(0.5)
    thin.rotation[0] = 5 * torch.tensor([half, half, 0, 0])  # 90 degrees about x
    torch.testing.assert_close(render(thin, camera)[0, 0], flat.T, atol=1e-5, rtol=1e-4)


def test_the_nearer_gaussian_covers_the_farther_one_from_either_side():
    red, blue = (
        one([0.5, 0.0, 0.0], [1.0, 0.0, 0.0], opacity=0.98),
        one([-0.5, 0.0, 0.0], [0.0, 0.0, 1.0], opacity=0.98),
    )
    cameras = ring(2, 17, elevation=0.0)
    for scene in (join(red, blue), join(blue, red)):
        pictures = render(scene, cameras)[:, :, 8, 8]
        assert pictures[0, 0] > 0.9 > 0.1 > pictures[0, 2]
        assert pictures[1, 2] > 0.9 > 0.1 > pictures[1, 0]


def test_what_is_behind_the_camera_is_not_drawn():
    camera = ring(1, 16, radius=3.0, elevation=0.0)
    picture = render(one([4.0, 0.0, 0.0], [1.0, 1.0, 1.0], sigma=0.5), camera, background=(0.3, 0.2, 0.1))
    torch.testing.assert_close(picture[0, :, 0, 0], torch.tensor([0.3, 0.2, 0.1]))
    assert picture.std((2, 3)).max() < 1e-6


def test_colours_of_degree_one_depend_on_the_direction():
    scene = one([0.0, 0.0, 0.0], [0.5, 0.5, 0.5], degree=1)
    scene.sh[0, 3] = 0.5  # along −x
    first, second = render(scene, ring(2, 9, elevation=0.0))[:, 0, 4, 4]
    assert first - second > 0.2


def test_spherical_harmonics_are_orthonormal():
    i = torch.arange(4000, dtype=torch.float64) + 0.5
    polar, azimuth = torch.acos(1 - 2 * i / 4000), math.pi * (1 + 5**0.5) * i
    directions = torch.stack([polar.sin() * azimuth.cos(), polar.sin() * azimuth.sin(), polar.cos()], 1)
    basis = spherical_harmonics(directions, 16)
    gram = 4 * math.pi / 4000 * basis.T @ basis
    torch.testing.assert_close(gram, torch.eye(16, dtype=torch.float64), atol=2e-3, rtol=0)


def test_gradients_of_blending_and_rendering():
    draw = torch.Generator().manual_seed(0)
    power = (torch.rand(2, 3, 4, generator=draw, dtype=torch.float64) * 0.8 + 0.1).log().requires_grad_()
    features = torch.rand(2, 4, 2, generator=draw, dtype=torch.float64).requires_grad_()
    behind = torch.tensor([0.3, 0.7], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p, f: _Blend.apply(p, f, behind), (power, features))
    scene = random_gaussians(4, 0.4, degree=1, opacity=0.5, seed=3)
    tensors = [t.double() for t in scene.tensors().values()]
    tensors[1] = torch.full_like(tensors[1], math.log(0.6)) + 0.1 * torch.rand(4, 3, generator=draw).double()
    tensors[2] = tensors[2] + 0.3 * torch.randn(4, 4, generator=draw).double()
    tensors[4] = 0.2 * tensors[4]
    camera = ring(2, 3)
    camera = Cameras(camera.rotation.double(), camera.translation.double(), camera.focal, 3, 3)
    leaves = [t.requires_grad_() for t in tensors]
    assert torch.autograd.gradcheck(lambda *t: render(Gaussians(*t), camera, background=(0.2, 0.4, 0.6)), leaves)


def test_pictures_do_not_depend_on_how_pixels_are_split(monkeypatch):
    scene, cameras = random_gaussians(40, seed=1), ring(3, 12)
    whole = render(scene.leaves(), cameras).detach()
    import sys

    monkeypatch.setattr(sys.modules[render_function.__module__], "CHUNK", 1000)
    torch.testing.assert_close(render(scene, cameras), whole, atol=1e-6, rtol=1e-5)


def test_features_are_blended_with_the_weights_of_colours():
    scene, cameras = random_gaussians(30, seed=2), ring(2, 12)
    color = (scene.sh[:, 0] * SH_CONSTANT + 0.5).clamp_min(0)
    features = torch.cat([color, torch.ones(30, 1)], 1)
    maps = render(scene, cameras, features=features, background=(0.0, 0.0, 0.0, 1.0))
    torch.testing.assert_close(maps[:, :3], render(scene, cameras))
    torch.testing.assert_close(maps[:, 3], torch.ones(2, 12, 12))
    with pytest.raises(UsageError, match="background of K"):
        render(scene, cameras, features=features)


def test_the_ray_caster_sees_a_ball_where_it_is():
    ball = Ellipsoids(torch.zeros(1, 3), 0.5 * torch.eye(3)[None], torch.tensor([[1.0, 0.5, 0.0]]))
    camera = ring(1, 65, radius=3.0)
    picture = cast(ball, camera, background=(0.0, 0.0, 1.0))[0]
    inside = picture[2] < 0.5
    radius = camera.focal * math.tan(math.asin(0.5 / 3))  # of the silhouette of a ball on the axis
    assert abs(float(inside.sum()) / (math.pi * radius**2) - 1) < 0.02
    assert picture[0][20, 32] > picture[0][44, 32]  # the light comes from above
    points, colors = surface_points(ball, camera, 50)
    torch.testing.assert_close(points.norm(dim=1), torch.full((50,), 0.5), atol=1e-4, rtol=0)
    assert colors.max() <= 1
    with pytest.raises(UsageError, match="fewer than"):
        surface_points(ball, camera, 65 * 65)
    with pytest.raises(UsageError, match="at least one ray"):
        cast(ball, camera, samples=0)


def test_a_fit_shows_the_scene_from_cameras_it_has_not_seen():
    scene, cameras, between = ellipsoid_scene(5), ring(8, 16), ring(4, 16, start=22.5)
    start = from_points(*surface_points(scene, cameras, 120), degree=1)
    views, truth = cast(scene, cameras), cast(scene, between)
    fitted = fit(start, cameras, views, iterations=80)
    before, after = (psnr(render(g, between), truth) for g in (start, fitted))
    assert after > max(before + 4, 19)
    again = fit(start, cameras, views, iterations=80)
    assert all(torch.equal(a, b) for a, b in zip(fitted.tensors().values(), again.tensors().values(), strict=True))
    assert not fitted.xyz.requires_grad


def test_every_camera_has_its_turn_in_a_round():
    drawn = batches(7, 3, 0)
    for _ in range(3):
        seen = torch.cat([next(drawn), next(drawn)])
        assert len(seen.unique()) == 6
    assert SHORT.xyz_at(0) == SHORT.xyz
    assert SHORT.xyz_at(1) == pytest.approx(SHORT.xyz_last)


def test_the_loss_is_zero_for_equal_pictures_only():
    a, b = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    assert photometric(a, a).abs() < 1e-6
    assert photometric(a, b) > 0.2


def test_wrong_shapes_are_refused():
    scene, cameras = random_gaussians(20), ring(2, 16)
    with pytest.raises(UsageError, match="N×4 rotation"):
        Gaussians(scene.xyz, scene.scale, scene.rotation[:, :3], scene.opacity, scene.sh)
    with pytest.raises(UsageError, match="harmonics"):
        Gaussians(scene.xyz, scene.scale, scene.rotation, scene.opacity, scene.sh.repeat(1, 2, 1))
    with pytest.raises(UsageError, match="N > 0"):
        scene[:0]
    with pytest.raises(UsageError, match="N > 3"):
        from_points(torch.rand(3, 3), torch.rand(3, 3))
    with pytest.raises(UsageError, match="degree"):
        from_points(torch.rand(5, 3), torch.rand(5, 3), degree=4)
    with pytest.raises(UsageError, match="upright"):
        look_at(torch.tensor([[0.0, 0.0, 3.0]]), 10.0, 8, 8)
    with pytest.raises(UsageError, match="positive"):
        Cameras(cameras.rotation, cameras.translation, 0.0, 8, 8)
    with pytest.raises(UsageError, match="C×3×3"):
        Cameras(cameras.rotation, cameras.translation[:1], 10.0, 8, 8)
    with pytest.raises(UsageError, match="shape"):
        fit(scene, cameras, torch.zeros(2, 3, 16, 8), iterations=1)
    with pytest.raises(UsageError, match="finite"):
        fit(scene, cameras, torch.full((2, 3, 16, 16), math.nan), iterations=1)
    with pytest.raises(UsageError, match="at least one step"):
        fit(scene, cameras, torch.zeros(2, 3, 16, 16), iterations=0)


@pytest.mark.parametrize("degree", range(4))
def test_a_scene_comes_back_from_its_file(tmp_path, degree):
    scene = random_gaussians(7, degree=degree, seed=degree)
    scene.sh.add_(torch.arange(scene.sh.numel()).view_as(scene.sh) / 100)
    write_ply(tmp_path / "scene.ply", scene)
    found = read_ply(tmp_path / "scene.ply")
    for name, tensor in scene.tensors().items():
        assert torch.equal(tensor, found.tensors()[name]), name


def test_the_layout_is_the_one_that_programs_share(tmp_path):
    scene = random_gaussians(4, degree=1)
    scene.sh.copy_(torch.arange(48.0).view(4, 4, 3))
    write_ply(tmp_path / "scene.ply", scene)
    header, _, body = (tmp_path / "scene.ply").read_bytes().partition(b"end_header\n")
    names = [line.split()[-1] for line in header.decode().splitlines() if line.startswith("property float")]
    rest = [f"f_rest_{i}" for i in range(9)]
    shape = ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    assert names == ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *rest, *shape]
    values = np.frombuffer(body, "<f4").reshape(4, len(names))
    np.testing.assert_array_equal(values[0, 6:9], [0, 1, 2])
    np.testing.assert_array_equal(values[0, 9:18], [3, 6, 9, 4, 7, 10, 5, 8, 11])  # red, green, blue


def foreign(order: str, kind: str, *, extra: str = "", count: str = "3", names: list[str] | None = None) -> bytes:
    names = names or [
        "x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1",
        "rot_2", "rot_3",
    ]  # fmt: skip
    name, code = {"<": "little", ">": "big"}[order], {"float": "f4", "double": "f8"}[kind]
    lines = ["ply", f"format binary_{name}_endian 1.0", "comment made elsewhere", f"element vertex {count}"]
    lines += [f"property {kind} {n}" for n in names] + ([extra] if extra else []) + ["end_header", ""]
    values = np.tile(np.arange(1.0, len(names) + 1), (3, 1)).astype(order + code)
    return "\n".join(lines).encode() + values.tobytes()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", ["float", "double"])
def test_files_of_other_programs_are_read(tmp_path, order, kind):
    path = tmp_path / "other.ply"
    path.write_bytes(foreign(order, kind, extra="element face 0\nproperty list uchar int vertex_indices"))
    scene = read_ply(path)
    assert scene.xyz[2].tolist() == [1, 2, 3]
    assert scene.rotation[0].tolist() == [11, 12, 13, 14]


GOOD = foreign("<", "float")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no binary"),
        (b"ply\n", "no binary"),
        (b"\x89PNG" + GOOD, "no binary"),
        (GOOD.replace(b"binary_little_endian", b"ascii"), "no binary"),
        (GOOD.replace(b"vertex 3", b"vertex -3"), "no binary"),
        (GOOD.replace(b"vertex 3", b"vertex 0"), "no Gaussians"),
        (GOOD.replace(b"vertex 3", b"vertex 4"), "ends before"),
        (GOOD.replace(b"vertex 3", b"vertex 9999999999"), "limit"),
        (GOOD.replace(b"float x", b"list uchar float x"), "no binary"),
        (GOOD.replace(b"float y", b"float x"), "no binary"),
        (GOOD.replace(b"float opacity", b"float alpha"), "no property opacity"),
        (GOOD.replace(b"float x", b"float z2").replace(b"float y", b"float f_rest_0"), "no property|f_rest"),
        (GOOD.replace(b"comment made", b"comment " + b"a" * 70_000), "no binary"),
        (GOOD[:-4] + np.float32(np.nan).tobytes(), "values of rotation"),
        (GOOD[:-16] + bytes(16), "length 0"),
        (GOOD[:-20] + np.float32(1e9).tobytes() + GOOD[-16:], "values of scale"),
    ],
)
def test_damaged_files_are_refused(tmp_path, data, says):
    path = tmp_path / "bad.ply"
    path.write_bytes(data)
    with pytest.raises(InputError, match=says):
        read_ply(path)


def test_missing_and_large_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_ply(tmp_path / "none.ply")
    (tmp_path / "three.ply").write_bytes(GOOD)
    with pytest.raises(LimitError, match="limit of 2"):
        read_ply(tmp_path / "three.ply", limit=2)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_change_of_a_file_is_read_or_refused(tmp_path_factory, data):
    broken = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("ply") / "scene.ply"
    path.write_bytes(bytes(broken[: data.draw(st.integers(0, len(broken)))]) if data.draw(st.booleans()) else broken)
    try:
        scene = read_ply(path)
    except InputError:
        return
    assert scene.xyz.isfinite().all()
