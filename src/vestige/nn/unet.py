"""Text-conditional UNets for 16 to 256 pixels: diffusers' ``UNet2DConditionModel`` in compact sizes.

The network maps (x_t N×C×H×W, t N, context N×L×D) to a prediction of the shape of x_t. Cross-attention to the context
and self-attention sit at the levels at most ``attention_size`` pixels wide, where they cost little.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vestige.core.errors import UsageError

#: Widths per level, from fine to coarse.
SIZES: dict[str, tuple[int, ...]] = {
    "tiny": (16, 32),
    "cpu": (32, 64, 128),
    "small": (64, 128, 128),
    "medium": (64, 128, 192, 256),
}


def norm_groups(widths: Sequence[int]) -> int:
    """How many groups the group norms have: a divisor of every width that leaves at least four channels in a group.

    With one channel a group the norm would take the mean colour out of a flat picture. Raises UsageError for widths
    that are not divisible by 8.

    >>> norm_groups([32, 64, 128])
    8
    """
    if not widths or any(w < 8 or w % 8 for w in widths):
        raise UsageError(f"The widths {tuple(widths)} must be divisible by 8.")
    return next(g for g in (32, 16, 8, 4, 2) if all(w % g == 0 and w >= 4 * g for w in widths))


def text_unet(
    size: int = 32,
    channels: int = 3,
    widths: str | Sequence[int] = "small",
    context: int = 128,
    *,
    layers: int = 1,
    attention_size: int = 16,
    head: int = 16,
    dropout: float = 0.0,
) -> Any:
    """A ``UNet2DConditionModel`` for ``channels``×``size``×``size`` inputs and contexts of width ``context``.

    widths: a name of `SIZES` or the channels of every level; each level halves the resolution. layers: residual
    blocks per level on the way down (one more on the way up). head: width of one attention head.
    Raises UsageError when the size cannot be halved so often or a width does not divide into groups.

    >>> import torch
    >>> unet = text_unet(16, 3, "tiny", 8)
    >>> unet(torch.zeros(2, 3, 16, 16), torch.tensor([0, 9]), torch.zeros(2, 5, 8)).sample.shape
    torch.Size([2, 3, 16, 16])
    """
    from diffusers import UNet2DConditionModel

    if isinstance(widths, str):
        if widths not in SIZES:
            raise UsageError(f"There is no UNet size {widths!r}; choose one of {', '.join(SIZES)} or give the widths.")
        widths = SIZES[widths]
    halvings = 2 ** (len(widths) - 1)
    if size % halvings:
        raise UsageError(f"A UNet of {len(widths)} levels needs sizes divisible by {halvings}; {size} is not.")
    groups = norm_groups(widths)
    if any(w % head for w in widths):
        raise UsageError(f"The widths {tuple(widths)} must be divisible by the head width {head}.")
    attended = [size >> level <= attention_size for level in range(len(widths))]
    return UNet2DConditionModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attended),
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attended)),
        block_out_channels=tuple(widths),
        layers_per_block=layers,
        cross_attention_dim=context,
        # diffusers reads this argument as the number of heads; widths differ, so do the counts.
        attention_head_dim=tuple(w // head for w in widths),
        norm_num_groups=groups,
        dropout=dropout,
    )
