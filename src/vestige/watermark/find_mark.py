"""Looks for vestige's own marks in a picture, with the public key and any keys the user holds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from vestige.core.findings import Finding
from vestige.core.image_io import to_float
from vestige.core.keys import PUBLIC_KEY, fingerprint
from vestige.core.roles import Marker
from vestige.core.subjects import ImageSubject
from vestige.watermark.dwt_dct_svd import DwtDctSvd
from vestige.watermark.spread_spectrum import SpreadSpectrum


@dataclass
class FindMark:
    """Read marks of every kind with each key; a mark that cannot be read is still reported.

    The p-value is that of the keyed presence test, corrected for the number of keys and kinds of marks tried.
    """

    keys: Sequence[bytes] = (PUBLIC_KEY,)
    slug = "find_mark"
    kind = "mark"

    def find(self, subject: ImageSubject) -> Finding:
        spread, blocks = SpreadSpectrum(), DwtDctSvd()
        readers: tuple[Marker, ...] = (spread, blocks)
        # readers look at the middle of a large picture; as much is cut off on both sides, so that it stays the middle
        looked_at = max(int(reader.region * reader.scales[1]) for reader in (spread, blocks))
        samples = subject.pixels if subject.decoded.deep is None else subject.decoded.deep
        rows, columns = (slice(k, n - k) for n in samples.shape[:2] for k in [max(n - looked_at, 0) // 2])
        image = to_float(samples[rows, columns])
        best, name = None, ""
        for key, reader in itertools.product(self.keys, readers):
            (reading,) = reader.read(image, key)
            if best is None or (reading.outcome == "read", -reading.p_value) > (best.outcome == "read", -best.p_value):
                best, name = reading, "the public key" if key == PUBLIC_KEY else f"key {fingerprint(key)}"
            if reading.outcome == "read":
                break
        assert best is not None
        p_value = min(1.0, best.p_value * len(self.keys) * len(readers))
        said = f"the message {best.message!r}" if best.message is not None else "a bit payload"
        flagged = best.outcome != "absent"
        return Finding(
            examiner=self.slug,
            kind=self.kind,
            score=float(flagged),
            flagged=flagged,
            when_flagged=(
                f"A watermark made with {name} was read and authenticated: it carries {said}."
                if best.outcome == "read"
                else f"A watermark made with {name} is present, but its payload is too damaged to read."
            ),
            when_clear=f"No watermark of the {len(self.keys)} key{'s' * (len(self.keys) > 1)} tried.",
            evidence=(f"presence test: p = {p_value:.1e}",) if flagged else (),
            details={
                "outcome": best.outcome,
                "p_value": p_value,
                "message": best.message,
                "bits": None if best.bits is None else "".join("01"[int(b)] for b in best.bits),
            },
        )
