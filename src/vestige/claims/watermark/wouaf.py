"""Claims of WOUAF: new users, fidelity, baking, secrecy, false alarms, and what colluders and fine-tuning achieve.

Pictures are rendered scenes and photographs of a collection that no training used, at the decoder's own size. Users of
the tests have fingerprints of odd weight; the training uses even weight only.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.claims import ClaimContext, Evidence, claim
from vestige.core.errors import InputError
from vestige.core.runtime import rng
from vestige.data.distortions import distort
from vestige.data.packs import load_pack
from vestige.data.scenes import render_pack
from vestige.engines.diffusion.autoencoders import load_autoencoder
from vestige.metrics.bits import bit_accuracy
from vestige.metrics.distribution import frechet_distance
from vestige.metrics.quality import psnr
from vestige.nn.features import extract_features, load_feature_net
from vestige.nn.modulation import modulated
from vestige.nn.resnet import ResNet, ResNetConfig
from vestige.nn.vae import decode, encode, vae_loss
from vestige.watermark.dwt_dct_svd import DwtDctSvd
from vestige.watermark.learned import WEIGHTS
from vestige.watermark.stable_signature import StableSignature, whitened
from vestige.watermark.users import UserRegistry, collision_budget
from vestige.watermark.wouaf import Wouaf, WouafNet, modulated_layers

#: The card's post-processing, each at its strongest.
AFTER = (
    ("identity", 0), ("crop_resize", 0.8), ("rotate", 30), ("rotate", -30), ("blur", 1), ("blur", 2),
    ("brightness", 0.7), ("brightness", 1.3), ("noise", 0.2), ("overlay", 0.2), ("jpeg", 90), ("jpeg", 50),
)  # fmt: skip
PICTURES, POSTHOC = 96, 6
MESSAGE_USERS = 2  # decoders that Stable Signature is fine-tuned for


@cache
def system(name: str = "wouaf", settings: str = "") -> Wouaf:
    """The shipped network of that name; raises InputError with the recipe where it is missing."""
    path = WEIGHTS / f"{name}.safetensors"
    if not path.is_file():
        raise InputError(
            f"This claim needs weights/{name}.safetensors; train it with: vestige learn wouaf"
            f"{settings}, and copy wouaf.safetensors from its run there under that name."
        )
    return Wouaf(path)


@cache
def original() -> Any:
    """The autoencoder before any fingerprint."""
    folder = WEIGHTS / "scenes_vae"
    if not folder.is_dir():
        raise InputError(
            "This claim needs weights/scenes_vae; train it with: vestige learn scenes_vae, and copy "
            "the folder vae from its run there under that name."
        )
    return load_autoencoder(folder)


def pictures(context: ClaimContext, count: int, first: int = 0) -> Tensor:
    """float count×3×S×S in [0, 1]: renders of a series of their own, and every third one a photograph of "scenery"."""
    size, count = system().network.size, context.limit or count
    drawn = render_pack(count, size, 77 + context.seed, first=first).images
    if context.data is not None and (context.data / "scenery").is_dir():
        photos = load_pack(context.pack("scenery"), size).images
        places = np.arange(0, count, 3)
        drawn[places] = photos[(places + first) % len(photos)]
    return torch.from_numpy(drawn).float() / 255


def fingerprints(context: ClaimContext, count: int, *path: object, odd: bool = True) -> np.ndarray:
    """bool count×L; of odd weight, which no training used, or of even weight."""
    bits = rng(context.seed, "fingerprints", *path).integers(0, 2, (count, system().bits)).astype(bool)
    bits[:, -1] = (bits[:, :-1].sum(1) % 2 == 0) == odd
    return bits


@torch.no_grad()
def drawn_latents(context: ClaimContext, images: Tensor) -> Tensor:
    """Latents no encoder gave, in place of diffusion samples: between two pictures' latents, with noise.

    z = (1 − t) z_a + t z_b + 0.3 ε over √((1 − t)² + t² + 0.09), t uniform in [0.2, 0.8]; of unit variance.
    """
    z = torch.cat([system().network.encode(part) for part in images.split(32)])
    draws = rng(context.seed, "latents")
    t = torch.from_numpy(draws.uniform(0.2, 0.8, (len(z), 1, 1, 1))).float()
    noise = torch.from_numpy(draws.standard_normal(z.shape).astype(np.float32))
    mixed = (1 - t) * z + t * z[torch.from_numpy(draws.permutation(len(z)))] + 0.3 * noise
    return mixed / ((1 - t) ** 2 + t**2 + 0.09).sqrt()


@torch.no_grad()
def decoded(vae: Any, latents: Tensor) -> np.ndarray:
    """float32 pictures with eight-bit values."""
    return np.concatenate([eight(decode(vae, part) / 2 + 0.5) for part in latents.split(32)])


@torch.no_grad()
def decoded_for(net: WouafNet, latents: Tensor, bits: np.ndarray) -> np.ndarray:
    """As `decoded`, every picture by the decoder of its own user."""
    rows = torch.from_numpy(bits.astype(np.float32))
    parts = zip(latents.split(32), rows.split(32), strict=True)
    return np.concatenate([eight(net.decode(z, b)) for z, b in parts])


def eight(images: Tensor) -> np.ndarray:
    """Rounded as a file would be."""
    return (torch.floor(images.clamp(0, 1) * 255 + 0.5) / 255).float().numpy()


def survival(name: str, made: np.ndarray, bits: np.ndarray, read: Any, seed: int) -> dict[str, Any]:
    """Bit accuracy of pictures after each of `AFTER`; read: pictures -> logits N×L."""
    row: dict[str, Any] = {"method": name, "pictures": len(made), "bits": bits.shape[1]}
    for kind, strength in AFTER:
        soft = read(np.asarray(distort(made, kind, strength, seed=seed), np.float32))
        row[f"{kind} {strength:g}"] = round(float(bit_accuracy(bits, soft > 0).mean()), 4)
    row["weakest"] = min(v for k, v in row.items() if k not in ("method", "pictures", "bits"))
    return row


def _post_hoc(context: ClaimContext, made: np.ndarray) -> dict[str, Any]:
    """DWT-DCT-SVD on the same pictures enlarged, since it takes none below 192 pixels; unread bits are guessed."""
    factor = -(-256 // made.shape[2])
    large = made[: context.limit or POSTHOC].repeat(factor, 2).repeat(factor, 3)
    marker, key = DwtDctSvd(), b"claims of wouaf"
    bits = rng(context.seed, "post hoc").integers(0, 2, 32).astype(bool)
    marked = marker.mark(large, bits, key)

    def read(images: np.ndarray) -> np.ndarray:
        guesses = rng(0, "guesses").standard_normal((len(images), 32))
        for guess, reading in zip(guesses, marker.read(images, key), strict=True):
            if reading.bits is not None and len(reading.bits) == 32:
                guess[:] = 2.0 * reading.bits - 1
        return guesses

    return survival(f"DWT-DCT-SVD at {factor} times the size", marked, np.repeat(bits[None], len(marked), 0), read, 0)


@cache
def _signed(seed: int, user: int, steps: int) -> tuple[Any, np.ndarray, Any]:
    """(decoder, message, method) of Stable Signature for one user."""
    net = system().network
    train = torch.from_numpy(render_pack(200, net.size, 91 + seed).images).float() / 255
    method = StableSignature(whitened(net.reader, train), seed=seed + user, steps=steps)
    bits = rng(seed, "messages", user).integers(0, 2, net.bits).astype(bool)
    return method.stamp(original(), bits, train), bits, method


def _signature_rows(context: ClaimContext, latents: Tensor) -> list[dict[str, Any]]:
    rows = []
    for user in range(1 if context.limit else MESSAGE_USERS):
        vae, bits, method = _signed(context.seed, user, 3 if context.limit else 100)
        made = decoded(vae, latents)
        rows.append(
            survival(
                f"Stable Signature, user {user + 1}", made, np.repeat(bits[None], len(made), 0), method.read,
                context.seed,
            )
        )  # fmt: skip
    return rows


@claim(
    "32-bit fingerprints never seen in training: bit accuracy >= 0.99 on drawn latents, >= 0.90 after each kind of "
    "post-processing, and within 1 point of fingerprints seen in training"
)
def names_new_users(context: ClaimContext) -> Evidence:
    wouaf, images = system(), pictures(context, PICTURES)
    net, latents = wouaf.network, drawn_latents(context, images)
    new, seen = fingerprints(context, len(images)), fingerprints(context, len(images), odd=False)
    samples = decoded_for(net, latents, new)
    ours = survival("WOUAF, drawn latents, new users", samples, new, wouaf.read, context.seed)
    known = survival(
        "WOUAF, drawn latents, seen users", decoded_for(net, latents, seen), seen, wouaf.read, context.seed
    )
    rebuilt = decoded_for(net, net.encode(images), new)
    plain = decoded(original(), latents)
    rows = [
        ours, known, survival("WOUAF, reconstructions, new users", rebuilt, new, wouaf.read, context.seed),
        survival("no modulation", plain, new, wouaf.read, context.seed),
        *_signature_rows(context, latents), _post_hoc(context, plain),
    ]  # fmt: skip
    same = abs(ours["identity 0"] - known["identity 0"]) <= 0.01
    holds = net.bits >= 32 and ours["identity 0"] >= 0.99 and ours["weakest"] >= 0.9 and same
    return Evidence(
        holds, rows,
        f"these weights carry {net.bits} bits; no latent diffusion model of this size is shipped, so the latents are "
        "interpolated and perturbed ones",
    )  # fmt: skip


@claim("reconstructions lose at most 1 dB of PSNR, and their Fréchet distance is at most 2 % above the plain decoder's")
def keeps_the_pictures(context: ClaimContext) -> Evidence:
    images = pictures(context, 450, 2000)
    net, judge = system().network, load_feature_net()
    with torch.no_grad():
        latents = torch.cat([net.encode(part) for part in images.split(32)])
    real = extract_features(judge, images, size=32) if len(images) > 256 else None
    made = {
        "plain decoder": decoded(original(), latents),
        "WOUAF": decoded_for(net, latents, fingerprints(context, len(images), "fidelity")),
        "Stable Signature, user 1": decoded(_signed(context.seed, 0, 3 if context.limit else 100)[0], latents),
    }
    rows = []
    for name, pixels in made.items():
        row: dict[str, Any] = {"decoder": name, "psnr": float(np.mean(psnr(images.numpy(), pixels)))}
        if real is not None:
            row["frechet"] = frechet_distance(real, extract_features(judge, pixels, size=32))
        rows.append(row)
    plain, ours = rows[0], rows[1]
    if real is None:
        return Evidence(False, rows, "a Fréchet distance takes more than 256 pictures; run without a limit")
    return Evidence(ours["psnr"] >= plain["psnr"] - 1 and ours["frechet"] <= 1.02 * plain["frechet"], rows)


@claim("baked and hooked decoders agree to 1e-5, and zero affine weights leave the decoder as it is")
def bakes_exactly(context: ClaimContext) -> Evidence:
    net = system().network
    latents = drawn_latents(context, pictures(context, 8))
    rows: list[dict[str, Any]] = []
    for user, bits in enumerate(fingerprints(context, 4, "baking")):
        row = torch.from_numpy(bits[None].astype(np.float32))
        with torch.no_grad():
            apart = decode(net.stamped(row), latents) / 2 + 0.5 - net.decode(latents, row)
        rows.append({"user": str(user), "largest difference": float(apart.abs().max())})
    ones = {name: torch.ones_like(v) for name, v in net.vectors(torch.zeros(1, net.bits)).items()}
    with torch.no_grad():
        plain = decode(net.vae, latents)
        with modulated(modulated_layers(net.vae), ones):
            apart = decode(net.vae, latents) - plain
    rows.append({"user": "(zero affine weights)", "largest difference": float(apart.abs().max())})
    return Evidence(all(r["largest difference"] <= 1e-5 for r in rows), rows)


@claim("secrecy: a classifier trained on another WOUAF of the same kind is right at most 60 % of the time")
def is_not_noticed(context: ClaimContext) -> Evidence:
    ours, shadow = system(), system("wouaf_shadow", " --seed 1")
    rows: list[dict[str, Any]] = []
    for name, teacher in (("another WOUAF (scenario 1)", shadow), ("the attacked WOUAF itself", ours)):
        net = _stamp_classifier(context, teacher.network)
        found, truth = _stamped_or_not(context, ours.network, 300, 9000)
        with torch.no_grad():
            guess = torch.cat([net(part)[:, 0] for part in found.split(64)]) > 0
        rows.append({"classifier trained on": name, "accuracy": float((guess == truth).float().mean())})
    return Evidence(rows[0]["accuracy"] <= 0.6, rows, "the second row is a stronger attacker, reported only")


def _stamped_or_not(context: ClaimContext, net: WouafNet, count: int, first: int) -> tuple[Tensor, Tensor]:
    """Pictures of different latents, half of them by users' decoders and half by the plain one; bool N, stamped."""
    images = pictures(context, count, first)
    half = len(images) // 2
    with torch.no_grad():
        latents = torch.cat([net.encode(part) for part in images.split(32)])
    bits = fingerprints(context, half, "secrecy", first)[:, : net.bits]
    made = np.concatenate([decoded_for(net, latents[:half], bits), decoded(original(), latents[half:])])
    return torch.from_numpy(made), torch.arange(len(images)) < half


