"""Mark finished texts by synonyms, and test texts for the mark of a key.

``--set alpha`` is the share of unmarked texts that may be called marked (1 %; the library's own default is the paper's
5 %), ``--set mode`` the test ("precise" or "fast"). ``--model`` names a folder of a masked language model of
transformers that proposes the words instead of the table of synonyms.
"""

from __future__ import annotations

from vestige.core.errors import UsageError
from vestige.core.work import Result, Work
from vestige.watermark.text_blackbox import MaskedModelCandidates, TextBlackbox
from vestige.watermark.tools.text_files import targets, texts_of, told, write

ALPHA = 0.01


def _system(work: Work) -> TextBlackbox:
    alpha, mode = work.option("alpha", ALPHA), work.option("mode", "precise")
    work.settled()
    folder = None if work.model is None else work.needed("model", "a folder of a masked language model")
    return TextBlackbox(
        candidates=None if folder is None else MaskedModelCandidates.from_folder(folder), alpha=alpha, mode=mode
    )


def mark(work: Work) -> Result:
    """Rewrite each text by synonyms that carry the mark of the key."""
    if work.message is not None:
        raise UsageError("The mark of a text carries no message, only its key; leave --message and --bits out.")
    marker, where = _system(work), targets(work)
    said, files = [], []
    rows: list[dict[str, float | int | str]] = []
    marked = []
    for path, text in texts_of(work):  # all of them before anything is written
        marked.append((path, text, marker.mark_text(text, work.key)))
    for (path, text, made), target in zip(marked, where, strict=True):
        seen = marker.read_text(made, work.key)
        files.append(write(target, made))
        changed = sum(a != b for a, b in zip(text.split(), made.split(), strict=False))
        enough = "" if seen.outcome == "read" else "; too few words to be recognised again, give a longer text"
        said.append(f"{path} -> {target}: {changed} words replaced (p = {seen.p_value:.1e}{enough})")
        rows.append({"source": str(path), "words replaced": changed, "p_value": seen.p_value})
    return Result(said=said, rows=rows if len(rows) > 1 else (), figures=rows[0] if len(rows) == 1 else {}, files=files)


def read(work: Work) -> Result:
    """Test each text for the mark of the key; the exit code tells when one has none."""
    marker = _system(work)
    return told(work, lambda text: marker.read_text(text, work.key))


def find(work: Work) -> Result:
    """The same as an examination: whatever it sees, it ends with 0."""
    marker = _system(work)
    return told(work, lambda text: marker.read_text(text, work.key), found=True)
