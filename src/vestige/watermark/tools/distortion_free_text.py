"""Write texts whose words a secret key chose without changing the model's law, and recognise them.

``--set scheme`` is one of its, exp, its-edit and exp-edit; ``tokens``, ``temperature`` and ``to_the_end`` (go on past
the model's end token) say how much is written. ``resamples`` is the number of fresh keys that a text is tested under:
199 of them take seconds for a page and allow no p-value below 0.005.
"""

from __future__ import annotations

from vestige.core.work import Result, Work
from vestige.watermark.distortion_free_text import DistortionFreeText
from vestige.watermark.tools import token_marks
from vestige.watermark.tools.token_marks import TokenMark


def _system(work: Work) -> TokenMark:
    system = DistortionFreeText(
        work.option("scheme", "exp-edit"), key_length=work.option("key_length", 256),
        resamples=work.option("resamples", 199), alpha=work.option("alpha", 0.01),
    )  # fmt: skip
    return TokenMark(
        lambda model, ids, count, key, seed, temperature, stop: system.generate(
            model, ids, count, key, seed=seed, temperature=temperature, stop=stop
        ),
        system.detect,
    )


def make(work: Work) -> Result:
    """Continue ``--prompt`` by marked words."""
    return token_marks.make(work, _system(work))


def mark(work: Work) -> Result:
    """Continue text files by marked words."""
    return token_marks.mark(work, _system(work))


def read(work: Work) -> Result:
    """Test texts for the mark of the key."""
    return token_marks.read(work, _system(work))


def find(work: Work) -> Result:
    """The same as an examination."""
    return token_marks.read(work, _system(work), found=True)
