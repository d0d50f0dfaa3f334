"""How good a frozen encoder is: k nearest neighbours, a linear probe, and fine-tuning, each by one stated protocol.

Features are extracted once, without augmentation, and standardised with the mean and spread of the training features
(a batch norm without parameters). Nothing is chosen on test data: the probe's weight decay is chosen on a held-out
tenth of the training features.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.data.packs import Pack
from vestige.engines.masked.augment import pad_crop
from vestige.engines.optim import learning_rate, set_lr
from vestige.nn.blocks import DropPath
from vestige.nn.vit import ViT

DECAYS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def _pixels(images: np.ndarray | Tensor) -> Tensor:
    tensor = torch.from_numpy(images) if isinstance(images, np.ndarray) else images
    return tensor.float() / 255 if tensor.dtype == torch.uint8 else tensor


@torch.no_grad()
def extract(encoder: Any, images: np.ndarray | Tensor, *, batch_size: int = 500, **options: Any) -> Tensor:
    """``encoder.features`` of uint8 or float images N×3×H×W, in evaluation mode and in batches: float32 N×D, CPU."""
    device = next(encoder.parameters()).device
    training = encoder.training
    encoder.eval()
    try:
        parts = [
            encoder.features(_pixels(images[i : i + batch_size]).to(device), **options).float().cpu()
            for i in range(0, len(images), batch_size)
        ]
    finally:
        encoder.train(training)
    return torch.cat(parts)


def standardise(train: Tensor, *others: Tensor) -> list[Tensor]:
    """Subtract the mean and divide by the spread of each feature, both taken from ``train``."""
    spread, mean = torch.std_mean(train, 0)
    return [(x - mean) / (spread + 1e-6) for x in (train, *others)]


def knn_accuracy(
    train: Tensor, labels: Tensor, test: Tensor, truth: Tensor, *, k: int = 20, temperature: float = 0.07
) -> float:
    """Accuracy of the vote of the k most similar training features, each weighing exp(cosine / temperature).

    Raises UsageError when k is out of range.

    Source: Unsupervised Feature Learning via Non-parametric Instance Discrimination, CVPR 2018.
    """
    if not 1 <= k <= len(train):
        raise UsageError(f"k is {k}; it must be between 1 and the {len(train)} training features.")
    bank, queries = (F.normalize(x, dim=1) for x in standardise(train, test))
    classes = int(max(labels.max(), truth.max())) + 1
    right = 0
    for start in range(0, len(queries), 500):
        similarity, nearest = (queries[start : start + 500] @ bank.T).topk(k, 1)
        votes = torch.zeros(len(similarity), classes)
        votes.scatter_add_(1, labels[nearest], (similarity / temperature).exp())
        right += int((votes.argmax(1) == truth[start : start + 500]).sum())
    return right / len(queries)


@dataclass(frozen=True)
class LinearClassifier:
    """softmax(W (x - mean) / (spread + 1e-6) + b); see `fit_linear`."""

    mean: Tensor
    spread: Tensor
    weight: Tensor
    bias: Tensor

    def logits(self, x: Tensor) -> Tensor:
        """Features ...×D -> ...×classes."""
        return ((x - self.mean) / (self.spread + 1e-6)) @ self.weight.T + self.bias

    def accuracy(self, x: Tensor, truth: Tensor) -> float:
        return float((self.logits(x).argmax(-1) == truth).float().mean())


def fit_linear(
    train: Tensor, labels: Tensor, classes: int, *, decays: tuple[float, ...] = DECAYS, iterations: int = 100,
    seed: int = 0,
) -> LinearClassifier:  # fmt: skip
    """Multinomial logistic regression on standardised features.

    Full-batch L-BFGS of mean cross-entropy + decay/2·‖W‖² from zero; the decay is the best of ``decays`` on a held-out
    tenth of the training features, then the classifier is fitted to all of them.
    """
    order = torch.from_numpy(rng(seed, "linear probe").permutation(len(train)))
    held, rest = order[: len(order) // 10], order[len(order) // 10 :]

    def fit(x: Tensor, y: Tensor, decay: float) -> LinearClassifier:
        spread, mean = torch.std_mean(x, 0)
        return LinearClassifier(mean, spread, *_logistic(standardise(x)[0], y, classes, decay, iterations))

    if len(decays) > 1 and len(held):
        tried = {d: fit(train[rest], labels[rest], d).accuracy(train[held], labels[held]) for d in decays}
        decays = (max(tried, key=lambda d: tried[d]),)
    return fit(train, labels, decays[0])


def linear_probe(
    train: Tensor, labels: Tensor, test: Tensor, truth: Tensor, *, decays: tuple[float, ...] = DECAYS,
    iterations: int = 100, seed: int = 0,
) -> float:  # fmt: skip
    """Test accuracy of `fit_linear`."""
    classes = int(max(labels.max(), truth.max())) + 1
    fitted = fit_linear(train, labels, classes, decays=decays, iterations=iterations, seed=seed)
    return fitted.accuracy(test, truth)


def _logistic(x: Tensor, labels: Tensor, classes: int, decay: float, iterations: int) -> tuple[Tensor, Tensor]:
    weight = torch.zeros(classes, x.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=iterations, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weight.T + bias, labels) + decay / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return weight.detach(), bias.detach()


def probe(encoder: Any, train: Pack, test: Pack, *, k: int = 20, seed: int = 0, **options: Any) -> dict[str, float]:
    """{"knn": accuracy, "linear": accuracy} of a frozen encoder. options: for ``encoder.features``, such as pool."""
    x, y = extract(encoder, train.images, **options), torch.from_numpy(train.labels)
    test_x, truth = extract(encoder, test.images, **options), torch.from_numpy(test.labels)
    return {
        "knn": knn_accuracy(x, y, test_x, truth, k=min(k, len(x))),
        "linear": linear_probe(x, y, test_x, truth, seed=seed),
    }


def effective_rank(tokens: Tensor) -> float:
    """exp of the entropy of the normalised singular values of centred tokens (...×D): how many directions are used."""
    x = tokens.reshape(-1, tokens.shape[-1]).double()
    values = torch.linalg.svdvals(x - x.mean(0))
    p = values / values.sum()
    return float((-(p * p.clamp_min(1e-300).log()).sum()).exp())


def attention_distance(encoder: ViT, images: Tensor, block: int = -1) -> Tensor:
    """Mean distance in patches that each head of a block looks, over images and patches: heads."""
    weights = encoder.attention(images, block)[:, :, encoder.extra :, encoder.extra :]
    weights = weights / weights.sum(-1, keepdim=True)
    height, width = encoder.config.grid
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    cells = torch.stack([rows.flatten(), columns.flatten()], 1).float().to(weights.device)
    return (weights * torch.cdist(cells, cells)).sum(-1).mean((0, 2))


class Classifier(nn.Module):
    """Encoder, mean of the patch tokens, LayerNorm, linear: what is fine-tuned."""

    def __init__(self, encoder: ViT, classes: int, drop_path: float = 0.1) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder)
        blocks = list(self.encoder.blocks)
        for i, block in enumerate(blocks):
            for part in block.modules():
                if isinstance(part, DropPath):
                    part.rate = drop_path * i / max(1, len(blocks) - 1)
        self.norm = nn.LayerNorm(encoder.width)
        self.head = nn.Linear(encoder.width, classes)
        nn.init.trunc_normal_(self.head.weight, std=2e-5)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.norm(self.encoder.features(images)))


def layer_groups(model: Classifier, lr: float, decay: float, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups whose rate shrinks by ``decay`` with every block from the top; no weight decay on vectors."""
    depth = len(model.encoder.blocks)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        if not name.startswith("encoder.") or name.startswith("encoder.norm"):
            level = depth + 1
        else:
            level = int(parts[2]) + 1 if parts[1] == "blocks" else 0
        plain = parameter.dim() < 2 or "token" in name
        scale = decay ** (depth + 1 - level)
        entry = {"params": [], "lr": lr * scale, "lr_scale": scale, "weight_decay": 0.0 if plain else weight_decay}
        groups.setdefault((level, plain), entry)["params"].append(parameter)
    return list(groups.values())


