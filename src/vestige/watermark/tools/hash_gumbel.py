"""Write texts whose words a hash of the words before them chose, and recognise them.

``--set width`` is the number of words that the hash sees; ``tokens``, ``temperature`` and ``to_the_end`` say how much
is written. Equal prompts give equal texts.
"""

from __future__ import annotations

from vestige.core.work import Result, Work
from vestige.watermark.text_baselines import HashGumbel
from vestige.watermark.tools import token_marks
from vestige.watermark.tools.token_marks import TokenMark


def _system(work: Work) -> TokenMark:
    system = HashGumbel(width=work.option("width", 2), alpha=work.option("alpha", 0.01))
    return TokenMark(
        lambda model, ids, count, key, seed, temperature, stop: system.generate(
            model, ids, count, key, temperature=temperature, stop=stop
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
