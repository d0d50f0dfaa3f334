"""Claims of the time-free masked sampler and its audit, on languages whose law is known: nothing is trained."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy.stats import chi2, chisquare

from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.core.runtime import rng
from vestige.engines.diffusion.discrete import categorical, expected_calls
from vestige.generation.first_hitting import LARGEST_GUMBEL, FirstHitting, MarkovModel, ancestral_law, audit

#: Chance that one honest sampler fails some test of a claim.
LEVEL = 0.01
#: Ranks at which the vocabulary is cut for the frequency test of few draws.
EDGES = (0, 1, 4, 16, 64, 256, 1024)


def zipf(size: int) -> np.ndarray:
    """p_k ∝ 1/k."""
    p = 1 / np.arange(1, size + 1)
    return p / p.sum()


class Independent:
    """The exact denoiser of independent tokens of law p, counting its calls; float32, as networks are."""

    def __init__(self, p: np.ndarray) -> None:
        self.row = torch.from_numpy(np.log(p)).float()

    def __call__(self, x: torch.Tensor, places: torch.Tensor | None) -> torch.Tensor:
        return self.row.expand(*(x if places is None else places).shape, -1)


def chain(size: int, sharpness: float, seed: int) -> torch.Tensor:
    """Transition matrix with softmax(sharpness · normal) rows."""
    draws = rng(seed, "chain").normal(size=(size, size))
    return torch.softmax(torch.from_numpy(sharpness * draws), 1)


def chain_sequences(model: MarkovModel, n: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Sequences N×L drawn from left to right: the true language."""
    x = torch.empty(n, length, dtype=torch.long)
    x[:, 0] = categorical(model.stationary.log().expand(n, -1), generator)
    for i in range(1, length):
        x[:, i] = categorical(model.powers[1][x[:, i - 1]].log(), generator)
    return x


def chain_test(tokens: torch.Tensor, model: MarkovModel) -> tuple[float, int]:
    """p-value and degrees of freedom of sequences under the chain.

    Neighbouring pairs overlap, so they are not independent draws from the bigram law; given how often each token is
    left, sum (n_ab - n_a P_ab)² / (n_a P_ab) has V(V - 1) degrees of freedom, and the first tokens add V - 1.
    Source: Billingsley, Statistical methods in Markov chains, Annals of Mathematical Statistics 1961.
    """
    step, start, size = model.powers[1].numpy(), model.stationary.numpy(), len(model.stationary)
    x = tokens.numpy()
    pairs = np.bincount((x[:, :-1] * size + x[:, 1:]).ravel(), minlength=size * size).reshape(size, size)
    wanted = pairs.sum(1, keepdims=True) * step
    first = np.bincount(x[:, 0], minlength=size)
    statistic = ((pairs - wanted) ** 2 / np.maximum(wanted, 1e-12)).sum()
    statistic += ((first - len(x) * start) ** 2 / (len(x) * start)).sum()
    freedom = size * (size - 1) + size - 1
    return float(chi2.sf(statistic, freedom)), freedom


