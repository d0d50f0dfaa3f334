"""Vision-language models that a user has, behind one face: what they answer, how likely, and how they are kept.

A folder is a small model of this project (`vestige.nn.vlm_folder`) or a transformers model with its processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from vestige.core.errors import InputError
from vestige.core.files import folder_atomic
from vestige.core.image_io import decode
from vestige.data.packs import resize
from vestige.engines.forgetting.samples import Samples
from vestige.nn.vlm import SmallVLM, Words, answers
from vestige.nn.vlm_folder import FILE, Eye, load_vlm, save_vlm
from vestige.unlearning.vlm import AnsweredPicture, Answering, prompt_of


class Answerer(Protocol):
    """A model with the pictures of some rows in reach.

    module: the network itself; `samples` says over which inputs it gives the next word, N×length×vocabulary.
    """

    @property
    def module(self) -> Any: ...

    def samples(self, rows: Sequence[AnsweredPicture]) -> tuple[nn.Module, Samples]:
        """The model over those rows, and their inputs with the words of the answers as targets."""

    def answers(self, rows: Sequence[AnsweredPicture], most: int = 8) -> list[str]:
        """What it says, greedily, at most so many words."""

    def word(self, number: int) -> str:
        """A word of the vocabulary."""

    def with_module(self, module: nn.Module) -> Answerer:
        """The same face for a changed copy of the module."""

    def save(self, folder: Path) -> None:
        """Write the model as it came."""


@dataclass(frozen=True)
class SmallAnswerer:
    """A small model of this project. numbers: of each picture in its bank."""

    module: Any
    words: Words = field(repr=False)
    eye: Eye = field(repr=False)
    numbers: dict[Path, int] = field(repr=False)

    def samples(self, rows: Sequence[AnsweredPicture]) -> tuple[nn.Module, Samples]:
        pictures = [self.numbers[r.image] for r in rows]
        asked, said = [_words(r.question) for r in rows], [_words(r.answer) for r in rows]
        return self.module, Samples(*self.words.rows(pictures, asked, said, self.module.length))

    def answers(self, rows: Sequence[AnsweredPicture], most: int = 8) -> list[str]:
        return answers(self.module, self.samples(rows)[1].inputs, self.words, most=most)

    def word(self, number: int) -> str:
        return self.words.names[number]

    def with_module(self, module: nn.Module) -> SmallAnswerer:
        assert isinstance(module, SmallVLM)
        return replace(self, module=module)

    def save(self, folder: Path) -> None:
        save_vlm(self.module, self.words, self.eye, folder)


@dataclass(frozen=True)
class LargeAnswerer:
    """An image-text-to-text model of transformers with its processor."""

    module: Any
    processor: Any = field(repr=False)

    def samples(self, rows: Sequence[AnsweredPicture]) -> tuple[nn.Module, Samples]:
        wrapped = Answering(self.module, self.processor, rows)
        targets = wrapped.encoded.targets()
        return wrapped, Samples(torch.arange(len(targets)), targets)

    @torch.no_grad()
    def answers(self, rows: Sequence[AnsweredPicture], most: int = 8) -> list[str]:
        from PIL import Image

        said = []
        for row in rows:
            picture = Image.fromarray(decode(row.image.read_bytes(), row.image.name).pixels)
            prompt = prompt_of(self.processor, row.question)
            given = self.processor(images=[picture], text=[prompt], return_tensors="pt")
            end = self.processor.tokenizer.eos_token_id
            if end is not None and int(given["input_ids"][0, -1]) == end:  # a mark that ends every text
                for name, value in given.items():
                    if value.ndim == 2 and value.shape[1] == given["input_ids"].shape[1] and name != "input_ids":
                        given[name] = value[:, :-1]
                given["input_ids"] = given["input_ids"][:, :-1]
            given = given.to(next(self.module.parameters()).device)
            ids = self.module.generate(**given, max_new_tokens=4 * most, do_sample=False)
            new = ids[0, given["input_ids"].shape[1] :]
            said.append(self.processor.tokenizer.decode(new, skip_special_tokens=True).strip())
        return said

    def word(self, number: int) -> str:
        return str(self.processor.tokenizer.decode([number])).strip()

    def with_module(self, module: nn.Module) -> LargeAnswerer:
        return replace(self, module=module.model if isinstance(module, Answering) else module)

    def save(self, folder: Path) -> None:
        with folder_atomic(folder) as new:
            self.module.save_pretrained(str(new))
            self.processor.save_pretrained(str(new))


def _words(text: str) -> str:
    """Text as the small vocabulary has it: lower case, a question mark as a word of its own."""
    return " ".join(text.lower().replace("?", " ?").split())


def open_answerer(folder: Path, rows: Sequence[AnsweredPicture], device: str = "cpu") -> Answerer:
    """The model of a folder. Raises InputError for a folder that holds no vision-language model."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; a vision-language model is a folder with its weights and words.")
    if (folder / FILE).is_file():
        side = load_vlm(folder)[2].side
        files = list(dict.fromkeys(r.image for r in rows))
        pictures = [resize(decode(f.read_bytes(), f.name).pixels, (side, side)) for f in files]
        images = torch.from_numpy(np.stack(pictures).transpose(0, 3, 1, 2).copy())
        model, words, eye = load_vlm(folder, images)
        return SmallAnswerer(model, words, eye, {file: n for n, file in enumerate(files)})
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} holds no vision-language model: neither {FILE} nor config.json is there.")
    return _transformers(folder, device)


def _transformers(folder: Path, device: str) -> LargeAnswerer:
    from transformers import AutoProcessor

    from vestige.core.models.checkpoint import ModelSubject
    from vestige.core.runtime import device as device_of

    model = ModelSubject.open(folder).load()
    try:
        processor = AutoProcessor.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{folder} has no processor for pictures and text ({reason}).") from None
    if not hasattr(processor, "image_processor") or not hasattr(model, "generate"):
        raise InputError(f"{folder} holds a {type(model).__name__}, which answers no questions about pictures.")
    return LargeAnswerer(model.to(device_of(device)), processor)
