"""Make any vision-language model of transformers forget answers about pictures, by GA, GD, KL or PO.

The model is wrapped so that a row is an input: encoded once by its own processor, padded and given to the model by
number. What erases then is the same class and loop as for the small models of the project.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vestige.core.errors import InputError
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import Samples
from vestige.nn.vlm import IGNORED
from vestige.unlearning.fiubench import FiuBench

#: Answers that take the place of the forgotten ones for objective "po".
REFUSALS = ("I do not know.", "I cannot help with that.", "That is private.", "I have no information about that.")
#: What a row of a questions file can belong to.
PARTS = ("forget", "retain", "unseen")
#: Ends of the names of modules that look at pictures; they stay as they are.
TOWERS = ("vision_tower", "vision_model", "visual", "vision_encoder", "image_encoder")


@dataclass(frozen=True)
class AnsweredPicture:
    """A picture's file, a question about it, and the answer.

    part: "forget", "retain" or "unseen" (a fact that nobody was told), "" where the file does not say. paraphrases:
    other wordings of the question. wrong: wrong answers of the same form.
    """

    image: Path
    question: str
    answer: str
    part: str = ""
    paraphrases: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()


def read_rows(path: str | Path) -> list[AnsweredPicture]:
    """Rows of a JSONL file with "image" (a file, relative to it), "question", "answer" and, where wanted, "part",
    "paraphrases" and "wrong"; a folder holds one such file.

    Raises InputError for a missing file or field, or a picture that is not there.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(path.glob("*.jsonl"))
        if len(found) != 1:
            raise InputError(f"{path} holds {len(found)} .jsonl files; one is needed.")
        path = found[0]
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path} cannot be read as text; questions are lines of JSON in UTF-8.") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            made = AnsweredPicture(
                path.parent / str(row["image"]), str(row["question"]), str(row["answer"]), str(row.get("part", "")),
                tuple(map(str, row.get("paraphrases", ()))), tuple(map(str, row.get("wrong", ()))),
            )  # fmt: skip
        except (ValueError, TypeError, KeyError, AttributeError):
            raise InputError(f"Line {number} of {path} is no object with image, question and answer.") from None
        if made.part not in ("", *PARTS):
            raise InputError(f"Line {number} of {path} has the part {made.part!r}; {', '.join(PARTS)} are known.")
        if not made.image.is_file():
            raise InputError(f"Line {number} of {path} names the picture {made.image.name}, which is not there.")
        rows.append(made)
    if not rows:
        raise InputError(f"{path} has no row.")
    return rows


class _Encoded:
    """Encoded rows; copies of the model share them."""

    def __init__(self, rows: list[dict[str, Tensor]], prompts: list[int], pad: int) -> None:
        self.rows, self.pad = rows, pad
        self.longest = max(r["input_ids"].shape[1] for r in rows)
        #: Places before this one belong to every row's question.
        self.first = min(prompts)
        self.prompts = prompts

    def __deepcopy__(self, memo: Any) -> _Encoded:
        return self

    def targets(self) -> Tensor:
        """int64 N×(longest − first): the words of the answers, `IGNORED` elsewhere."""
        y = torch.full((len(self.rows), self.longest), IGNORED)
        for i, (row, start) in enumerate(zip(self.rows, self.prompts, strict=True)):
            ids = row["input_ids"][0]
            y[i, start : len(ids)] = ids[start:]
        return y[:, self.first :]

    def batch(self, numbers: list[int], device: torch.device) -> dict[str, Tensor]:
        rows = [self.rows[n] for n in numbers]
        made: dict[str, Tensor] = {}
        for name, value in rows[0].items():
            parts = [r[name] for r in rows]
            if value.ndim == 2 and value.shape[1] == rows[0]["input_ids"].shape[1]:
                fill = self.pad if name == "input_ids" else 0
                parts = [nn.functional.pad(p, (0, self.longest - p.shape[1]), value=fill) for p in parts]
            made[name] = torch.cat(parts).to(device)
        return made


class Answering(nn.Module):
    """A transformers model over encoded rows: numbers N -> logits of the next word where answers may stand.

    Raises InputError when the processor cuts a row or the picture's token is missing.
    """

    def __init__(self, model: Any, processor: Any, rows: Sequence[AnsweredPicture]) -> None:
        super().__init__()
        self.model = model
        encoded = [_encode(processor, row) for row in rows]
        pad = processor.tokenizer.pad_token_id
        self.encoded = _Encoded([e for e, _ in encoded], [p for _, p in encoded], 0 if pad is None else int(pad))
        self.keeps = "logits_to_keep" in inspect.signature(model.forward).parameters

    def forward(self, numbers: Tensor) -> Tensor:
        batch = self.encoded.batch(numbers.tolist(), next(self.model.parameters()).device)
        kept = self.encoded.longest - self.encoded.first + 1
        logits = self.model(**batch, **({"logits_to_keep": kept} if self.keeps else {})).logits
        return logits[:, -kept:-1]

    def states(self, numbers: Tensor) -> list[Tensor]:
        """The residual stream at the same places after every layer, the last one before its norm."""
        norm = _final_norm(self.model)
        seen: list[Tensor] = []
        handle = norm.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
        try:
            batch = self.encoded.batch(numbers.tolist(), next(self.model.parameters()).device)
            hidden = self.model(**batch, output_hidden_states=True).hidden_states
        finally:
            handle.remove()
        kept = self.encoded.longest - self.encoded.first + 1
        return [h[:, -kept:-1] for h in (*hidden[1:-1], seen[-1])]

    def lens(self, states: Tensor) -> Tensor:
        """Logits that a state would give if it were the last one (the logit lens)."""
        return self.model.get_output_embeddings()(_final_norm(self.model)(states))


