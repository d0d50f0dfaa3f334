"""Vision transformers whose cost follows the tokens they are given, and the decoders of masked modelling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.nn.blocks import ALL, Block, take
from vestige.nn.linear import Linear
from vestige.nn.positions import RelativeBias, Rotary, sincos_2d

POSITIONS = ("sincos", "learned", "relative", "rotary", "none")


@dataclass(frozen=True)
class ViTConfig:
    """Size and parts of a `ViT`; the defaults are ViT-Ti/4 for 32×32 pixels (64 tokens).

    positions: "sincos" (fixed table), "learned" (table), "relative" (bias), "rotary" or "none". mean, std: of the
    sRGB channels, for the normalisation inside the model.
    """

    image_size: int = 32
    patch_size: int = 4
    width: int = 192
    depth: int = 9
    heads: int = 3
    mlp_ratio: float = 4.0
    positions: str = "sincos"
    class_token: bool = True
    drop_path: float = 0.0
    qkv_bias: bool = True
    eps: float = 1e-6
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if self.patch_size < 1 or self.image_size < 1 or self.image_size % self.patch_size:
            raise UsageError(
                f"An image of {self.image_size} pixels has no whole number of {self.patch_size}-pixel patches."
            )
        if self.positions not in POSITIONS:
            raise UsageError(f"positions is {self.positions!r}; choose one of {', '.join(POSITIONS)}.")
        if self.depth < 0 or self.width < 1:
            raise UsageError(f"A ViT of width {self.width} and depth {self.depth} cannot be built.")

    @property
    def grid(self) -> tuple[int, int]:
        return self.image_size // self.patch_size, self.image_size // self.patch_size

    @property
    def length(self) -> int:
        return self.grid[0] * self.grid[1]


#: Sizes by name: model, patch, image side.
VITS = {
    "vit_nano_4_32": ViTConfig(width=128, depth=6, heads=4),
    "vit_tiny_4_32": ViTConfig(),
    "vit_tiny_16_224": ViTConfig(224, 16, 192, 12, 3),
    "vit_small_16_224": ViTConfig(224, 16, 384, 12, 6),
    "vit_base_16_224": ViTConfig(224, 16, 768, 12, 12),
    "vit_large_16_224": ViTConfig(224, 16, 1024, 24, 16),
}


def patchify(images: Tensor, size: int) -> Tensor:
    """Images N×3×H×W -> patches N×L×(size²·3) in reading order; values within a patch go row, column, channel.

    Raises UsageError when the sides are no multiples of ``size``.

    >>> patchify(torch.zeros(2, 3, 8, 12), 4).shape
    torch.Size([2, 6, 48])
    """
    n, channels, height, width = images.shape
    if height % size or width % size:
        raise UsageError(f"Images of {width}×{height} pixels have no whole number of {size}-pixel patches.")
    cut = images.view(n, channels, height // size, size, width // size, size)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(n, -1, size * size * channels)


def unpatchify(patches: Tensor, size: int, grid: tuple[int, int]) -> Tensor:
    """Inverse of `patchify`."""
    n, _, values = patches.shape
    cut = patches.view(n, *grid, size, size, values // size**2)
    return cut.permute(0, 5, 1, 3, 2, 4).reshape(n, -1, grid[0] * size, grid[1] * size)


def initialise(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases for every linear layer, as in MAE."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


class ViT(nn.Module):
    """Pre-norm vision transformer that encodes only the patches it is given.

    forward(images N×3×H×W in [0, 1], ids N×K or None) -> tokens N×(1+K)×width, class token first (without one:
    N×K×width). ``encode`` does the same from cut patches. Patches that are left out cost nothing: their pixels are
    dropped before the patch embedding.

    Source: An Image is Worth 16x16 Words, ICLR 2021; initialisation and positions as in Masked Autoencoders Are
    Scalable Vision Learners, CVPR 2022.

    >>> ViT(ViTConfig(width=16, depth=1, heads=2))(torch.zeros(2, 3, 32, 32), torch.tensor([[0, 5], [1, 2]])).shape
    torch.Size([2, 3, 16])
    """

    def __init__(self, config: ViTConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ViTConfig()
        self.width = config.width
        self.extra = int(config.class_token)
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(1, 3, 1, 1), persistent=False)
        self.embed = Linear(3 * config.patch_size**2, config.width)
        if config.class_token:
            self.class_token = nn.Parameter(torch.empty(1, 1, config.width).normal_(std=0.02))
        if config.positions == "learned":
            self.positions = nn.Parameter(torch.empty(config.length + self.extra, config.width).normal_(std=0.02))
        elif config.positions == "sincos":
            table = F.pad(sincos_2d(*config.grid, config.width), (0, 0, self.extra, 0))
            self.register_buffer("positions", table, persistent=False)
        self.relative = RelativeBias(config.grid, config.heads) if config.positions == "relative" else None
        self.rotary = Rotary(config.grid, config.width // config.heads) if config.positions == "rotary" else None
        rates = [config.drop_path * i / max(1, config.depth - 1) for i in range(config.depth)]
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.mlp_ratio, rate, config.qkv_bias, config.eps) for rate in rates
        )
        self.norm = nn.LayerNorm(config.width, eps=config.eps)
        initialise(self)

    def normalise(self, images: Tensor) -> Tensor:
        """sRGB in [0, 1] -> zero mean and unit variance over the mean and std of the configuration."""
        return (images - self.get_buffer("mean")) / self.get_buffer("std")

    def patches(self, images: Tensor) -> Tensor:
        """Images N×3×H×W in [0, 1] -> normalised patches N×L×(p²·3); raises UsageError for another size."""
        side = self.config.image_size
        if images.dim() != 4 or images.shape[1:] != (3, side, side):
            raise UsageError(f"The model takes images N×3×{side}×{side}, not {'×'.join(map(str, images.shape))}.")
        return patchify(self.normalise(images), self.config.patch_size)

    def places(self, ids: Tensor) -> Tensor | None:
        """The position vectors of patches ``ids`` (N×K) -> N×K×width; None when positions are not added."""
        if self.config.positions not in ("sincos", "learned"):
            return None
        return F.embedding(ids + self.extra, self.positions)

    def all_ids(self, n: int) -> Tensor:
        return torch.arange(self.config.length, device=self.norm.weight.device).expand(n, -1)

    def encode(
        self,
        patches: Tensor,
        ids: Tensor,
        places: Tensor | None = None,
        context: int | None = None,
        outputs: list[Tensor] | None = None,
    ) -> Tensor:
        """Patches N×K×(p²·3) from the cells ``ids`` (N×K) -> tokens N×(extra+K)×width after the last norm.

        places: position vectors N×K×width in place of the model's own. context: only the class token and the first so
        many patches give keys and values; the others look without being seen. outputs: a list that gets the input of
        the first block and the output of every block.
        """
        x = self.embed(patches)
        places = self.places(ids) if places is None else places
        if places is not None:
            x = x + places
        if self.extra:
            first: Tensor = self.class_token
            if self.config.positions == "learned":
                first = first + self.positions[:1]
            x = torch.cat([first.expand(len(x), -1, -1), x], 1)
        bias = None if self.relative is None else self.relative(ids, self.extra)
        rotary = None if self.rotary is None else self.rotary(ids, self.extra)
        seen = ALL if context is None else slice(0, self.extra + context)
        for block in self.blocks:
            if outputs is not None:
                outputs.append(x)
            x = block(x, context=seen, bias=bias, rotary=rotary)
        if outputs is not None:
            outputs.append(x)
        return self.norm(x)

    def forward(self, images: Tensor, ids: Tensor | None = None) -> Tensor:
        patches = self.patches(images)
        if ids is None:
            return self.encode(patches, self.all_ids(len(patches)))
        return self.encode(take(patches, ids), ids)

    def features(self, images: Tensor, pool: str = "mean") -> Tensor:
        """Images of any size -> N×width: the mean of the patch tokens, or the class token (pool "class").

        Raises UsageError for another ``pool`` or a class token the model does not have.
        """
        if pool not in ("mean", "class") or (pool == "class" and not self.extra):
            raise UsageError(f"pool is {pool!r}; choose 'mean'" + (" or 'class'." if self.extra else "."))
        side = self.config.image_size
        if images.shape[-2:] != (side, side):
            images = F.interpolate(images, (side, side), mode="bilinear", antialias=True, align_corners=False)
        tokens = self(images)
        return tokens[:, 0] if pool == "class" else tokens[:, self.extra :].mean(1)

    def outputs(self, images: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Tokens of whole images after so many blocks each (0: before the first), without the final norm."""
        collected: list[Tensor] = []
        self.encode(self.patches(images), self.all_ids(len(images)), outputs=collected)
        return [collected[layer] for layer in layers]

    @torch.no_grad()
    def attention(self, images: Tensor, block: int = -1) -> Tensor:
        """Attention weights of one block on whole images: N×heads×(extra+L)×(extra+L)."""
        index = range(len(self.blocks))[block]
        (x,) = self.outputs(images, [index])
        ids, chosen = self.all_ids(len(images)), self.blocks[index]
        assert isinstance(chosen, Block)
        bias = None if self.relative is None else self.relative(ids, self.extra)
        rotary = None if self.rotary is None else self.rotary(ids, self.extra)
        return chosen.attn.weights(chosen.norm1(x), bias, rotary)


