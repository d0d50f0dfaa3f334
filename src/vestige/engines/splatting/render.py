"""Differentiable splatting without tiles: every Gaussian is blended into every pixel.

Memory and time grow as Gaussians × pixels, so this is for small scenes and pictures, on any device; its pictures are
those of the tile-based renderers. Source: 3D Gaussian Splatting for Real-Time Radiance Field Rendering, SIGGRAPH 2023.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.engines.splatting.cameras import Cameras
from vestige.engines.splatting.gaussians import SH_CONSTANT, Gaussians, rotation_matrices

#: Nothing nearer than this is drawn.
NEAR = 0.2
#: Added to the variances on the screen, in pixels², so that no Gaussian falls between pixels.
LOW_PASS = 0.3
#: The opacity of a Gaussian in a pixel: smaller ones are not drawn, larger ones are cut.
LEAST_ALPHA, MOST_ALPHA = 1 / 255, 0.99
#: Gaussians × pixels that are blended at a time where no gradient is needed.
CHUNK = 2**24


class _Blend(torch.autograd.Function):
    """Front-to-back blending: Σ_i w_i c_i + T_N b with w_i = α_i T_i, T_i = Π_{j<i} (1 − α_j).

    power: C×P×N, log α in order of depth. features: C×N×K. background: K. With v_i = w_i (g · c_i) for the gradient g
    of a pixel, ∂/∂log α_i = v_i − (Σ_{j>i} v_j + T_N g · b) α_i / (1 − α_i). As in the original renderer the gradient
    passes the cut at `MOST_ALPHA`.
    """

    @staticmethod
    def forward(ctx: Any, power: Tensor, features: Tensor, background: Tensor) -> Tensor:
        alpha = F.threshold(power.exp().clamp_(max=MOST_ALPHA), LEAST_ALPHA, 0.0)
        clear = torch.cumprod(1 - alpha, -1)
        weights = torch.cat([1 - clear[..., :1], clear[..., :-1] - clear[..., 1:]], -1)
        left = clear[..., -1:]
        ctx.save_for_backward(alpha, weights, left.clone(), features, background)
        return torch.matmul(weights, features) + left * background

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        alpha, weights, left, features, background = ctx.saved_tensors
        (gradient,) = gradients
        v = torch.matmul(gradient, features.transpose(-1, -2)).mul_(weights)
        behind = v.cumsum(-1)
        total = behind[..., -1:] + left * (gradient * background).sum(-1, keepdim=True)
        for_power = v.sub_(behind.neg_().add_(total).mul_(alpha / (1 - alpha)))
        for_features = torch.matmul(weights.transpose(-1, -2), gradient)
        return for_power, for_features, None


def spherical_harmonics(directions: Tensor, count: int) -> Tensor:
    """The first 1, 4, 9 or 16 real spherical harmonics at unit vectors ...×3, ...×count, in the order of the format.

    >>> spherical_harmonics(torch.tensor([[0.0, 0.0, 1.0]]), 4).shape
    torch.Size([1, 4])
    """
    x, y, z = directions.unbind(-1)
    basis = [torch.full_like(x, SH_CONSTANT)]
    if count > 1:
        basis += [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if count > 4:
        basis += [
            1.0925484305920792 * x * y, -1.0925484305920792 * y * z, 0.31539156525252005 * (3 * z * z - 1),
            -1.0925484305920792 * x * z, 0.5462742152960396 * (x * x - y * y),
        ]  # fmt: skip
    if count > 9:
        basis += [
            -0.5900435899266435 * y * (3 * x * x - y * y), 2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (5 * z * z - 1), 0.3731763325901154 * z * (5 * z * z - 3),
            -0.4570457994644658 * x * (5 * z * z - 1), 1.445305721320277 * z * (x * x - y * y),
            -0.5900435899266435 * x * (x * x - 3 * y * y),
        ]  # fmt: skip
    return torch.stack(basis, -1)


def colors(gaussians: Gaussians, cameras: Cameras) -> Tensor:
    """Colours as every camera sees them, C×N×3, not negative."""
    directions = F.normalize(gaussians.xyz - cameras.centers[:, None], dim=-1)
    basis = spherical_harmonics(directions, gaussians.sh.shape[1])
    return (torch.einsum("cnk,nkd->cnd", basis, gaussians.sh) + 0.5).clamp_min(0)


def render(
    gaussians: Gaussians,
    cameras: Cameras,
    *,
    background: tuple[float, ...] | Tensor = (0.0, 0.0, 0.0),
    features: Tensor | None = None,
) -> Tensor:
    """Pictures float C×3×H×W, of colours not cut at 1; gradients pass to the Gaussians and features.

    Every Gaussian becomes one on the screen with covariance J W Σ Wᵀ Jᵀ + `LOW_PASS` I (J: the projection's slope at
    the centre, W: the camera's rotation) and is blended front to back by the depth of its centre.
    background: K values where nothing is drawn. features: N×K values that are blended instead of colours, for C×K×H×W.
    Raises UsageError where these do not fit together.

    >>> from vestige.engines.splatting import random_gaussians, ring
    >>> render(random_gaussians(20), ring(2, 16)).shape
    torch.Size([2, 3, 16, 16])
    """
    values = colors(gaussians, cameras) if features is None else features.expand(len(cameras), -1, -1)
    behind = torch.as_tensor(background, dtype=values.dtype, device=values.device)
    if values.shape[1] != len(gaussians) or behind.shape != values.shape[2:]:
        raise UsageError(f"Features N×K need N = {len(gaussians)} and a background of K values.")
    power, order = screen_terms(gaussians, cameras)
    power = power.gather(2, order[:, None].expand_as(power))
    values = values.gather(1, order[:, :, None].expand_as(values))
    x, y = cameras.pixels().to(values.dtype).unbind(1)
    grid = torch.stack([x * x, x * y, y * y, x, y, torch.ones_like(x)], 1)
    rows = len(grid)
    if not (torch.is_grad_enabled() and (power.requires_grad or values.requires_grad)):
        rows = max(1, CHUNK // (len(gaussians) * len(cameras)))
    blended = [_Blend.apply(part @ power, values, behind) for part in grid.split(rows)]
    return torch.cat(blended, 1).transpose(1, 2).reshape(len(cameras), -1, cameras.height, cameras.width)


def screen_terms(gaussians: Gaussians, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """log α of every Gaussian as a polynomial of the pixel: C×6×N terms for (x², xy, y², x, y, 1); and the order of
    depth, C×N indices."""
    seen = torch.einsum("cij,nj->cni", cameras.rotation, gaussians.xyz) + cameras.translation[:, None]
    visible = seen[..., 2] > NEAR
    x, y, z = seen[..., 0], seen[..., 1], seen[..., 2].clamp_min(NEAR)
    limit_x, limit_y = (1.3 * side / 2 / cameras.focal for side in (cameras.width, cameras.height))
    # Beyond the frame the slope of the projection grows without bound; the original renderer cuts it there too.
    slope_x = -(x / z).clamp(-limit_x, limit_x) / z
    slope_y = -(y / z).clamp(-limit_y, limit_y) / z
    axes = rotation_matrices(gaussians.rotation) * gaussians.scale.exp()[:, None]
    axes = torch.einsum("cij,njk->cnik", cameras.rotation, axes)
    on_x = cameras.focal * (axes[..., 0, :] / z[..., None] + slope_x[..., None] * axes[..., 2, :])
    on_y = cameras.focal * (axes[..., 1, :] / z[..., None] + slope_y[..., None] * axes[..., 2, :])
    xx, yy = on_x.square().sum(-1) + LOW_PASS, on_y.square().sum(-1) + LOW_PASS
    xy = (on_x * on_y).sum(-1)
    inverse = 1 / (xx * yy - xy * xy)
    a, b, c = -0.5 * yy * inverse, xy * inverse, -0.5 * xx * inverse
    u, v = cameras.focal * x / z, cameras.focal * y / z
    constant = a * u * u + b * u * v + c * v * v + F.logsigmoid(gaussians.opacity)[:, 0]
    constant = torch.where(visible, constant, -torch.inf)
    terms = torch.stack([a, b, c, -(2 * a * u + b * v), -(2 * c * v + b * u), constant], 1)
    return terms, seen[..., 2].detach().argsort(1)
