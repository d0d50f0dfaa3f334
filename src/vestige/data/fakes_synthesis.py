"""Pictures whose detail is synthesised from statistics or borrowed: no network, no fixed up-sampling grid.

Each keeps what a photograph shows and makes its fine structure anew. All return pictures of the photographs' shape;
row i draws from the seed and i alone.
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy.fft import dctn, idctn
from scipy.ndimage import gaussian_filter

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.data.fakes import FakeSource, Maker

#: Side of the blocks whose coefficients are drawn anew.
BLOCK = 8


def drawn_bands(photographs: np.ndarray, seed: int, *, bands: int = 2) -> np.ndarray:
    """The finest ``bands`` of a Gaussian pyramid drawn anew, with the photograph's energy at every place.

    x = low + Σ b_k; b_k -> n_k √(G(b_k²) / G(n_k²)), n_k the same band of white noise and G a blur. The colours of the
    noise are mixed as the band's are, so that grey detail stays grey. float32 N×3×H×W -> the same.

    Source: Pyramid-Based Texture Analysis/Synthesis, SIGGRAPH 1995.

    >>> drawn_bands(np.full((1, 3, 16, 16), 0.5, np.float32), 0).round(3).min()
    np.float32(0.5)
    """
    made = np.empty_like(photographs)
    for i, photograph in enumerate(photographs):
        draw = rng(seed, "drawn bands", i)
        result, rest = np.zeros_like(photograph), photograph
        for band in range(bands):
            blur = (0, 0.8 * 2**band, 0.8 * 2**band)
            low = gaussian_filter(rest, blur, mode="reflect")
            white = draw.standard_normal(photograph.shape, np.float32)
            noise = white - gaussian_filter(white, blur, mode="reflect")
            detail = rest - low
            colours = np.cov(detail.reshape(3, -1)) + 1e-9 * np.eye(3)
            noise = np.einsum("cd,dhw->chw", np.linalg.cholesky(colours).astype(np.float32), noise)
            result += noise * np.sqrt(_local(detail**2) / (_local(noise**2) + 1e-9))
            rest = low
        made[i] = result + rest
    return made


def _local(energy: np.ndarray) -> np.ndarray:
    """Mean over the colours in a window of about five pixels, 1×H×W."""
    return np.asarray(gaussian_filter(energy.mean(0, keepdims=True), (0, 1.5, 1.5), mode="reflect"), np.float32)


def drawn_coefficients(photographs: np.ndarray, seed: int, *, kept: float = 0.15) -> np.ndarray:
    """The strong cosine coefficients of blocks kept, the weak ones drawn anew: a sparse code and its prior.

    Of every 8×8 block the ``kept`` share of largest magnitude stays; the others are drawn from a Laplace law of the
    scale that they have, at this frequency, in the whole picture. Blocks start at a random place, and four grids are
    averaged. float32 N×3×H×W -> the same.

    Source: Emergence of simple-cell receptive field properties by learning a sparse code for natural images, Nature
    1996 (strong coefficients are few, the rest follows a peaked law).

    >>> drawn_coefficients(np.full((1, 3, 16, 16), 0.5, np.float32), 0).shape
    (1, 3, 16, 16)
    """
    c, height, width = photographs.shape[1:]
    made = np.zeros_like(photographs)
    down, right = (-height % BLOCK) + BLOCK, (-width % BLOCK) + BLOCK
    for i, photograph in enumerate(photographs):
        draw = rng(seed, "drawn coefficients", i)
        for _ in range(4):
            top, left = (int(draw.integers(BLOCK)) for _ in range(2))
            whole = np.pad(photograph, ((0, 0), (top, down - top), (left, right - left)), mode="reflect")
            h, w = (side // BLOCK for side in whole.shape[1:])
            blocks = whole.reshape(c, h, BLOCK, w, BLOCK).transpose(1, 3, 0, 2, 4)
            code = dctn(blocks, axes=(3, 4), norm="ortho")
            strength = np.abs(code).reshape(h * w, -1)
            edge = np.quantile(strength, 1 - kept, axis=1).reshape(h, w, 1, 1, 1)
            weak = np.abs(code) < edge
            scale = np.where(weak, np.abs(code), 0).mean((0, 1)) / np.maximum(weak.mean((0, 1)), 1e-3)
            drawn = np.clip(draw.laplace(0, 1, code.shape), -4, 4) * scale
            back = idctn(np.where(weak, drawn, code), axes=(3, 4), norm="ortho")
            back = back.transpose(2, 0, 3, 1, 4).reshape(whole.shape)
            made[i] += back[:, top : top + height, left : left + width] / 4
    return made.astype(np.float32)


class BorrowedDetail:
    """Detail from patches of other photographs whose surroundings look alike once they are reduced.

    The photograph is reduced by two and enlarged; every 6×6 patch of it, on a grid of three pixels, asks the bank for
    the patch most like it (less its mean, over its spread) and takes that one's detail, scaled back. Overlaps are
    averaged with a tapered window. photographs: float N×3×H×W, what the bank is filled from; count: most patches in
    it. Raises UsageError when they hold fewer than 100.

    Source: Example-Based Super-Resolution, IEEE Computer Graphics and Applications 2002.

    >>> g = np.random.default_rng(0)
    >>> BorrowedDetail(g.random((4, 3, 32, 32), np.float32), 200)(g.random((1, 3, 16, 16), np.float32), 0).shape
    (1, 3, 16, 16)
    """

    side, step = 6, 3

    def __init__(self, photographs: np.ndarray, count: int = 4000, *, seed: int = 0) -> None:
        coarse = _coarse(photographs)
        keys = self._patches(coarse)
        details = self._patches(photographs - coarse)
        if len(keys) < 100:
            raise UsageError(f"A bank needs at least 100 patches; these photographs hold {len(keys)}.")
        # Busy patches first: flat ones have no detail to lend.
        spread = keys.std(1) + np.float32(0.01)
        draw = rng(seed, "borrowed detail")
        busy = np.argsort(-spread * draw.uniform(0.3, 1, len(spread)))[:count]
        scaled = (keys[busy] - keys[busy].mean(1, keepdims=True)) / spread[busy, None]
        self.keys, self.details = scaled, details[busy] / spread[busy, None]

    def _patches(self, images: np.ndarray) -> np.ndarray:
        """N×3×H×W -> M×108."""
        windows = np.lib.stride_tricks.sliding_window_view(images, (self.side, self.side), (2, 3))
        chosen = windows[:, :, :: self.step, :: self.step]
        return chosen.transpose(0, 2, 3, 1, 4, 5).reshape(-1, 3 * self.side**2)

    def __call__(self, photographs: np.ndarray, seed: int) -> np.ndarray:
        made = np.empty_like(photographs)
        taper = np.outer(*2 * [np.hanning(self.side + 2)[1:-1]]).astype(np.float32)
        edge = self.side
        lengths = (self.keys**2).sum(1) / 2
        for i, photograph in enumerate(photographs):
            padded = np.pad(photograph[None], ((0, 0), (0, 0), (edge, edge), (edge, edge)), mode="reflect")
            coarse = _coarse(padded)
            patches = self._patches(coarse)
            spread = patches.std(1, keepdims=True) + np.float32(0.01)
            asked = (patches - patches.mean(1, keepdims=True)) / spread
            # A little noise on the distances: another seed borrows from other neighbours.
            noise = rng(seed, "borrowed", i).normal(0, 2, len(self.keys)).astype(np.float32)
            best = (asked @ self.keys.T - lengths + noise).argmax(1)
            detail = (self.details[best] * spread).reshape(-1, 3, self.side, self.side)
            total = np.zeros_like(coarse[0])
            weight = np.full(coarse.shape[2:], 1e-6, np.float32)
            rows, columns = (range(0, s - self.side + 1, self.step) for s in coarse.shape[2:])
            for k, (top, left) in enumerate(itertools.product(rows, columns)):
                place = slice(top, top + self.side), slice(left, left + self.side)
                total[:, *place] += detail[k] * taper
                weight[place] += taper
            made[i] = (coarse[0] + total / weight)[:, edge:-edge, edge:-edge]
        return made


def _coarse(images: np.ndarray) -> np.ndarray:
    """Reduced by two and enlarged, without a grid: a blur of the same band."""
    return np.asarray(gaussian_filter(images, (0, 0, 1.1, 1.1), mode="reflect"), np.float32)


def synthesis_sources(photographs: np.ndarray, *, seed: int = 0) -> list[FakeSource]:
    """ "drawn_bands", "drawn_coefficients" and "borrowed_detail", the last from photographs used for nothing else."""
    makers: dict[str, Maker] = {
        "drawn_bands": drawn_bands,
        "drawn_coefficients": drawn_coefficients,
        "borrowed_detail": BorrowedDetail(photographs, seed=seed),
    }
    return [FakeSource(name, "synthesis", make) for name, make in makers.items()]