@dataclass(frozen=True)
class DecoderConfig:
    """Size of a decoder; MAE uses 512 wide, 8 deep, 16 heads beside ViT-B and ViT-L."""

    width: int = 96
    depth: int = 2
    heads: int = 3
    mlp_ratio: float = 4.0
    eps: float = 1e-6


class MaskedDecoder(nn.Module):
    """Predicts what the encoder did not see: one learned token for every missing cell, told apart by position.

    forward(tokens N×(extra+K)×width_in, ids_keep N×K, ids_masked N×M) -> N×M×out, in the order of ids_masked.
    Attention does not care about order, so tokens stay shuffled and the last block computes the missing cells only;
    the result equals that of a decoder over the full sequence in reading order.

    Source: Masked Autoencoders Are Scalable Vision Learners, CVPR 2022.
    """

    def __init__(self, encoder: ViTConfig, out: int, config: DecoderConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DecoderConfig()
        self.extra = int(encoder.class_token)
        self.embed = Linear(encoder.width, config.width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, config.width).normal_(std=0.02))
        self.register_buffer("positions", sincos_2d(*encoder.grid, config.width), persistent=False)
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.mlp_ratio, eps=config.eps) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width, eps=config.eps)
        self.head = Linear(config.width, out)
        initialise(self)

    def forward(self, tokens: Tensor, ids_keep: Tensor, ids_masked: Tensor) -> Tensor:
        positions = self.get_buffer("positions")
        seen = self.embed(tokens) + F.pad(F.embedding(ids_keep, positions), (0, 0, self.extra, 0))
        missing = self.mask_token[0] + positions
        x = torch.cat([seen, F.embedding(ids_masked, missing)], 1)
        last = slice(seen.shape[1], None)
        if not len(self.blocks):
            x = x[:, last]
        qkv: Tensor | None = self._first_projection(seen, missing, ids_masked) if len(self.blocks) else None
        for index, block in enumerate(self.blocks, 1):
            x = block(x, queries=last if index == len(self.blocks) else ALL, qkv=qkv)
            qkv = None
        return self.head(self.norm(x))

    def _first_projection(self, seen: Tensor, missing: Tensor, ids_masked: Tensor) -> Tensor:
        """Queries, keys and values of the first block. Before it, a missing cell looks the same in every image, so
        those of the L possible cells are worked out once and not once for each image."""
        first = self.blocks[0]
        assert isinstance(first, Block)
        qkv = first.attn.qkv
        return torch.cat([qkv(first.norm1(seen)), F.embedding(ids_masked, qkv(first.norm1(missing)))], 1)


class TokenDecoder(nn.Module):
    """Blocks and a linear layer over the tokens there are, without positions: N×(extra+K)×width_in -> N×K×out."""

    def __init__(self, encoder: ViTConfig, out: int, config: DecoderConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DecoderConfig()
        self.extra = int(encoder.class_token)
        self.embed = Linear(encoder.width, config.width)
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.mlp_ratio, eps=config.eps) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width, eps=config.eps)
        self.head = Linear(config.width, out)
        initialise(self)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, self.extra :]))