def _stamp_classifier(context: ClaimContext, net: WouafNet) -> ResNet:
    images, truth = _stamped_or_not(context, net, 800, 6000)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed)
        judge = ResNet(ResNetConfig(18, "imagenet", 0.25, classes=1))
    optimizer = torch.optim.AdamW(judge.parameters(), 2e-3, weight_decay=0.05)
    draws = rng(context.seed, "classifier")
    for _ in range(5 if context.limit else 250):
        chosen = torch.from_numpy(draws.integers(0, len(images), 32))
        x = images[chosen]
        x = x.flip(3) if draws.random() < 0.5 else x
        loss = F.binary_cross_entropy_with_logits(judge(x)[:, 0], truth[chosen].float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return judge.eval()


@claim("plain pictures are given to a user no more often than the p-value says (rate 1 %, 20 users, 300 registries)")
def accuses_as_seldom_as_stated(context: ClaimContext) -> Evidence:
    wouaf = system()
    images = pictures(context, 200, 12000)
    kinds = {"pictures": eight(images), "plain decoder": decoded(original(), wouaf.network.encode(images))}
    rows: list[dict[str, Any]] = []
    for name, shown in kinds.items():
        read = wouaf.read(shown) > 0
        shares = []
        for trial in range(20 if context.limit else 300):
            users = UserRegistry(wouaf.bits, f"claims {context.seed} {trial}".encode())
            for i in range(20):
                users.register(str(i))
            shares.append(np.mean([a.p_value <= 0.01 for a in users.attribute(read)]))
        # Pictures that read alike fall together, so that the spread is over registries.
        error = float(np.std(shares) / np.sqrt(len(shares)))
        rows.append({"shown": name, "given to a user": float(np.mean(shares)), "standard error": error})
    budget = {f"users, {e} wrong bits": collision_budget(wouaf.bits, e, 1e-3) for e in range(3)}
    rows.append({"shown": "(collision budget at 0.1 %)", **budget})
    return Evidence(all(r["given to a user"] <= 0.01 + 3 * r["standard error"] for r in rows[:2]), rows)


@claim(
    "no innocent user is named (<= 1 % of pictures, 20 users, p <= 1 %) when up to five users average decoders or "
    "one tunes his on plain pictures; how much of the fingerprints is left is reported"
)
def names_no_innocents(context: ClaimContext) -> Evidence:
    wouaf, images = system(), pictures(context, 60, 15000)
    users = UserRegistry(wouaf.bits, f"collusion {context.seed}".encode())
    names = [f"user {i}" for i in range(20)]
    decoders = {n: wouaf.stamp(users.register(n)) for n in names[:5]}
    for n in names[5:]:
        users.register(n)
    latents = drawn_latents(context, images)
    rows = []
    for count in (1, 2, 3, 5):
        guilty = names[:count]
        made = decoded(_averaged([decoders[n] for n in guilty]), latents)
        rows.append(_accusations(wouaf, users, f"average of {count}", guilty, made))
    train = pictures(context, 200, 17000)
    for steps in (25, 100):
        tuned = _tuned(context, decoders[names[0]], train, steps)
        row = _accusations(wouaf, users, f"tuned for {steps} steps", names[:1], decoded(tuned, latents))
        rebuilt = decoded(tuned, encode(tuned, images * 2 - 1))
        rows.append({**row, "psnr": float(np.mean(psnr(images.numpy(), rebuilt)))})
    return Evidence(all(r["innocent named"] <= 0.01 for r in rows), rows)


def _accusations(wouaf: Wouaf, users: UserRegistry, attack: str, guilty: list[str], made: np.ndarray) -> dict[str, Any]:
    wouaf = Wouaf(network=wouaf.network, users=users)
    found = wouaf.attribute(made)
    named = [a.user for a in found if a.p_value <= 0.01]
    common = np.logical_and.reduce([users[g] == users[guilty[0]] for g in guilty])
    right = np.stack([a.bits == users[guilty[0]] for a in found])
    return {
        "attack": attack, "pictures": len(made), "one of them named": sum(n in guilty for n in named) / len(made),
        "innocent named": sum(n not in guilty for n in named) / len(made),
        "bits they share": float(right[:, common].mean()) if common.any() else float("nan"),
    }  # fmt: skip


def _averaged(decoders: list[Any]) -> Any:
    """The mean of the weights of several autoencoders."""
    made = copy.deepcopy(decoders[0])
    states = [d.state_dict() for d in decoders]
    made.load_state_dict({name: torch.stack([s[name] for s in states]).mean(0) for name in states[0]})
    return made


def _tuned(context: ClaimContext, vae: Any, images: Tensor, steps: int) -> Any:
    """The decoder fine-tuned to rebuild plain pictures, as somebody does who wants to be rid of the fingerprint."""
    made = copy.deepcopy(vae).requires_grad_(False)
    made.decoder.requires_grad_(True)
    optimizer = torch.optim.AdamW(made.decoder.parameters(), 5e-4, weight_decay=0.0)
    generator = torch.Generator().manual_seed(context.seed)
    for _ in range(2 if context.limit else steps):
        chosen = torch.randint(len(images), (8,), generator=generator)
        loss = vae_loss(made, images[chosen] * 2 - 1, generator)["loss"]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(made.decoder.parameters(), 1.0)
        optimizer.step()
    return made.requires_grad_(False).eval()