@claim(
    "first-hitting and float64 ancestral samples (N = 8L) have the true token and bigram laws (chi-square at a joint "
    "level of 1 %) and equal entropy within 1 %; a biased sampler is found out"
)
def samples_have_the_true_law(context: ClaimContext) -> Evidence:
    length, words, states = (16, 16, 4) if context.limit else (64, 128, 16)
    n_words, n_chain = (context.limit * 8, context.limit * 8) if context.limit else (150, 500)
    p, language = zipf(words), MarkovModel(chain(states, 1.0, context.seed), length)
    makers: dict[str, dict[str, Any]] = {
        "first hitting": {"sampler": "first_hitting"},
        "ancestral float64": {"sampler": "ancestral", "steps": 8 * length},
    }
    rows: list[dict[str, Any]] = []
    entropies: dict[str, dict[str, float]] = {"zipf": {}, "chain": {}}
    passed = []
    for name, options in makers.items():
        drawn = FirstHitting(Independent(p), length, words, **options).draw(n_words, seed=context.seed)
        found = np.bincount(drawn.tokens.flatten().numpy(), minlength=words)
        value = float(chisquare(found, p * found.sum()).pvalue)
        entropies["zipf"][name] = audit(drawn.tokens)["entropy"]
        passed.append(value)
        rows.append(_law_row("zipf", name, value, words - 1, entropies["zipf"][name], drawn.calls))
    for name, options in {**makers, "top confidence (biased)": {"sampler": "top_confidence"}}.items():
        drawn = FirstHitting(language, length, language.mask, **options).draw(n_chain, seed=context.seed)
        value, freedom = chain_test(drawn.tokens, language)
        entropies["chain"][name] = audit(drawn.tokens)["entropy"]
        if name in makers:
            passed.append(value)
        rows.append(_law_row("chain", name, value, freedom, entropies["chain"][name], drawn.calls))
    biased = rows[-1]["p-value"]
    straight = chain_sequences(language, n_chain, length, torch.Generator().manual_seed(context.seed + 1))
    value, freedom = chain_test(straight, language)
    rows.append(_law_row("chain", "left to right (truth)", value, freedom, audit(straight)["entropy"], length))
    gaps = [abs(e["first hitting"] / e["ancestral float64"] - 1) for e in entropies.values()]
    holds = min(passed) >= LEVEL / len(passed) and biased < 1e-6 and max(gaps) <= 0.01
    note = f"Each p-value must reach {LEVEL / len(passed):g}; entropies of the two differ by at most {max(gaps):.2%}."
    return Evidence(holds, rows, note)


def _law_row(language: str, sampler: str, p: float, freedom: int, entropy: float, calls: int) -> dict[str, Any]:
    return {
        "language": language, "sampler": sampler, "p-value": p, "degrees of freedom": freedom, "entropy": entropy,
        "calls": calls,
    }  # fmt: skip


@headline(
    "the entropy of float32 ancestral samples falls from N = 64 to 4096 steps at V = 8192, and their frequencies are "
    "those predicted for 24-bit uniform numbers, not the true ones"
)
def float32_lowers_the_temperature(context: ClaimContext) -> Evidence:
    p = zipf(256 if context.limit else 8192)
    length = 16 if context.limit else 320
    plan = {8: 2, 16: 1} if context.limit else {64: 12, 1024: 2, 4096: 1}
    edges = [e for e in EDGES if e < len(p)]
    rows, measured, fits = [], [], []
    for dtype, steps in [*((torch.float32, steps) for steps in plan), (torch.float64, min(plan))]:
        tokens = _drawn(p, length, steps, plan[steps], dtype, context.seed)
        bits = 24 if dtype == torch.float32 else 53
        laws = {
            "grid": ancestral_law(p, steps, bits=bits),
            "cut off": ancestral_law(p, steps, LARGEST_GUMBEL[dtype]),
            "truth": p,
        }
        laws = {name: law / law.sum() for name, law in laws.items()}
        expected, spread = _entropy_of_law(laws["grid"], length, context.seed)
        entropy = audit(tokens)["entropy"]
        values = {name: _groups_test(tokens, law, edges) for name, law in laws.items()}
        measured.append(entropy)
        fits.append((values["grid"], abs(entropy - expected) <= 3 * spread / plan[steps] ** 0.5, values["truth"]))
        rows.append(
            {
                "draws": str(dtype).removeprefix("torch."), "steps": steps, "tokens": tokens.numel(),
                "entropy": entropy, "predicted entropy": expected,
                "share beyond rank 256": float((tokens >= 256).float().mean()),
                **{f"share, {name}": float(law[256:].sum()) for name, law in laws.items()},
                **{f"p-value, {name}": value for name, value in values.items()},
            }
        )  # fmt: skip
    falls = all(a > b for a, b in pairwise(measured[:-1]))  # the last row is the float64 control
    right = all(value >= LEVEL / len(fits) and near for value, near, _ in fits)
    note = (
        f"Entropies are means over sequences of {length} tokens, which lowers all of them. The prediction is for "
        "uniform numbers on a grid; the paper's formula, with noise cut off at its largest value, is 'cut off'."
    )
    return Evidence(falls and right and fits[-2][2] < 1e-3 and fits[-1][2] >= LEVEL, rows, note)


