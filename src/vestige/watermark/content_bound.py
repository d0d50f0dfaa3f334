"""The default mark bound to its picture: what is taken from one picture, or from many, is no mark in another.

`SpreadSpectrum` with signs of its carriers and a mask of its pilots that follow, with the key, from the local content
(`binding`). Neither folding nor averaging shows a pattern that could be pasted elsewhere or subtracted. It survives
less than the default at the same fidelity: small crops, strong compression and reduction after turning lose it sooner,
and looking for it in pictures that were resized or turned takes longer.

Sources: `binding` and `spread_spectrum`.
"""

from __future__ import annotations

from dataclasses import dataclass

from vestige.watermark.spread_spectrum import SpreadSpectrum


@dataclass
class ContentBound(SpreadSpectrum):
    """`SpreadSpectrum` whose mark is bound to the content; parameters and results are the same.

    >>> import numpy as np
    >>> from vestige.core.keys import PUBLIC_KEY
    >>> image = np.random.default_rng(0).random((1, 3, 256, 256), np.float32) * 0.2 + 0.4
    >>> ContentBound().read(ContentBound().mark(image, "hello", PUBLIC_KEY), PUBLIC_KEY)[0].message
    'hello'
    """

    bound: bool = True

    slug = "content_bound"
