"""A small vision-language model: visual tokens of a frozen image encoder, then a causal transformer over words.

The encoder's output is computed once for every picture and kept as a bank, so that training costs no more than that of
the language model; a question names its picture by number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import InputError, UsageError
from vestige.nn.access import evaluating
from vestige.nn.blocks import Block

PAD, START, END = "<pad>", "<start>", "<end>"
#: Targets of that value are not trained on.
IGNORED = -100


@torch.no_grad()
def cells(maps: Callable[[Tensor], Sequence[Tensor]], images: Tensor, grid: int = 3, batch: int = 128) -> Tensor:
    """Feature maps of an encoder as tokens: float32 N×grid²×(all channels).

    maps: pictures N×3×H×W -> maps N×C_l×H_l×W_l, each averaged to grid×grid cells.
    """
    parts = []
    for some in images.split(batch):
        pooled = [F.adaptive_avg_pool2d(m, grid).flatten(2) for m in maps(some)]
        parts.append(torch.cat(pooled, 1).transpose(1, 2))
    return torch.cat(parts)


def visual_tokens(
    maps: Callable[[Tensor], Sequence[Tensor]], images: Tensor, grid: int = 3, batch: int = 128
) -> Tensor:
    """`cells` with each channel standardised over the set: to add pictures later, encode them together.

    >>> visual_tokens(lambda x: [x, x[:, :1]], torch.rand(2, 3, 6, 6)).shape
    torch.Size([2, 9, 4])
    """
    tokens = cells(maps, images, grid, batch)
    mean, std = tokens.mean((0, 1)), tokens.std((0, 1)).clamp(min=1e-6)
    return (tokens - mean) / std


class Words:
    """A vocabulary of whole words in the order of the alphabet, after the marks ``<pad>``, ``<start>``, ``<end>``.

    >>> words = Words(["what colour ?", "red"])
    >>> words.text(words.ids("red ?"))
    'red ?'
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.names = [PAD, START, END, *sorted({w for text in texts for w in text.split()})]
        self.number = {word: i for i, word in enumerate(self.names)}
        self.pad, self.start, self.end = range(3)

    def __len__(self) -> int:
        return len(self.names)

    def ids(self, text: str) -> list[int]:
        """Numbers of the words. Raises InputError for a word outside the vocabulary."""
        unknown = [w for w in text.split() if w not in self.number]
        if unknown:
            raise InputError(f"The vocabulary has no word {unknown[0]!r}.")
        return [self.number[w] for w in text.split()]

    def text(self, ids: Iterable[int]) -> str:
        """Words of the numbers; marks are left out."""
        return " ".join(self.names[i] for i in ids if i > self.end)

    def rows(
        self, pictures: Sequence[int], questions: Sequence[str], answers: Sequence[str], length: int
    ) -> tuple[Tensor, Tensor]:
        """(inputs int64 N×(1+length), targets int64 N×length) of questions with their answers.

        An input is the picture's number, then question ``<start>`` answer ``<end>``, padded; the target of a place is
        the word after it where that belongs to the answer, and `IGNORED` elsewhere. Raises InputError for rows that
        are too long.
        """
        x = torch.full((len(questions), 1 + length), self.pad)
        y = torch.full((len(questions), length), IGNORED)
        for i, (picture, question, answer) in enumerate(zip(pictures, questions, answers, strict=True)):
            asked, said = self.ids(question), [*self.ids(answer), self.end]
            row = [*asked, self.start, *said]
            if len(row) > length:
                raise InputError(f"{question!r} with its answer is {len(row)} words long; {length} fit.")
            x[i, 0] = picture
            x[i, 1 : 1 + len(row)] = torch.tensor(row)
            y[i, len(asked) : len(asked) + len(said)] = torch.tensor(said)
        return x, y


