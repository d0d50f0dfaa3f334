"""Caption to picture on the synthetic scenes, 32 px: pixel-space or latent diffusion, saved as a diffusers folder.

Trained on rendered single-object scenes with captions such as "a large striped red boat in watercolour style on sand".
The UNet and the text encoder are trained together with v-prediction on the cosine schedule and min-SNR weights; 10 % of
the captions are dropped for classifier-free guidance. A classifier trained on real renders alone judges the result.

Options: space "pixel" or "latent" (an autoencoder halving the sides is trained first); widths of the UNet, a name of
`vestige.nn.unet.SIZES` or numbers such as "32-96-160"; scenes to render; size in pixels; objects in a scene and their
sizes, such as "medium,large" (at 32 px a small object has ten pixels, too few to tell some classes apart, and a medium
one takes several times the training); init, the ``model.safetensors`` of an earlier run to start from; judge, the
weights of a `FeatureNet` with the heads "object" and "style" instead of one trained here in ``judge_steps`` updates;
samples to judge, in sample_steps at this guidance.
"""

from __future__ import annotations

import io
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from vestige.core.files import write_atomic, write_json
from vestige.data.packs import Pack
from vestige.data.scenes import CLASSES, STYLES, render_pack
from vestige.engines.diffusion.losses import diffusion_loss
from vestige.engines.diffusion.pipeline import TextToImage, save_pipeline
from vestige.engines.diffusion.schedules import cosine
from vestige.engines.recipe import Job, Recipe, RecipeContext
from vestige.engines.train import TrainConfig, Trainer, load_trained
from vestige.metrics.distribution import frechet_distance
from vestige.nn.features import FeatureNet, extract_features, load_feature_net, save_feature_net
from vestige.nn.text import build_tokenizer, text_encoder, token_ids
from vestige.nn.unet import SIZES, text_unet
from vestige.nn.vae import fit_scaling, identity_vae, small_vae, vae_loss

OPTIONS: dict[str, Any] = {
    "space": "pixel", "widths": "cpu", "scenes": 40_000, "size": 32, "objects": 1, "sizes": "large", "init": "",
    "vae_steps": 2500,
    "judge": "", "judge_steps": 1500, "samples": 1000, "guidance": 3.0, "sample_steps": 25,
}  # fmt: skip
HELD_OUT = 2000
CHUNK = 250


class Scenes(NamedTuple):
    """images uint8 N×3×S×S; captions; object and style: class numbers int64 N."""

    images: np.ndarray
    captions: list[str]
    object: np.ndarray
    style: np.ndarray

    def part(self, begin: int, end: int | None = None) -> Scenes:
        """Items begin ... end - 1."""
        chosen = slice(begin, end)
        return Scenes(self.images[chosen], self.captions[chosen], self.object[chosen], self.style[chosen])