def fine_tune(
    encoder: ViT,
    train: Pack,
    test: Pack,
    *,
    epochs: int = 50,
    batch_size: int = 128,
    lr: float = 1e-3,
    layer_decay: float = 0.75,
    weight_decay: float = 0.05,
    drop_path: float = 0.1,
    smoothing: float = 0.1,
    mix: float = 0.8,
    seed: int = 0,
) -> tuple[float, Classifier]:
    """Train the whole network on labels: (test accuracy after the last epoch, the network).

    AdamW (0.9, 0.999), 10 % warm-up and half a cosine, layer-wise rates, shift by 4 pixels and flip, label smoothing;
    each batch is mixed with its reverse by CutMix or mixup with probability ``mix`` (0: never). The encoder given is
    left alone; for training from scratch give one with random weights.
    """
    device = next(encoder.parameters()).device
    classes = max(int(max(train.labels.max(), test.labels.max())) + 1, len(train.class_names))
    generator = torch.Generator().manual_seed(int(rng(seed, "fine-tune").integers(2**62)))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(rng(seed, "fine-tune", "layers").integers(2**62)))
        model = Classifier(encoder, classes, drop_path).to(device).train()
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        optimizer = torch.optim.AdamW(layer_groups(model, lr, layer_decay, weight_decay), betas=(0.9, 0.999))
        images, labels = torch.from_numpy(train.images).to(device), torch.from_numpy(train.labels).to(device)
        per_epoch = math.ceil(len(images) / batch_size)
        for step in range(epochs * per_epoch):
            if step % per_epoch == 0:
                order = torch.randperm(len(images), generator=generator).to(device)
            ids = order[step % per_epoch * batch_size :][:batch_size]
            x, y = pad_crop(images[ids], generator), F.one_hot(labels[ids], classes).float()
            if torch.rand((), generator=generator) < mix:
                x, y = mix_batch(x, y, generator)
            set_lr(optimizer, learning_rate(
                step, step / (epochs * per_epoch), lr=lr, min_lr=0.0, warmup=0.1, steps=epochs * per_epoch,
                schedule="cosine",
            ))  # fmt: skip
            loss = F.cross_entropy(model(x), y, label_smoothing=smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        right = sum(
            int((model(_pixels(test.images[i : i + 500]).to(device)).argmax(1).cpu().numpy()
                 == test.labels[i : i + 500]).sum())
            for i in range(0, len(test), 500)
        )  # fmt: skip
    return right / len(test), model


def mix_batch(x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mix a batch with its reverse, labels N×C alike: CutMix (a rectangle) or mixup (a blend), each half of the time.

    Sources: CutMix, ICCV 2019; mixup: Beyond Empirical Risk Minimization, ICLR 2018.
    """
    share, kind, cy, cx = (float(torch.rand((), generator=generator)) for _ in range(4))
    if kind < 0.5:
        height, width = x.shape[-2:]
        side = math.sqrt(1 - share)
        top, left = (int(c * size - side * size / 2) for c, size in ((cy, height), (cx, width)))
        box = (
            slice(max(0, top), max(0, top + round(side * height))),
            slice(max(0, left), max(0, left + round(side * width))),
        )
        mixed = x.clone()
        mixed[..., box[0], box[1]] = x.flip(0)[..., box[0], box[1]]
        share = 1 - x[0, 0][box].numel() / (height * width)
        return mixed, share * y + (1 - share) * y.flip(0)
    return share * x + (1 - share) * x.flip(0), share * y + (1 - share) * y.flip(0)
