"""KeySS on files: scenes of 3D Gaussians in the standard binary .ply of splatting programs."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import torch

from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import save_image, to_uint8
from vestige.core.keys import derive
from vestige.core.work import Result, Work
from vestige.engines.splatting import SHORT, Cameras, Gaussians, join, read_ply, render, ring, write_ply
from vestige.metrics.quality import psnr
from vestige.watermark.keyss import KEY_LENGTH, KeySS, load_decoder, save_decoder, scene_distance

#: Most Gaussians of a scene to hide in: every one is blended into every pixel.
_MOST = 20_000
_NEAR = 2.6  # distance of the cameras in radii of the scene


def mark(work: Work) -> Result:
    """Hide the scene of ``--reference`` in that of the input: a .ply, and a decoder NAME.safetensors beside it.

    Both are looked at from a ring of cameras around the cover. Whoever has the .ply sees the cover; with the decoder
    and the key the secret appears. Settings: steps, views, size (of a view, in pixels), share (of the Gaussians that
    begin as the cover's).
    """
    cover = _scene(work.only(1).path(0, "a scene in .ply"))
    secret = _scene(work.needed("reference", "the scene to hide, in .ply"))
    out = work.out_file(".ply")
    steps, views, size, share = (
        work.option("steps", 1000), work.option("views", 24), work.option("size", 32), work.option("share", 0.75)
    )  # fmt: skip
    work.settled()
    if steps < 1 or views < 2 or not 11 <= size <= 256 or not 0.05 <= share <= 0.95:
        raise UsageError("steps is at least 1, views at least 2, size 11 to 256 pixels and share 0.05 to 0.95.")
    if cover.sh.shape[1] != secret.sh.shape[1]:
        raise InputError("The two scenes have spherical harmonics of different degrees; save them with the same.")
    cameras, radius = around(cover, views, size)
    with torch.no_grad():
        shown, wanted = render(cover, cameras).clamp(0, 1), render(secret, cameras).clamp(0, 1)
    rates = replace(SHORT, xyz=SHORT.xyz * radius, xyz_last=SHORT.xyz_last * radius)
    method = KeySS.short(iterations=steps, rates=rates, seed=work.seed)
    key = key_text(work.key)
    published, decoder = method.hide(_start(cover, secret, share), cameras, shown, {key: wanted})
    write_ply(out, published)
    beside = out.with_suffix(".safetensors")
    save_decoder(beside, decoder)
    with torch.no_grad():
        opened = render(method.reveal(published, decoder, key), cameras)
        figures = {
            "gaussians": len(published), "psnr of the cover": _psnr(render(published, cameras), shown),
            "psnr of the secret with the key": _psnr(opened, wanted),
            "psnr of the cover to the secret": _psnr(shown, wanted),
        }  # fmt: skip
    return Result(figures, [out, beside])


def read(work: Work) -> Result:
    """The scene that a key opens: written to ``--out`` as .ply, or as a .png of four views side by side.

    ``--model``: the decoder. A wrong key gives a scene too, nearly the published one.
    """
    scene = _scene(work.only(1).path(0, "a scene in .ply"))
    decoder = load_decoder(work.model_file(what="the decoder that 'vestige mark --method keyss' wrote"))
    out = work.out_file()
    size = work.option("size", 64)
    work.settled()
    if out.suffix.lower() not in (".ply", ".png"):
        raise UsageError(f"--out {out} must end in .ply (the scene) or .png (views of it).")
    opened = KeySS().reveal(scene, decoder, key_text(work.key))
    if out.suffix.lower() == ".ply":
        write_ply(out, opened)
    else:
        with torch.no_grad():
            pictures = render(opened, around(scene, 4, size)[0]).clamp(0, 1)
        save_image(out, to_uint8(torch.cat(list(pictures), 2)[None].numpy()))
    moved = float((opened.xyz - scene.xyz).norm(dim=1).mean() / around(scene, 2, 16)[1])
    return Result({"gaussians": len(opened), "mean move in radii of the scene": moved}, [out])


def measure(work: Work) -> Result:
    """3D-Sinkhorn of two scenes, an original and one that may hide something: 0 for equal statistics."""
    original = _scene(work.only(2).path(0, "a scene in .ply"), 5_000_000)
    published = _scene(work.path(1, "another scene in .ply"), 5_000_000)
    work.settled()
    return Result(scene_distance(original, published))


def key_text(key: bytes) -> str:
    """The characters of a key file's key, as many as KeySS takes."""
    return base64.b32encode(derive(key, "keyss"))[:KEY_LENGTH].decode()


def around(scene: Gaussians, count: int, size: int) -> tuple[Cameras, float]:
    """Cameras on a ring around the middle of a scene, and the radius that holds nine in ten of its Gaussians."""
    middle = scene.xyz.median(0).values
    radius = max(float((scene.xyz - middle).norm(dim=1).quantile(0.9)), 1e-6)
    unit = ring(count, size, radius=_NEAR)
    # x = middle + radius u, and R u + t becomes radius (R u + t): the same picture at any scale.
    translation = radius * unit.translation - torch.einsum("cij,j->ci", unit.rotation, middle)
    return Cameras(unit.rotation, translation, unit.focal, unit.height, unit.width), radius


def _start(cover: Gaussians, secret: Gaussians, share: float) -> Gaussians:
    """As many Gaussians as the cover has, that share of its own and the others of the secret."""
    count = max(1, min(len(cover) - 1, round(share * len(cover))))
    order = torch.randperm(len(cover), generator=torch.Generator().manual_seed(0))
    others = torch.randperm(len(secret), generator=torch.Generator().manual_seed(1))[: len(cover) - count]
    return join(cover[order[:count]], secret[others])


def _scene(path: Path, most: int = _MOST) -> Gaussians:
    if path.is_dir():
        raise InputError(f"{path} is a folder; give a scene of Gaussians in .ply.")
    return read_ply(path, limit=most)


def _psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(psnr(b.clamp(0, 1).numpy(), a.detach().clamp(0, 1).numpy()).mean())
