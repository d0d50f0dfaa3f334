"""Makes the package's weights small: matrices and kernels in half precision, where no output of a network moves.

    python -m vestige.bench.shipping            # convert what is in float32, compare outputs, undo where they move
    python -m vestige.bench.shipping --sizes    # only list the files

Vectors (biases, normalisation, running variances, which may lie below the smallest half) and what a half cannot hold
stay in float32. Every loader copies into float32 networks, so nothing computes in half precision.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import vestige
from vestige.core.catalogue import System, systems
from vestige.core.errors import VestigeError
from vestige.core.files import write_atomic

WEIGHTS = Path(vestige.__file__).parent / "weights"
#: Largest root mean square of a difference between outputs, as a share of their deviation.
TOLERANCE = 0.01
#: Tensors of fewer values stay: there is nothing to gain.
_SMALLEST = 1024

Probe = Callable[[], Any]


def halved(path: Path) -> bytes | None:
    """The file with its large float32 tensors in half precision; None when there are none. Metadata stay.

    >>> import tempfile, torch
    >>> from safetensors.torch import load, save_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_file({"w": torch.ones(64, 64), "b": torch.ones(64)}, Path(folder, "net.safetensors"))
    ...     small = load(halved(Path(folder, "net.safetensors")))
    >>> small["w"].dtype, small["b"].dtype
    (torch.float16, torch.float32)
    """
    import torch
    from safetensors import safe_open
    from safetensors.torch import save

    with safe_open(str(path), "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the file is no dictionary
        metadata = file.metadata()
    changed = False
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32 or tensor.ndim < 2 or tensor.numel() < _SMALLEST:
            continue
        half = tensor.half()
        error, size = (half.float() - tensor).norm(), tensor.norm()
        if torch.isfinite(half).all() and error <= 1e-3 * size:
            tensors[name], changed = half, True
    return save(tensors, metadata) if changed else None


def probes() -> dict[str, Probe]:
    """What is compared, by name: scores, marks and attacks of every system with shipped weights; raw networks."""
    found: dict[str, Probe] = {}
    for s in systems():
        if s.weights and s.target is not None:
            found |= {f"{s.slug} {role}": _of(s, role) for role in ("find", "mark", "attack") if role in s.roles}
    for folder in sorted({p.parent for p in WEIGHTS.rglob("config.json") if (p.parent / "config.json").is_file()}):
        if "AutoencoderKL" in (folder / "config.json").read_text():
            found[f"{folder.relative_to(WEIGHTS)} autoencoder"] = _autoencoder(folder)
    for index in sorted(WEIGHTS.rglob("model_index.json")):
        found[f"{index.parent.name} pipeline"] = _pipeline(index.parent)
    for path in sorted(WEIGHTS.glob("zoo_gan*.safetensors")):
        found[path.stem] = _generator(path)
    found |= {"feature_net": _features, "wouaf network": _wouaf}
    return found


def outputs(of: Mapping[str, Probe]) -> dict[str, np.ndarray]:
    """What each probe gives, as one row of numbers; those that need more than pictures are left out."""
    found = {}
    for name, probe in of.items():
        try:
            found[name] = np.nan_to_num(np.asarray(probe(), np.float64).ravel())
        except (VestigeError, TypeError, AttributeError, RuntimeError) as error:
            print(f"{name} is not compared ({' '.join(str(error).split())[:80]})", file=sys.stderr)
    return found


def difference(before: np.ndarray, after: np.ndarray) -> float:
    """Root mean square of the difference in units of the outputs' own deviation, or of their size where they are few.

    >>> difference(np.array([0.0, 2.0]), np.array([0.0, 2.0]))
    0.0
    """
    if before.shape != after.shape:
        return float("inf")
    scale = before.std() if before.size > 8 else np.abs(before).max()
    return float(np.sqrt(np.square(after - before).mean()) / max(float(scale), 1e-6))


def convert(root: Path = WEIGHTS) -> dict[str, float]:
    """Halve every file below ``root``; the differences of the outputs. All files are put back when one is too large."""
    before = outputs(probes())
    kept: dict[Path, bytes] = {}
    try:
        for path in sorted(root.rglob("*.safetensors")):
            # What the starter kit copies out is for other programs too, which may take a file at its word.
            small = None if "starter" in path.relative_to(root).parts else halved(path)
            if small is not None:
                kept[path] = path.read_bytes()
                write_atomic(path, small)
        after = outputs(probes())
        none = np.zeros(0)  # of a network that no longer loads
        found = {name: difference(value, after.get(name, none)) for name, value in before.items()}
    except BaseException:
        _put_back(kept)
        raise
    if max(found.values(), default=0.0) > TOLERANCE:
        _put_back(kept)
    return found


def _put_back(kept: Mapping[Path, bytes]) -> None:
    for path, data in kept.items():
        write_atomic(path, data)


def _pictures(side: int = 128) -> np.ndarray:
    """Two squares of photographs, float32 2×3×side×side in [0, 1]."""
    from sklearn.datasets import load_sample_image

    cut = [load_sample_image(name)[100 : 100 + side, 200 : 200 + side] for name in ("china.jpg", "flower.jpg")]
    return np.stack(cut).transpose(0, 3, 1, 2).astype(np.float32) / 255


def _of(s: System, role: str) -> Probe:
    def probe() -> Any:
        system, pictures = s.load()(), _pictures()
        if role == "attack":
            return system.attack(pictures)
        if role == "mark":
            key = bytes(range(32))
            marked = system.mark(pictures, "v", key)
            read = system.read(marked, key)
            return np.append(marked - pictures, [r.confidence for r in read])
        from vestige.core.image_io import encode
        from vestige.core.subjects import ImageSubject

        squares = (np.ascontiguousarray((p.transpose(1, 2, 0) * 255).round().astype(np.uint8)) for p in pictures)
        return [system.find(ImageSubject(encode(square, "PNG"))).score for square in squares]

    return probe


def _autoencoder(folder: Path) -> Probe:
    def probe() -> Any:
        import torch

        from vestige.engines.diffusion.autoencoders import load_autoencoder

        vae = load_autoencoder(folder)
        with torch.no_grad():
            coded = vae.encode(2 * torch.from_numpy(_pictures(64)) - 1).latent_dist.mean
            return torch.cat([coded.flatten(), vae.decode(coded).sample.flatten()])

    return probe


def _pipeline(folder: Path) -> Probe:
    def probe() -> Any:
        from vestige.engines.diffusion.pipeline import load_pipeline

        words = ["a large striped red boat", "a small blue house"]
        return load_pipeline(folder).sample(words, steps=5)

    return probe


def _generator(path: Path) -> Probe:
    def probe() -> Any:
        import torch

        from vestige.engines.fakes import load_generator

        net, draw = load_generator(path), torch.Generator().manual_seed(0)
        low = torch.rand(2, 3, net.size // 4, net.size // 4, generator=draw)
        with torch.no_grad():
            return net(torch.randn(2, net.latent, generator=draw), low if net.code == "picture" else None)

    return probe


def _features() -> Any:
    from vestige.nn.features import extract_features, load_feature_net

    return extract_features(load_feature_net(), _pictures(64))


def _wouaf() -> Any:
    import torch

    from vestige.watermark.learned import load_weights
    from vestige.watermark.wouaf import WouafNet

    net, _ = load_weights("wouaf", WouafNet)
    pictures = torch.from_numpy(_pictures(net.size))
    with torch.no_grad():
        made = net.embed(pictures, torch.ones(2, net.bits))
        return torch.cat([made.flatten(), net.read(made).soft.flatten()])


def main(words: list[str] | None = None) -> int:
    """The command; 1 when outputs moved and the files were put back."""
    parser = argparse.ArgumentParser(prog="python -m vestige.bench.shipping", description=__doc__)
    parser.add_argument("--sizes", action="store_true", help="only list the files")
    if not parser.parse_args(words).sizes:
        found = convert()
        for name, value in sorted(found.items(), key=lambda item: -item[1]):
            print(f"{value:9.2e}  {name}")
        if max(found.values(), default=0.0) > TOLERANCE:
            print(f"Outputs moved by more than {TOLERANCE:g}; the weights are as they were.")
            return 1
    files = sorted(WEIGHTS.rglob("*.safetensors"), key=lambda path: -path.stat().st_size)
    for path in files:
        print(f"{path.stat().st_size / 2**20:7.2f} MB  {path.relative_to(WEIGHTS)}")
    print(f"{sum(path.stat().st_size for path in files) / 2**20:7.2f} MB in all")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