def build(ctx: RecipeContext) -> Job:
    """Data, model, step and evaluation."""
    o = ctx.options
    sizes = tuple(str(o["sizes"]).split(","))
    everything = rendered(
        int(o["scenes"]) + HELD_OUT, int(o["size"]), int(o["objects"]), ctx.seed, Path(ctx.out), sizes
    )
    train, held = everything.part(HELD_OUT), everything.part(0, HELD_OUT)
    tokenizer = build_tokenizer(everything.captions, 24 if int(o["objects"]) == 1 else 32)
    vae = identity_vae() if o["space"] == "pixel" else trained_vae(train.images, o, ctx)
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    widths = SIZES[o["widths"]] if o["widths"] in SIZES else [int(w) for w in str(o["widths"]).split("-")]
    widths = widths[factor // 2 :]
    head = min(32, *widths)  # the backward pass of narrow heads costs more than that of a convolution
    unet = text_unet(int(o["size"]) // factor, vae.config.latent_channels, widths, 128, attention_size=8, head=head)
    model = TextToImage(unet, vae, text_encoder(tokenizer), tokenizer, cosine(), "v")
    if o["init"]:
        load_trained(str(o["init"]), model)
    ids, held_ids = token_ids(tokenizer, train.captions), token_ids(tokenizer, held.captions)
    pictures = torch.from_numpy(train.images)
    # Mirroring keeps every caption true; latents of both forms are made once, because encoding costs as much as a step.
    plain = pictures if factor == 1 else latents_of(model, pictures)
    mirrored = pictures.flip(3) if factor == 1 else latents_of(model, pictures.flip(3))

    def batches(number: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = torch.randint(len(plain), (ctx.config.batch_size,), generator=generator)
        flip = torch.rand(len(chosen), generator=generator) < 0.5
        return torch.where(flip[:, None, None, None], mirrored[chosen], plain[chosen]), ids[chosen]

    def step(model: nn.Module, batch: Any, generator: torch.Generator) -> dict[str, torch.Tensor]:
        assert isinstance(model, TextToImage)
        x, tokens = batch
        return {"loss": model.loss(as_latents(model, x), tokens, generator)}

    def validate(model: nn.Module) -> dict[str, float]:
        assert isinstance(model, TextToImage)
        images = torch.from_numpy(held.images[:256])
        latents = model.encode(images.float() / 255)
        context = model.context(held_ids[:256].to(model.device))
        levels = torch.linspace(0, len(model.table) - 1, 256).long()
        network = partial(network_on, model, context)
        generator = torch.Generator().manual_seed(0)
        return {"loss": float(diffusion_loss(network, latents, model.table, "v", generator, levels=levels))}

    def save(model: nn.Module, out: Path) -> None:
        assert isinstance(model, TextToImage)
        save_pipeline(out / "pipeline", model)

    return Job(
        model=model,
        step=step,
        batches=batches,
        validate=validate,
        evaluate=partial(evaluate, held=held, train=train, options=o, ctx=ctx),
        save=save,
    )


def network_on(model: TextToImage, context: torch.Tensor, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    """The UNet on fixed contexts."""
    return model.network(x, time, context)


def as_latents(model: TextToImage, x: torch.Tensor) -> torch.Tensor:
    """Stored latents as they are; stored pictures uint8 -> latents."""
    return model.encode(x.float() / 255) if x.dtype == torch.uint8 else x.float()


def latents_of(model: TextToImage, pictures: torch.Tensor) -> torch.Tensor:
    """float16 latents of uint8 pictures."""
    return torch.cat([model.encode(part.float() / 255).half() for part in pictures.split(256)])


def rendered(count: int, size: int, objects: int, seed: int, out: Path, sizes: tuple[str, ...] = ("large",)) -> Scenes:
    """The scenes of this run, from ``out`` where they were rendered before; chunks take the object sizes in turn."""
    path = out / f"scenes-{count}-{size}-{objects}-{'-'.join(sizes)}-{seed}.npz"
    if not path.is_file():
        workers = os.cpu_count() or 1
        with ProcessPoolExecutor(workers, multiprocessing.get_context("forkserver")) as pool:
            jobs = [
                pool.submit(
                    render_pack, min(CHUNK, count - first), size, seed, first=first,
                    n_objects=objects, object_size=sizes[first // CHUNK % len(sizes)],
                )
                for first in range(0, count, CHUNK)
            ]  # fmt: skip
            packs: list[Pack] = [job.result() for job in jobs]
        scenes = [scene for pack in packs for scene in pack.fields["scene"]]
        buffer = io.BytesIO()
        np.savez(
            buffer,
            images=np.concatenate([pack.images for pack in packs]),
            captions=np.array([scene.caption for scene in scenes]),
            object=np.array([CLASSES.index(scene.objects[0].kind) for scene in scenes]),
            style=np.array([STYLES.index(scene.style) for scene in scenes]),
        )
        write_atomic(path, buffer.getvalue())
    with np.load(path) as stored:
        return Scenes(stored["images"], stored["captions"].tolist(), stored["object"], stored["style"])


def trained_vae(images: np.ndarray, o: dict[str, Any], ctx: RecipeContext) -> Any:
    """An autoencoder S×S×3 -> S/2×S/2×4 trained on the pictures, with its scaling factor."""
    pictures = torch.from_numpy(images)

    def batches(number: int, generator: torch.Generator) -> torch.Tensor:
        return pictures[torch.randint(len(pictures), (64,), generator=generator)]

    def step(model: nn.Module, batch: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
        return vae_loss(model, batch.float() / 127.5 - 1, generator)

    config = TrainConfig(
        steps=int(o["vae_steps"]), batch_size=64, lr=1e-3, weight_decay=0.0, warmup=100, ema=0.995, seed=ctx.seed
    )
    vae = small_vae(int(o["size"]), (32, 64), 4)
    trained = (
        Trainer(vae, step, batches, config, out=Path(ctx.out) / "vae", device=ctx.device, quiet=ctx.quiet)
        .run()
        .model.cpu()
    )
    fit_scaling(trained, (part.float() / 127.5 - 1 for part in pictures[:2048].split(256)))
    return trained


def judge_network(train: Scenes, o: dict[str, Any], ctx: RecipeContext) -> FeatureNet:
    """A classifier of object and style that has seen real renders only."""
    path = Path(str(o["judge"])) if o["judge"] else Path(ctx.out) / "judge.safetensors"
    if not path.is_file():
        images = torch.from_numpy(train.images)
        labels = torch.from_numpy(np.stack([train.object, train.style], 1))

        def batches(number: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
            chosen = torch.randint(len(images), (64,), generator=generator)
            return images[chosen], labels[chosen]

        def step(model: nn.Module, batch: Any, generator: torch.Generator) -> dict[str, torch.Tensor]:
            assert isinstance(model, FeatureNet)
            x = batch[0].float() / 255
            found = model.classify(x.flip(3) if torch.rand((), generator=generator, device=x.device) < 0.5 else x)
            return {
                "loss": F.cross_entropy(found["object"], batch[1][:, 0])
                + F.cross_entropy(found["style"], batch[1][:, 1])
            }

        config = TrainConfig(steps=int(o["judge_steps"]), batch_size=64, lr=2e-3, warmup=100, seed=ctx.seed)
        net = FeatureNet({"object": len(CLASSES), "style": len(STYLES)}, seed=ctx.seed + 1)
        trained = (
            Trainer(net, step, batches, config, out=Path(ctx.out) / "judge", device=ctx.device, quiet=ctx.quiet)
            .run()
            .model
        )
        assert isinstance(trained, FeatureNet)
        save_feature_net(trained, path)
    return load_feature_net(path)


def evaluate(
    model: nn.Module, *, held: Scenes, train: Scenes, options: dict[str, Any], ctx: RecipeContext
) -> dict[str, float]:
    """How often the judge reads object and style of the caption from the sample, and the Fréchet distance.

    Every figure has its reference: the judge's own accuracy on held-out renders, and the distance of two real sets.
    """
    assert isinstance(model, TextToImage)
    count = min(int(options["samples"]), len(held.captions) // 2)
    judge = judge_network(train, options, ctx).to(model.device)
    real, other = held.part(0, count), held.part(count, 2 * count)
    made = model.sample(
        real.captions, seed=ctx.seed, steps=int(options["sample_steps"]), guidance=float(options["guidance"]), clip=None
    )
    write_sheet(made[:100].cpu(), Path(ctx.out) / "samples.png")
    write_json(Path(ctx.out) / "samples.json", real.captions[:100])
    found = agreement(judge, made, real)
    ceiling = agreement(judge, torch.from_numpy(other.images), other)
    figures = {**found, **{f"real_{name}": value for name, value in ceiling.items()}}
    if count > 256:  # fewer samples than features have no covariance to speak of
        seen, unseen, drawn = (extract_features(judge, images) for images in (real.images, other.images, made))
        figures |= {"frechet": frechet_distance(unseen, drawn), "real_frechet": frechet_distance(unseen, seen)}
    return figures


@torch.no_grad()
def agreement(judge: FeatureNet, images: torch.Tensor, scenes: Scenes) -> dict[str, float]:
    """Share of pictures whose object, style, or both, the judge reads as in the caption."""
    device = next(judge.parameters()).device
    right: dict[str, list[torch.Tensor]] = {"object": [], "style": []}
    for at in range(0, len(images), 256):
        part = images[at : at + 256].to(device)
        logits = judge.classify(part.float() / 255 if part.dtype == torch.uint8 else part)
        for name in right:
            wanted = torch.from_numpy(getattr(scenes, name)[at : at + 256]).to(device)
            right[name].append(logits[name].argmax(1) == wanted)
    per = {name: torch.cat(values) for name, values in right.items()}
    return {
        **{name: float(v.float().mean()) for name, v in per.items()},
        "both": float((per["object"] & per["style"]).float().mean()),
    }


def write_sheet(images: torch.Tensor, path: Path, columns: int = 10, scale: int = 3) -> None:
    """The pictures side by side in one PNG."""
    from PIL import Image

    rows = len(images) // columns
    if rows == 0:
        return
    size = images.shape[-1]
    grid = images[: rows * columns].reshape(rows, columns, 3, size, size).permute(0, 3, 1, 4, 2)
    pixels = (grid.reshape(rows * size, columns * size, 3).numpy() * 255 + 0.5).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((columns * size * scale, rows * size * scale), Image.Resampling.NEAREST).save(
        buffer, "PNG"
    )
    write_atomic(path, buffer.getvalue())


RECIPE = Recipe(
    name="scenes_text2image",
    about="Text-to-image diffusion on 32-pixel scenes; a diffusers pipeline folder.",
    build=build,
    config=TrainConfig(
        steps=8000, batch_size=64, lr=4e-4, betas=(0.9, 0.99), weight_decay=0.01, warmup=300, clip=1.0, ema=0.999,
        log_every=50, validate_every=1000, checkpoint_every=250,
    ),
    reach={"both": "at least 0.8 of samples show the object and the style of their caption; real renders: real_both"},
    options=OPTIONS,
)  # fmt: skip
