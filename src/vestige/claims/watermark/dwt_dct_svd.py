"""Claims of the classical watermark, on photographs that took no part in choosing its parameters."""

from __future__ import annotations

import numpy as np

from vestige.bench.forensics.corpus import photographs
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.core.image_io import decode, to_float, to_uint8
from vestige.core.keys import derive
from vestige.core.runtime import rng
from vestige.data.distortions import distort
from vestige.metrics.quality import psnr, ssim
from vestige.watermark.dwt_dct_svd import DwtDctSvd

PHOTOGRAPHS, UNMARKED = 60, 400
DISTORTIONS = (
    ("identity", 1), ("jpeg", 75), ("jpeg", 50), ("webp", 70), ("noise", 0.02), ("blur", 1), ("brightness", 0.8),
    ("brightness", 1.2), ("contrast", 0.8), ("contrast", 1.2), ("resize", 0.75), ("resize", 1.5), ("resize_back", 0.5),
    ("crop", 0.8), ("crop", 0.5),
)  # fmt: skip


def _pictures(context: ClaimContext, count: int) -> list[tuple[str, np.ndarray]]:
    root = context.data or context.pack("photos")
    photos = photographs(root, "test", packs=("photos",), limit=context.limit or count)
    images = ((name, to_float(decode(data).pixels)) for name, data in photos)
    return [(name, image) for name, image in images if min(image.shape[2:]) >= DwtDctSvd().minimum_side]


@headline(
    "32 bits are read exactly from at least 95 % of photographs after each of 15 distortions, at mean PSNR >= 40 dB"
)
def survives_distortions(context: ClaimContext) -> Evidence:
    context.pack("photos")
    marker = DwtDctSvd()
    read: dict[tuple[str, float], list[bool]] = {d: [] for d in DISTORTIONS}
    qualities, likenesses = [], []
    for name, image in _pictures(context, PHOTOGRAPHS):
        bits = rng(context.seed, "bits", name).integers(0, 2, 32).astype(bool)
        key = derive(b"claim", name)
        marked = to_float(to_uint8(marker.mark(image, bits, key)))
        qualities.append(float(np.mean(psnr(image, marked))))
        likenesses.append(float(np.mean(ssim(image, marked))))
        for kind, strength in DISTORTIONS:
            (reading,) = marker.read(distort(marked, kind, strength, seed=context.seed), key)
            right = reading.outcome == "read" and reading.bits is not None and np.array_equal(reading.bits, bits)
            read[kind, strength].append(right)
    rows = [
        {"distortion": k, "strength": s, "photographs": len(v), "read": float(np.mean(v))} for (k, s), v in read.items()
    ]
    rows.append({"distortion": "(quality)", "psnr": float(np.mean(qualities)), "ssim": float(np.mean(likenesses))})
    holds = all(np.mean(v) >= 0.95 for v in read.values()) and float(np.mean(qualities)) >= 40
    return Evidence(holds, rows)


@claim("no unmarked photograph is read or called marked, and neither is a marked one with another key")
def is_silent_without_a_mark(context: ClaimContext) -> Evidence:
    context.pack("photos")
    marker = DwtDctSvd()
    plain, foreign, lowest = [], [], 1.0
    for i, (name, image) in enumerate(_pictures(context, UNMARKED)):
        (reading,) = marker.read(image, derive(b"unmarked", name))
        plain.append(reading.outcome != "absent")
        lowest = min(lowest, reading.p_value)
        if i % 4 == 0:
            marked = marker.mark(image, rng(context.seed, name).integers(0, 2, 32).astype(bool), derive(b"one", name))
            (reading,) = marker.read(marked, derive(b"another", name))
            foreign.append(reading.outcome != "absent")
    rows = [
        {"pictures": "unmarked", "count": len(plain), "called marked": int(sum(plain)), "lowest p": lowest},
        {"pictures": "marked with another key", "count": len(foreign), "called marked": int(sum(foreign))},
    ]
    return Evidence(not any(plain) and not any(foreign), rows)