def _final_norm(model: Any) -> nn.Module:
    """The norm after the last layer of the language model; raises InputError where none is known by its name."""
    ends = ("language_model.norm", "text_model.norm", "model.norm", "final_layernorm", "ln_f", "final_layer_norm")
    found = [part for name, part in model.named_modules() if name.endswith(ends) and not _in_tower(name)]
    if not found:
        raise InputError(f"{type(model).__name__} shows no last norm, which the logit lens needs.")
    return found[-1]


def _in_tower(name: str) -> bool:
    return any(part in TOWERS for part in name.split("."))


def prompt_of(processor: Any, question: str) -> str:
    """The question in the words of the model: by its chat template, else the picture's token and the question."""
    if getattr(processor, "chat_template", None):
        content = [{"type": "image"}, {"type": "text", "text": question}]
        return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return f"{getattr(processor, 'image_token', '<image>')} {question} "


def _encode(processor: Any, row: AnsweredPicture) -> tuple[dict[str, Tensor], int]:
    """(the processor's tensors of one row, how many tokens belong to the question)."""
    from PIL import Image

    from vestige.core.image_io import decode

    picture = Image.fromarray(decode(row.image.read_bytes(), row.image.name).pixels)
    prompt = prompt_of(processor, row.question)
    end = processor.tokenizer.eos_token or ""
    asked = processor(images=[picture], text=[prompt], return_tensors="pt")
    full = processor(images=[picture], text=[f"{prompt}{row.answer}{end}"], return_tensors="pt")
    # What ends a text by itself (an end mark after the question) is no part of the question.
    same = asked["input_ids"][0] == full["input_ids"][0, : asked["input_ids"].shape[1]]
    start = int(same.long().cumprod(0).sum())
    if start >= full["input_ids"].shape[1]:
        raise InputError(f"The answer {row.answer!r} has no token after its question; check the tokenizer.")
    return {k: v for k, v in full.items() if isinstance(v, Tensor)}, start


def forget_answers(
    model: Any,
    processor: Any,
    forget: Sequence[AnsweredPicture] | str | Path,
    retain: Sequence[AnsweredPicture] | str | Path,
    *,
    objective: str = "gd",
    lr: float = 2e-5,
    epochs: int = 5,
    batch_size: int = 4,
    refusals: Sequence[str] = REFUSALS,
    train_vision: bool = False,
    seed: int = 0,
) -> Any:
    """A copy of an image-text-to-text model that was tuned to forget; see `FiuBench` for the objectives.

    model, processor: of transformers, for example from ``AutoModelForImageTextToText.from_pretrained(folder)`` and
    ``AutoProcessor``; forget, retain: rows, or a JSONL file or folder of them (`read_rows`). train_vision: also tune
    what looks at pictures. Save the result with its ``save_pretrained``.
    """
    gone = list(forget) if not isinstance(forget, str | Path) else read_rows(forget)
    kept = list(retain) if not isinstance(retain, str | Path) else read_rows(retain)
    if not gone or not kept or not refusals:
        raise InputError("Forgetting needs rows to forget, rows to retain and at least one refusal.")
    refused = [AnsweredPicture(r.image, r.question, refusals[i % len(refusals)]) for i, r in enumerate(gone)]
    wrapped = Answering(model, processor, [*gone, *kept, *(refused if objective == "po" else [])])
    targets, n, m = wrapped.encoded.targets(), len(gone), len(kept)
    numbers = torch.arange(len(targets))
    problem = ForgetProblem(
        wrapped, Samples(numbers[: n + m], targets[: n + m]), range(n), range(n, n + m), kind="identity", seed=seed
    )
    towers = tuple(name for name, _ in wrapped.named_modules() if name.rpartition(".")[2] in TOWERS)
    eraser = FiuBench(
        objective, lr, epochs, batch_size, frozen=() if train_vision else towers,
        refusals=Samples(numbers[n + m :], targets[n + m :]) if objective == "po" else None,
    )  # fmt: skip
    erased = eraser.erase(problem)
    assert isinstance(erased, Answering)
    return erased.model