class SmallVLM(nn.Module):
    """Pictures by number and words -> logits of the next word at every place of the text, N×length×vocabulary.

    bank: visual tokens of all pictures, float32 P×T×F, kept outside the saved weights. Input: int64 N×(1+length), the
    number of the picture in the bank and the words (see `Words.rows`). The tokens are projected, put before the words
    and attended to causally; the word embedding is also the head.
    Raises UsageError for inputs of another length.

    >>> model = SmallVLM(torch.rand(5, 4, 8), 20, width=16, depth=2, heads=2, length=6)
    >>> model(torch.zeros(3, 7, dtype=torch.int64)).shape
    torch.Size([3, 6, 20])
    """

    bank: Tensor

    def __init__(
        self, bank: Tensor, words: int, *, width: int = 96, depth: int = 3, heads: int = 4, length: int = 14
    ) -> None:
        super().__init__()
        self.length, self.heads = length, heads
        self.register_buffer("bank", bank, persistent=False)
        self.project = nn.Sequential(nn.Linear(bank.shape[2], width), nn.GELU(), nn.Linear(width, width))
        self.embed = nn.Embedding(words, width)
        self.positions = nn.Parameter(0.02 * torch.randn(bank.shape[1] + length, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.embed.weight, std=0.02)

    def states(self, x: Tensor) -> list[Tensor]:
        """The residual stream at the words after every block, each N×length×width."""
        if x.ndim != 2 or x.shape[1] != 1 + self.length:
            raise UsageError(f"A row is a picture's number and {self.length} words; got {tuple(x.shape)}.")
        seen = self.project(self.bank[x[:, 0]])
        h = torch.cat([seen, self.embed(x[:, 1:])], 1) + self.positions
        mask = torch.full((1, 1, h.shape[1], h.shape[1]), -torch.inf, device=h.device).triu(1)
        kept = []
        for block in self.blocks:
            h = block(h, bias=mask)
            kept.append(h[:, seen.shape[1] :])
        return kept

    def lens(self, states: Tensor) -> Tensor:
        """Logits that a state would give if it were the last one: its norm times the head (the logit lens)."""
        return F.linear(self.norm(states), self.embed.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.lens(self.states(x)[-1])


@torch.no_grad()
def answers(model: nn.Module, x: Tensor, words: Words, most: int = 5, batch: int = 256) -> list[str]:
    """Greedy answers to questions; what follows ``<start>`` in the inputs is not looked at."""
    said: list[str] = []
    with evaluating(model):
        for some in x.split(batch):
            row = some.clone()
            rows = torch.arange(len(row))
            first = (row == words.start).int()[:, 1:].argmax(1)  # the place of <start> among the words
            row[:, 1:][torch.arange(row.shape[1] - 1) > first[:, None]] = words.pad
            done = torch.zeros(len(row), dtype=torch.bool)
            new: list[list[int]] = [[] for _ in rows]
            for k in range(most):
                at = first + k
                if int(at.max()) + 2 > row.shape[1]:
                    break
                chosen = model(row)[rows, at].argmax(1)
                done |= chosen == words.end
                for i in (~done).nonzero()[:, 0].tolist():
                    new[i].append(int(chosen[i]))
                if done.all() or int(at.max()) + 2 >= row.shape[1]:
                    break
                row[rows, at + 2] = torch.where(done, words.pad, chosen)
            said += [words.text(ids) for ids in new]
    return said


@torch.no_grad()
def token_log_probs(model: nn.Module, x: Tensor, y: Tensor, batch: int = 256) -> tuple[list[Tensor], list[Tensor]]:
    """For every row: log-probabilities of its target words, and the same standardised by mean and deviation of the
    log-probability over the vocabulary (as Min-K++ wants it)."""
    plain, standard = [], []
    with evaluating(model):
        for some, target in zip(x.split(batch), y.split(batch)):
            logp = model(some).double().log_softmax(2)
            wanted = target.clamp(min=0)
            chosen = logp.gather(2, wanted[..., None])[..., 0]
            p = logp.exp()
            mean = (p * logp).sum(2)
            deviation = ((p * logp.square()).sum(2) - mean.square()).clamp(min=1e-12).sqrt()
            z = (chosen - mean) / deviation
            for i, keep in enumerate(target != IGNORED):
                plain.append(chosen[i, keep])
                standard.append(z[i, keep])
    return plain, standard
