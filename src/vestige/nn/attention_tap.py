"""Reading and changing the attention of a diffusers network from outside, and giving it back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch.nn import functional as F


class AttentionHook(Protocol):
    """What a tap calls at every attention layer. ``cross``: keys come from the context, not from the picture."""

    def qkv(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cross: bool, name: str
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries N×heads×Q×d, keys and values N×heads×K×d before they meet; returns those to use."""
        ...

    def wants_maps(self, cross: bool, queries: int) -> bool:
        """Whether `maps` is to be called; the maps are formed only then, which costs memory N×heads×Q×K."""
        ...

    def maps(self, maps: torch.Tensor, cross: bool, name: str) -> torch.Tensor:
        """Softmax maps N×heads×Q×K; returns those to use."""
        ...


class _Processor:
    def __init__(self, hook: AttentionHook, name: str) -> None:
        self.hook, self.name = hook, name

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        cross = encoder_hidden_states is not None
        residual, spatial = hidden_states, hidden_states.ndim == 4
        if spatial:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if cross and attn.norm_cross:
            context = attn.norm_encoder_hidden_states(context)
        q, k, v = (
            layer(x).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for layer, x in ((attn.to_q, hidden_states), (attn.to_k, context), (attn.to_v, context))
        )
        if attn.norm_q is not None:
            q = attn.norm_q(q)
        if attn.norm_k is not None:
            k = attn.norm_k(k)
        q, k, v = self.hook.qkv(q, k, v, cross, self.name)
        if attention_mask is not None:
            attention_mask = attn.prepare_attention_mask(attention_mask, k.shape[2], len(q))
            attention_mask = attention_mask.unflatten(0, (len(q), attn.heads))
        if self.hook.wants_maps(cross, q.shape[2]):
            logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
            maps = (logits if attention_mask is None else logits + attention_mask).softmax(-1)
            out = self.hook.maps(maps, cross, self.name) @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=attention_mask)
        out = attn.to_out[1](attn.to_out[0](out.transpose(1, 2).flatten(2)))
        if spatial:
            out = out.transpose(1, 2).unflatten(2, residual.shape[2:])
        if attn.residual_connection:
            out = out + residual
        return out / attn.rescale_output_factor


@contextmanager
def tapped(network: Any, hook: AttentionHook) -> Iterator[None]:
    """Within the block, every attention layer of a diffusers network runs through ``hook``; afterwards as before."""
    before = network.attn_processors
    network.set_attn_processor({name: _Processor(hook, name.removesuffix(".processor")) for name in before})
    try:
        yield
    finally:
        network.set_attn_processor(before)
