"""Write texts with more words of a keyed green list than chance gives, and recognise them.

``--set gamma`` is the share of green words, ``delta`` what they gain in their logits; ``tokens``, ``temperature`` and
``to_the_end`` say how much is written.
"""

from __future__ import annotations

from vestige.core.work import Result, Work
from vestige.watermark.text_baselines import GreenList
from vestige.watermark.tools import token_marks
from vestige.watermark.tools.token_marks import TokenMark


def _system(work: Work) -> TokenMark:
    system = GreenList(
        gamma=work.option("gamma", 0.25), delta=work.option("delta", 2.0), alpha=work.option("alpha", 0.01)
    )
    return TokenMark(
        lambda model, ids, count, key, seed, temperature, stop: system.generate(
            model, ids, count, key, seed=seed, temperature=temperature, stop=stop
        ),
        lambda ids, key, size: system.detect(ids, key),
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
