"""Marks that a language model leaves while it writes: continue a prompt or a text, and test texts for the mark.

``--model`` is a folder of a causal language model of transformers, of any size; reading needs its tokenizer alone.
Nothing is downloaded and no code of the folder is run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vestige.core.errors import InputError, UsageError
from vestige.core.roles import Reading
from vestige.core.work import Result, Work
from vestige.watermark.distortion_free_text import Generated
from vestige.watermark.tools.text_files import targets, texts_of, told, write

_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
_WHAT = "a folder of a causal language model with its tokenizer"


@dataclass(frozen=True)
class TokenMark:
    """One method as the verbs need it. generate: (model, prompt ids, count, key, seed, temperature, end tokens) -> ids.
    detect: (ids, key, size of the vocabulary) -> Reading."""

    generate: Callable[[Any, list[int], int, bytes, int, float, tuple[int, ...]], Generated]
    detect: Callable[[Any, bytes, int], Reading]


def load_tokenizer(folder: Path) -> tuple[Any, int]:
    """The tokenizer of a folder and the size of the model's vocabulary. Raises InputError."""
    from transformers import AutoConfig, AutoTokenizer

    return _loaded(
        folder,
        lambda: (
            AutoTokenizer.from_pretrained(folder, **_LOCAL),
            int(AutoConfig.from_pretrained(folder, **_LOCAL).get_text_config().vocab_size),
        ),
    )


def load_language_model(folder: Path) -> tuple[Any, Any]:
    """A causal language model of transformers and its tokenizer. Raises InputError."""
    from transformers import AutoModelForCausalLM

    tokenizer, _ = load_tokenizer(folder)
    model = _loaded(folder, lambda: AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, **_LOCAL))
    return model.eval(), tokenizer


def _loaded(folder: Path, load: Callable[[], Any]) -> Any:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give {_WHAT}.")
    from transformers.utils import logging

    logging.disable_progress_bar()  # of loading weights, which takes no time that is worth one
    try:
        return load()
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(f"{folder} is not {_WHAT} ({reason}).") from None


def _written(work: Work, mark: TokenMark, model: Any, tokenizer: Any, beginning: str) -> tuple[str, Generated]:
    """The beginning continued by ``--set tokens`` marked tokens."""
    ids = tokenizer(beginning, add_special_tokens=False).input_ids
    end = tokenizer.eos_token_id
    if not ids:
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else end
        if start is None:
            raise UsageError("The tokenizer has no start token; give a beginning with --prompt.")
        ids = [start]
    limit = getattr(model.config, "max_position_embeddings", None) or 10**9
    count, temperature = work.option("tokens", 120), work.option("temperature", 1.0)
    stop = () if end is None or work.option("to_the_end", False) else (end,)
    work.settled()
    if not 1 <= count < limit:
        raise UsageError(f"--set tokens={count} must lie between 1 and {limit - 1}, what the model can see at once.")
    ids = ids[-(limit - count) :]
    return beginning, mark.generate(model, ids, count, work.key, work.seed, temperature, stop)


def _joined(beginning: str, made: Generated, tokenizer: Any) -> str:
    text = tokenizer.decode(made.ids.tolist(), skip_special_tokens=True)
    gap = "" if not beginning or beginning[-1].isspace() or text[:1].isspace() or text[:1] in ".,;:!?'" else " "
    return f"{beginning}{gap}{text}"


def make(work: Work, mark: TokenMark) -> Result:
    """Continue ``--prompt`` by marked words and write the whole to ``--out``."""
    if work.paths:
        raise UsageError(f"{work.method} writes a text from --prompt; 'vestige mark' continues a text file.")
    target = work.out_file()
    if target.suffix.lower() not in (".txt", ".md", ".text"):
        raise UsageError(f"--out {target} must end in .txt or .md.")
    model, tokenizer = load_language_model(work.needed("model", _WHAT))
    beginning, made = _written(work, mark, model, tokenizer, work.prompt)
    return _result(work, mark, tokenizer, model, [(target, beginning, made)])


def mark(work: Work, mark: TokenMark) -> Result:
    """Continue every text file by marked words: these marks are made while a model writes, not afterwards."""
    if work.message is not None:
        raise UsageError("The mark of a text carries no message, only its key; leave --message and --bits out.")
    where, texts = targets(work), texts_of(work)
    model, tokenizer = load_language_model(work.needed("model", _WHAT))
    made = []
    for (_, text), target in zip(texts, where, strict=True):
        beginning, written = _written(work, mark, model, tokenizer, text)
        made.append((target, beginning, written))
    return _result(work, mark, tokenizer, model, made)


def _result(
    work: Work, mark: TokenMark, tokenizer: Any, model: Any, made: list[tuple[Path, str, Generated]]
) -> Result:  # fmt: skip
    files = []
    rows: list[dict[str, Any]] = []
    size = int(model.config.get_text_config().vocab_size)
    for target, beginning, written in made:
        text = _joined(beginning, written, tokenizer)
        files.append(write(target, text + "\n"))
        # What was written alone: a long text before it would take minutes to align.
        own = tokenizer(text[len(beginning) :], add_special_tokens=False).input_ids
        seen = mark.detect(own, work.key, size)
        rows.append({"file": str(target), "tokens": len(written.ids), "potential": written.potential,
                     "p_value": seen.p_value, "recognised again": seen.outcome == "read"})  # fmt: skip
    said = [
        f"{row['file']}: {row['tokens']} marked tokens, p = {row['p_value']:.1e}"
        + ("" if row["recognised again"] else "; not recognised again: more tokens or a higher temperature are needed")
        for row in rows
    ]
    figures = {k: v for k, v in rows[0].items() if k not in ("file", "recognised again")} if len(rows) == 1 else {}
    return Result(figures=figures, rows=rows if len(rows) > 1 else (), files=files, said=said)


def read(work: Work, mark: TokenMark, *, found: bool = False) -> Result:
    """Test every text for the mark of the key; see `text_files.told`."""
    texts_of(work)
    work.settled()
    tokenizer, size = load_tokenizer(work.needed("model", f"{_WHAT}, the one that wrote the text"))
    return told(
        work, lambda text: mark.detect(tokenizer(text, add_special_tokens=False).input_ids, work.key, size), found=found
    )
