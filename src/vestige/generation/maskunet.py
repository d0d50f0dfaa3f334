"""MaskUNet: switch some weights of a frozen UNet off, chosen anew for every time step and sample.

The same weights serve coarse structure early and texture late in sampling; binary masks over the attention projections
of the up path let each step use the ones that help it. Masks come from small generators trained with the ordinary
denoising loss, or, without training, from a reward on the picture each step predicts.

Source: Not All Parameters Matter: Masking Diffusion Models for Enhancing Generation Ability, CVPR 2025.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vestige.core.errors import InputError, UsageError
from vestige.engines.described import read_description, save_described
from vestige.engines.diffusion.pipeline import TextToImage
from vestige.engines.diffusion.samplers import Denoiser, Sampler, sample
from vestige.engines.diffusion.schedules import grid
from vestige.engines.run_state import load_trained
from vestige.nn.weight_tap import MaskedLinear, tap_linears, untap_linears

#: Linear layers of an up block that are masked: the projections of self- and cross-attention.
PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")


def hard_mask(logits: torch.Tensor, generator: torch.Generator | None = None, temperature: float = 1.0) -> torch.Tensor:
    """1[sigmoid((l + g)/tau) > 1/2] forward, the slope of the sigmoid backward; g logistic noise, 0 without generator.

    >>> hard_mask(torch.tensor([-1.0, 2.0])).tolist()
    [0.0, 1.0]
    """
    noise = torch.zeros_like(logits)
    if generator is not None:
        u = torch.rand(logits.shape, generator=generator, device=generator.device).to(logits).clamp(1e-6, 1 - 1e-6)
        noise = torch.log(u) - torch.log1p(-u)
    soft = torch.sigmoid((logits + noise) / temperature)
    return (soft > 0.5).to(soft.dtype) + (soft - soft.detach())


class MaskGenerator(nn.Module):
    """Masks of one up block: y = mean over places of [h, skip] + W·temb; m0 = relu(MLP(y)); logits = A m0 B + bias.

    m0 is (out/r)×(in/r) of the block's first convolution, r = ``reduce``; every masked layer has its own A (out'×out/r)
    and B (in/r×in'), B starting at zero, and a bias that starts at ``start``, so that nothing is masked at first.
    """

    def __init__(
        self, block: Any, layers: dict[str, MaskedLinear], hidden: int = 64, start: float = 1.0, reduce: int = 4
    ) -> None:
        super().__init__()
        first = block.resnets[0]
        wide_in, wide_out = first.conv1.in_channels, first.conv1.out_channels
        self.shape = (max(1, wide_out // reduce), max(1, wide_in // reduce))
        self.time = nn.Linear(first.time_emb_proj.in_features, wide_in, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(wide_in, hidden), nn.ReLU(), nn.Linear(hidden, self.shape[0] * self.shape[1]), nn.ReLU()
        )
        self.rows = nn.ParameterList()
        self.columns = nn.ParameterList()
        self.bias = nn.ParameterList()
        for layer in layers.values():
            out, wide = layer.base.weight.shape
            self.rows.append(nn.Parameter(torch.randn(out, self.shape[0]) * self.shape[0] ** -0.5))
            self.columns.append(nn.Parameter(torch.zeros(self.shape[1], wide)))
            self.bias.append(nn.Parameter(torch.full((), start)))

    def forward(self, hidden: torch.Tensor, temb: torch.Tensor) -> list[torch.Tensor]:
        """Input of the block N×C×H×W and time embedding N×D -> logits N×out×in for each layer."""
        y = hidden.mean((2, 3)) + self.time(temb)
        core = self.mlp(y).unflatten(-1, self.shape)
        return [rows @ core @ columns + bias for rows, columns, bias in zip(self.rows, self.columns, self.bias)]


class MaskUNet(nn.Module):
    """A frozen text-to-image model with generated weight masks in the up path of its UNet.

    Only the generators are trainable. ``remove`` gives the UNet back as it was. start: where every logit begins; a
    weight goes off when its logit has fallen by that much, which no training reaches whose rate times updates is
    smaller (at 3, 1e-3 and 200 updates all masks stay open). noise: draw masks with logistic noise in training, as
    published; at a start of 1 that switches a quarter of the weights off at random, so that without it training sees
    the masks of sampling. reduce: how much smaller than a convolution the core of its masks is; small networks need
    more than the paper's 4 to keep the generators small beside them. Raises UsageError when the up path has no
    attention.
    """

    def __init__(
        self, model: TextToImage, *, hidden: int = 64, start: float = 1.0, noise: bool = False, reduce: int = 4
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {"hidden": hidden, "start": start, "reduce": reduce}
        if reduce < 1:
            raise UsageError(f"reduce is {reduce}; it must be at least 1.")
        self.model = model.requires_grad_(False)
        self.noise = noise
        self.generator: torch.Generator | None = None
        self.taps: list[dict[str, MaskedLinear]] = []
        self.generators = nn.ModuleList()
        self._hooks = []
        for block in model.unet.up_blocks:
            taps = tap_linears(block, lambda name: "attn" in name and name.endswith(PROJECTIONS))
            if not taps:
                continue
            self.taps.append(taps)
            self.generators.append(MaskGenerator(block, taps, hidden, start, reduce))
            # The first residual block sees [h, skip] and the time before any attention of the block runs.
            hook = partial_hook(self, len(self.taps) - 1)
            self._hooks.append(block.resnets[0].register_forward_pre_hook(hook, with_kwargs=True))
        if not self.taps:
            raise UsageError("The up path of this UNet has no attention layers to mask.")

    def set_masks(self, block: int, hidden: torch.Tensor, temb: torch.Tensor) -> None:
        """Generate the masks of one block for the call that is under way."""
        noisy = self.generator if self.training and self.noise else None
        for tap, logits in zip(self.taps[block].values(), self.generators[block](hidden, temb)):
            tap.mask = hard_mask(logits, noisy)

    def loss(
        self, latents: torch.Tensor, ids: torch.Tensor, generator: torch.Generator, **options: Any
    ) -> torch.Tensor:
        """The base model's own denoising loss, seen by the mask generators alone."""
        self.generator = generator
        return self.model.loss(latents, ids, generator, **options)

    def sample(self, prompts: str | Sequence[str], **options: Any) -> torch.Tensor:
        """As `TextToImage.sample`, with masks."""
        training = self.training
        self.eval()
        try:
            return self.model.sample(prompts, **options)
        finally:
            self.train(training)

    def sparsity(self) -> dict[str, float]:
        """Share of zeros in each masked layer at the last call, averaged over samples."""
        return {
            f"{i}.{name}": 1 - float(tap.mask.detach().mean())
            for i, taps in enumerate(self.taps)
            for name, tap in taps.items()
            if tap.mask is not None
        }

    def remove(self) -> TextToImage:
        """Take masks and hooks out; the base model, as it was."""
        for hook in self._hooks:
            hook.remove()
        blocks = [b for b in self.model.unet.up_blocks if any(isinstance(m, MaskedLinear) for m in b.modules())]
        for block, taps in zip(blocks, self.taps):
            untap_linears(block, taps)
        return self.model


def digest_of(model: TextToImage) -> str:
    """Sixteen hexadecimal digits of the weights of a UNet, to tell which model masks belong to."""
    state = hashlib.sha256()
    for name, value in sorted(model.unet.state_dict().items()):
        state.update(name.encode() + value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return state.hexdigest()[:16]


def save_masks(masked: MaskUNet, path: str | Path, base: str, digest: str) -> None:
    """Write the mask generators with what they are made for. base: the folder of the model, "" for the shipped one.
    digest: `digest_of` of it, taken before it was masked."""
    save_described(path, masked.generators, "maskunet", {**masked.settings, "base": base, "digest": digest})


def masks_base(path: str | Path) -> str:
    """The folder of the model that masks were trained for, "" for the shipped one; InputError for other files."""
    return str(read_description(path, "maskunet").get("base", ""))


def load_masks(path: str | Path, model: TextToImage) -> MaskUNet:
    """``model`` with the masks of `save_masks`. Raises InputError for other files and for other models' masks."""
    about = read_description(path, "maskunet")
    if about.get("digest") != digest_of(model):
        raise InputError(f"{path} holds masks of another model ({about.get('base') or 'the shipped one'}).")
    try:
        settings: dict[str, Any] = {"hidden": int(about["hidden"]), "reduce": int(about["reduce"])}
        settings["start"] = float(about["start"])
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path} does not say how its masks are generated.") from None
    masked = MaskUNet(model, **settings)
    try:
        load_trained(path, masked.generators)
    except InputError:
        masked.remove()
        raise
    return masked.eval()


def partial_hook(owner: MaskUNet, block: int) -> Callable[..., None]:
    """The forward hook that sets the masks of a block from the arguments of its first residual block."""

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs["input_tensor"]
        temb = args[1] if len(args) > 1 else kwargs["temb"]
        owner.set_masks(block, hidden, temb)

    return hook


def sample_with_reward(
    model: TextToImage,
    prompt: str,
    reward: Callable[[torch.Tensor], torch.Tensor],
    *,
    steps: int = 10,
    updates: tuple[int, int] = (1, 10),
    late: float = 0.7,
    lr: float = 1e-2,
    guidance: float = 3.0,
    method: Sampler = "dpm++",
    seed: int = 0,
) -> torch.Tensor:
    """The training-free form: one picture 1×3×H×W; at each step free logits per weight climb ``reward`` (N,) of the
    picture predicted there, before the step is taken with the masks found.

    Logits start at 1 and are reset at every step. updates: gradient steps in the first ``late`` share of the run, and
    after. The reward must not be the measure by which the result is judged.
    """
    shape = model.latent_shape()
    training = model.training
    frozen = [p for p in model.parameters() if p.requires_grad]
    model.eval().requires_grad_(False)
    blocks = list(model.unet.up_blocks)
    taps = [tap_linears(b, lambda name: "attn" in name and name.endswith(PROJECTIONS)) for b in blocks]
    layers = [tap for block in taps for tap in block.values()]
    levels = grid(model.table, steps)
    turn = 0

    def network(x: torch.Tensor, time: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
        nonlocal turn
        logits = [torch.ones_like(tap.base.weight, requires_grad=True) for tap in layers]
        optimiser = torch.optim.AdamW(logits, lr, weight_decay=0.0)
        level = int(levels[turn])
        with torch.enable_grad():
            for _ in range(updates[0] if turn < late * steps else updates[1]):
                _assign(layers, logits)
                inner = Denoiser(
                    model.network, model.table, model.prediction, context[-1:] if context is not None else None
                )
                clean, _ = inner.estimate(x[-1:], level)
                optimiser.zero_grad()
                (-reward(model.decode(clean)).sum()).backward()
                optimiser.step()
        with torch.no_grad():
            _assign(layers, logits)
            turn += 1
            return model.network(x, time, context)

    try:
        denoiser = model.denoiser(prompt, guidance=guidance)
        denoiser.network = network
        start = torch.randn((1, *shape), generator=torch.Generator().manual_seed(seed)).to(model.device)
        clean = sample(denoiser, start, levels, method, generator=torch.Generator().manual_seed(seed + 1))
        for tap in layers:
            tap.mask = None
        with torch.no_grad():
            return model.decode(clean)
    finally:
        for block, taken in zip(blocks, taps):
            untap_linears(block, taken)
        for p in frozen:
            p.requires_grad_(True)
        model.train(training)


def _assign(layers: list[MaskedLinear], logits: list[torch.Tensor]) -> None:
    for tap, values in zip(layers, logits):
        tap.mask = hard_mask(values)
