"""Published ViT and MAE weights, brought to the names and layouts of `vestige.nn.vit`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from vestige.core.errors import InputError
from vestige.nn.positions import resize_positions
from vestige.nn.vit import ViT, ViTConfig

_TIMM = (
    (r"^cls_token$", "class_token"),
    (r"^pos_embed$", "positions"),
    (r"^patch_embed\.proj\.", "embed."),
)
_TRANSFORMERS = (
    (r"^(vit|model|base_model)\.", ""),
    (r"^embeddings\.cls_token$", "class_token"),
    (r"^embeddings\.position_embeddings$", "positions"),
    (r"^embeddings\.patch_embeddings\.projection\.", "embed."),
    (r"^(encoder\.layer|layers?)\.(\d+)\.", r"blocks.\2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.q_proj\.", ".attn.query."),
    (r"\.attention\.k_proj\.", ".attn.key."),
    (r"\.attention\.v_proj\.", ".attn.value."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.(intermediate\.dense|mlp\.fc1)\.", ".mlp.fc1."),
    (r"(blocks\.\d+)\.(output\.dense|mlp\.fc2)\.", r"\1.mlp.fc2."),
    (r"^layernorm\.", "norm."),
)


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a ViT under timm's (facebook's MAE) or transformers' names, under ours; other entries are left out.

    Separate query, key and value matrices are joined, and the patch convolution becomes the matrix that works on
    patches in row, column, channel order. ``positions`` keeps the row of the class token.
    """
    timm = "patch_embed.proj.weight" in state
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        for pattern, replacement in _TIMM if timm else _TRANSFORMERS:
            name = re.sub(pattern, replacement, name)
        if re.match(r"^(class_token|positions|embed\.(weight|bias)|norm\.(weight|bias)|blocks\.\d+\.)", name):
            renamed[name] = tensor
    for name in [n for n in renamed if n.endswith((".attn.query.weight", ".attn.query.bias"))]:
        parts = [renamed.pop(name.replace("query", part), None) for part in ("query", "key", "value")]
        joined = [p for p in parts if p is not None]
        if len(joined) == 3:
            renamed[name.replace("query", "qkv")] = torch.cat(joined)
    weight = renamed.get("embed.weight")
    if weight is not None and weight.dim() == 4:
        renamed["embed.weight"] = weight.permute(0, 2, 3, 1).flatten(1)
    if "positions" in renamed:
        renamed["positions"] = renamed["positions"].reshape(-1, renamed["positions"].shape[-1])
    return renamed


def vit_from_weights(
    state: Mapping[str, Tensor],
    *,
    heads: int | None = None,
    image_size: int | None = None,
    config: ViTConfig | None = None,
) -> ViT:
    """A `ViT` with published weights; its size is read off the tensors.

    state: as `rename` takes it. heads: default width / 64, as in all published ViTs. image_size: default that of the
    position table; for another size the table is resized. config: for what tensors do not tell (eps, mean, std).
    Positions become "learned" parameters, so that they are what the file says. Raises InputError when the weights are
    not those of a ViT with absolute positions.
    """
    ours = rename(state)
    weight, positions = ours.get("embed.weight"), ours.get("positions")
    if weight is None or positions is None or "norm.weight" not in ours:
        raise InputError(
            "These weights are not those of a ViT with a position table (no patch embedding, or no table)."
        )
    width = weight.shape[0]
    patch = round((weight.shape[1] / 3) ** 0.5)
    extra = int("class_token" in ours)
    side = round((len(positions) - extra) ** 0.5)
    depth = 1 + max((int(n.split(".")[1]) for n in ours if n.startswith("blocks.")), default=-1)
    hidden = ours.get("blocks.0.mlp.fc1.weight", torch.empty(4 * width, 0)).shape[0]
    if 3 * patch**2 != weight.shape[1] or side**2 + extra != len(positions):
        raise InputError("These ViT weights have patches or a position grid that are not square.")
    size = image_size or side * patch
    config = replace(
        config or ViTConfig(),
        image_size=size, patch_size=patch, width=width, depth=depth, heads=heads or max(1, width // 64),
        mlp_ratio=hidden / width, positions="learned", class_token=bool(extra),
        qkv_bias="blocks.0.attn.qkv.bias" in ours or not depth,
    )  # fmt: skip
    ours["positions"] = torch.cat(
        [positions[:extra], resize_positions(positions[extra:], (side, side), (size // patch, size // patch))]
    )
    if extra:
        ours["class_token"] = ours["class_token"].reshape(1, 1, width)
    model = ViT(config)
    try:
        model.load_state_dict(ours)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"These weights do not make a whole ViT ({reason}).") from None
    return model.eval()