def _drawn(p: np.ndarray, length: int, steps: int, sequences: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Ancestral samples, one sequence at a time: all places of one sequence take gigabytes less that way."""
    system = FirstHitting(Independent(p), length, len(p), sampler="ancestral", steps=steps, dtype=dtype)
    return torch.cat([system.sample(1, seed=seed * 1009 + 31 * steps + i) for i in range(sequences)])


def _entropy_of_law(law: np.ndarray, length: int, seed: int) -> tuple[float, float]:
    """Mean and spread of the entropy of the token frequencies of a sequence drawn from the law."""
    draws = torch.from_numpy(rng(seed, "entropy").choice(len(law), (300, length), p=law))
    each = [audit(row[None])["entropy"] for row in draws]
    return float(np.mean(each)), float(np.std(each))


def _groups_test(tokens: torch.Tensor, law: np.ndarray, edges: list[int]) -> float:
    """p-value of the frequencies of groups of ranks."""
    found = np.add.reduceat(np.bincount(tokens.flatten().numpy(), minlength=len(law)), edges)
    wanted = np.add.reduceat(law, edges)
    return float(chisquare(found, wanted / wanted.sum() * found.sum()).pvalue)


class Transformer(torch.nn.Module):
    """An untrained masked language model of the size that one measures samplers with: what its calls cost is real."""

    def __init__(self, words: int, length: int, width: int, depth: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.tokens = torch.nn.Embedding(words + 1, width)
            self.positions = torch.nn.Parameter(0.02 * torch.randn(length, width))
            layer = torch.nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, batch_first=True, norm_first=True)
            self.trunk = torch.nn.TransformerEncoder(layer, depth, enable_nested_tensor=False).eval()
            self.head = torch.nn.Linear(width, words)

    def forward(self, x: torch.Tensor, places: torch.Tensor | None) -> torch.Tensor:
        hidden = self.trunk(self.tokens(x) + self.positions[: x.shape[1]])
        if places is not None:
            hidden = hidden.gather(1, places[..., None].expand(-1, -1, hidden.shape[-1]))
        return torch.log_softmax(self.head(hidden), -1)


@claim(
    "with V = 50,000, L = N and a 2-layer network, first-hitting takes at most 1/5 of the time of ancestral sampling "
    "and 1/2 of that with a cache (whole runs at L = 192, timed steps at L = 1024)"
)
def is_faster(context: ClaimContext) -> Evidence:
    words, width = (500, 16) if context.limit else (50_000, 128)
    whole, long = (8, 16) if context.limit else (192, 1024)
    model = Transformer(words, whole, width, 2, context.seed)
    kinds: dict[str, dict[str, Any]] = {
        "first hitting": {"sampler": "first_hitting"},
        "ancestral": {"sampler": "ancestral", "steps": whole, "cached": False},
        "ancestral, cached": {"sampler": "ancestral", "steps": whole, "cached": True},
    }
    rows: list[dict[str, Any]] = []
    FirstHitting(model, 2, words).sample(1)  # the first call of a process sets things up
    for name, options in kinds.items():
        begin = time.perf_counter()
        drawn = FirstHitting(model, whole, words, **options).draw(1, seed=context.seed)
        rows.append(_time_row(name, whole, time.perf_counter() - begin, drawn.calls, drawn.draws, "whole run"))
    seconds = timed_steps(Transformer(words, long, width, 2, context.seed), long, words, context.seed)
    rows += [_time_row(name, long, total, None, None, "timed steps") for name, total in seconds.items()]
    wanted = {"first hitting": float, "ancestral": float, "ancestral, cached": lambda n: expected_calls(n, n)}
    holds = True
    for row in rows:
        row["expected calls"] = round(wanted[row["sampler"]](row["length"]), 1)
        fast = next(r["seconds"] for r in rows if r["length"] == row["length"])
        row["times first hitting"] = row["seconds"] / fast
        least = {"first hitting": 1.0, "ancestral": 5.0, "ancestral, cached": 2.0}[row["sampler"]]
        holds = holds and row["times first hitting"] >= least
    return Evidence(
        holds, rows, "Fewer steps than tokens would not sample the law; 8L, as in the first claim, cost 8x."
    )


def _time_row(
    sampler: str, length: int, seconds: float, calls: int | None, draws: int | None, how: str
) -> dict[str, Any]:
    row = {"sampler": sampler, "length": length, "seconds": seconds, "measured": how}
    return {**row, **({} if calls is None else {"calls": calls, "draws": draws})}


@torch.no_grad()
def timed_steps(model: Transformer, length: int, words: int, seed: int, points: int = 4) -> dict[str, float]:
    """Seconds of whole runs with N = L, from one network call and draws at ``points`` numbers of hidden places."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.full((1, length), words)

    def seconds(work: Callable[[], Any]) -> float:
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin

    hit = np.mean([seconds(lambda: categorical(model(x, torch.tensor([[0]])), generator)) for _ in range(2 * points)])
    network = float(np.mean([seconds(lambda: model(x, None)) for _ in range(2)]))
    log_p = model(x, None)[0]
    stay = torch.full((length, 1), -0.5)

    def draw(hidden: int) -> None:
        categorical(torch.cat([log_p[:hidden], stay[:hidden]], -1), generator)

    # The share of hidden places falls evenly from 1 to 0, so the mean over the middles of equal parts is that of a run.
    step = np.mean([seconds(partial(draw, round(length * (i + 0.5) / points))) for i in range(points)])
    return {
        "first hitting": float(length * hit),
        "ancestral": float(length * (network + step)),
        "ancestral, cached": float(expected_calls(length, length) * network + length * step),
    }


@claim("the error of revealing k places from one call grows with k, and vanishes at k = 1")
def parallel_reveal_costs_accuracy(context: ClaimContext) -> Evidence:
    length, states, n = (8, 4, 8 * context.limit) if context.limit else (32, 8, 3000)
    model = MarkovModel(chain(states, 2.0, context.seed), length)
    rows, errors = [], []
    sizes = [k for k in (1, 2, 4, 8, 16, 32) if k <= length]
    start, step = model.stationary, model.powers[1]
    truth = float(-(start * start.log()).sum() - (length - 1) * (start[:, None] * step * step.log()).sum()) / length
    for k in sizes:
        drawn = FirstHitting(model, length, model.mask, parallel=k).draw(n, seed=context.seed)
        each = _surprise(drawn.tokens, model) / length
        found = np.bincount(
            (drawn.tokens[:, :-1] * states + drawn.tokens[:, 1:]).flatten().numpy(), minlength=states**2
        )
        distance = 0.5 * float(np.abs(found / found.sum() - model.bigrams().ravel()).sum())
        errors.append((float(each.mean()) - truth, float(each.std()) / n**0.5))
        rows.append(
            {
                "k": k, "calls": drawn.calls, "nats a token": float(each.mean()), "truth": truth,
                "excess": errors[-1][0], "standard error": errors[-1][1], "distance of bigrams": distance,
                "p-value": chain_test(drawn.tokens, model)[0],
            }
        )  # fmt: skip
    grows = all(a[0] < b[0] for a, b in pairwise(errors))
    return Evidence(grows and abs(errors[0][0]) <= 3 * errors[0][1], rows)


def _surprise(tokens: torch.Tensor, model: MarkovModel) -> torch.Tensor:
    """-log p of whole sequences under the chain, nats, (N,)."""
    steps = model.powers[1].log()[tokens[:, :-1], tokens[:, 1:]].sum(1)
    return -(steps + model.stationary.log()[tokens[:, 0]])
